"""Whether a label map is the one that a job wrote, a damaged one, or a person's correction."""

from segthor import files, nifti
from segthor.errors import InputError


def differs(path: str, digest: str) -> bool:
    """Whether a label map that can be read is there, with other bytes than those of `digest`.

    '' is the digest of any label map.
    """
    if not digest or not files.exists(path) or files.sha256(path) == digest:
        return False
    return not is_damaged(path, digest)


def is_damaged(path: str, digest: str) -> bool:
    """Whether the label map cannot be read; it is looked into only where its bytes changed."""
    if files.size(path) and files.sha256(path) == digest:
        return False
    try:
        nifti.read(path)
    except InputError:
        return True
    return False
