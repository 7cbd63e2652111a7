"""Tells the label maps of a job from damaged ones and from a person's corrections."""

from segthor import files, nifti
from segthor.errors import InputError


def differs(path: str, digest: str) -> bool:
    """Whether a readable label map exists whose digest differs; the digest '' matches all."""
    if not digest or not files.exists(path) or files.sha256(path) == digest:
        return False
    return not is_damaged(path, digest)


def is_damaged(path: str, digest: str) -> bool:
    """Whether the label map cannot be read; one with this digest is not read."""
    if files.size(path) and files.sha256(path) == digest:
        return False
    try:
        nifti.read(path)
    except InputError:
        return True
    return False
