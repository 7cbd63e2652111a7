"""Access to file systems: local paths, and every URL that fsspec knows (gs://, s3://, ...).

Files are written under a temporary name, which is renamed when the content is complete.
"""

import contextlib
import errno
import hashlib
import os
import posixpath
import shutil
import stat
import threading
import uuid

import fsspec

from segthor.errors import InputError

TEMPORARY_PREFIX = ".partial-"


def is_url(path: str) -> bool:
    """Whether `path` is a URL, and not a local path."""
    return "://" in path


def join(folder: str, *names: str) -> str:
    """`folder`/names..., for local paths and URLs alike."""
    return posixpath.join(folder, *names) if is_url(folder) else os.path.join(folder, *names)


def name(path: str) -> str:
    """The last part of a path or URL."""
    return path.rstrip("/").rsplit("/", 1)[-1]


def inside(folder: str, name: str) -> str:
    """`folder`/name, for a name that a user's file contains, such as a CSV or a manifest.

    Raises:
      InputError: The name is not that of a file in the folder itself.
    """
    if name in ("", ".", "..") or any(mark in name for mark in "/\\\0"):
        raise InputError(f"{folder}: expected the name of a file in this folder, found {name!r}")
    return join(folder, name)


def absolute(path: str) -> str:
    """The absolute path, which is valid in every process; a URL as it is."""
    return path if is_url(path) else os.path.abspath(path)


def parent(path: str) -> str:
    """The folder of `path`; '.' for a local name without a folder."""
    return path.rstrip("/").rpartition("/")[0] or ("/" if path.startswith("/") else ".")


def open_read(path: str, block_bytes: int | None = None):
    """Opens a regular file as a binary stream.

    Pipes and devices are refused: reading a pipe may never return, and a device has no end.

    block_bytes: Bytes per request to another file system; a small number where little is needed.

    Raises:
      InputError: There is no such file, or it cannot be opened.
    """
    try:
        if is_url(path):
            system, inner = _system(path)
            return system.open(inner, "rb", block_size=block_bytes)
        if stat.S_ISREG(os.stat(path).st_mode):
            return open(path, "rb")
        raise OSError(errno.EINVAL, "expected a file, found a folder, pipe or device")
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", error) or "no such file"
        raise InputError(f"{path}: cannot be read ({reason})") from error


def open_write(path: str):
    """Opens a binary stream to `path`; readers may see it half-written, unlike `atomic_write`."""
    return _call(path, lambda local: open(local, "wb"), "open", "wb")


def read_bytes(path: str) -> bytes:
    """The content of the file."""
    with open_read(path) as stream:
        return stream.read()


def partial_path(path: str) -> str:
    """A temporary path in the folder of `path`, whose name ends like that of `path`."""
    # 40 characters: `path` may have the longest name that the file system allows.
    return join(parent(path), f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{name(path)[-40:]}")


@contextlib.contextmanager
def atomic_write(path: str, final=None, durable: bool = True):
    """Yields a binary stream; when the block ends, its content appears under `path` as a whole.

    Args:
      path: The path. An exception in the block leaves it as it was.
      final: Called when all is written; returns the path to use instead, for a name that depends
        on the content.
      durable: Whether to wait for the disk, so that a power cut cannot leave an empty file.
    """
    temporary = partial_path(path)
    makedirs(parent(path))
    try:
        with open_write(temporary) as stream:
            yield stream
            if not is_url(path):
                stream.flush()
                (os.fsync if durable else _write_back)(stream.fileno())
        move(temporary, final() if final else path)
    except BaseException as error:
        if isinstance(error, OSError) and not error.filename:
            error.filename = path  # the system's error for a full disk names no file
        with contextlib.suppress(OSError):
            remove(temporary)
        raise


def _write_back(descriptor: int) -> None:
    """Makes the system start writing to the disk, so that a later `sync` waits less."""
    if not hasattr(os, "posix_fadvise"):  # macOS
        return
    own = os.dup(descriptor)

    def begin():
        os.posix_fadvise(own, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(own)

    threading.Thread(target=begin).start()  # the call blocks while the disk is busy


def sync(path: str) -> None:
    """Waits until a file written without `durable`, or a folder, is on the disk; not for a URL."""
    if not is_url(path):
        descriptor = os.open(path, os.O_RDONLY)  # `open` refuses a folder
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def move(source: str, target: str) -> None:
    """Renames a file, replacing `target`."""
    if not is_url(source):
        os.replace(source, target)
        return
    (system, source_path), (_, target_path) = _system(source), _system(target)
    if type(system).mv is not fsspec.AbstractFileSystem.mv:
        system.mv(source_path, target_path)
    else:  # fsspec's default `mv` takes * and [ in names as patterns
        system.cp_file(source_path, target_path)
        system.rm_file(source_path)


def exists(path: str) -> bool:
    """Whether `path` is a file or a folder."""
    return _call(path, os.path.exists, "exists")


def is_dir(path: str) -> bool:
    """Whether `path` is a folder."""
    return _call(path, os.path.isdir, "isdir")


def size(path: str) -> int:
    """The size of the file in bytes."""
    return _call(path, os.path.getsize, "size")


def stamp(path: str) -> str:
    """The file's size and time of change (or tag), as a cheap sign of whether it changed."""
    if is_url(path):
        system, inner = _system(path)
        info = system.info(inner)
        tag = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("created")
        return f"{info['size']}-{tag}"
    status = os.stat(path)
    return f"{status.st_size}-{status.st_mtime_ns}"


def listdir(folder: str) -> list[str]:
    """Sorted names of a folder's files and folders; see `entries`."""
    return sorted(name for names in entries(folder) for name in names)


def entries(folder: str) -> tuple[list[str], list[str]]:
    """(files, folders): sorted names of what is in a folder, from one listing.

    Hidden ones are left out, such as temporary files, .DS_Store and ._scan.nii.gz. For a URL that
    does not exist both lists are empty, since object stores have no folders without files.

    Raises:
      InputError: `folder` is no folder.
    """
    if not is_dir(folder):
        if is_url(folder) and not exists(folder):
            return [], []
        kind = "a file" if exists(folder) else "nothing"
        raise InputError(f"{folder}: expected a folder, found {kind}")
    if is_url(folder):
        system, inner = _system(folder)
        listed = system.ls(inner, detail=True)
        pairs = [(name(entry["name"]), entry["type"] == "directory") for entry in listed]
    else:
        with os.scandir(folder) as listed:
            pairs = [(entry.name, _is_folder(entry)) for entry in listed]
    shown = sorted(pair for pair in pairs if pair[0] and not pair[0].startswith("."))
    return tuple([entry for entry, is_folder in shown if is_folder == kind] for kind in (0, 1))


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or a path that is too long
        return False


def makedirs(folder: str) -> None:
    """Makes the folder and its parents where they are missing."""
    _call(folder, lambda local: os.makedirs(local, exist_ok=True), "makedirs", True)


def remove(path: str) -> None:
    """Removes a file."""
    _call(path, os.remove, "rm_file")  # not `rm`, which takes * and [ in a name as a pattern


def temporary(folder: str, ending: str = "") -> list[str]:
    """Paths of the temporary files in a folder whose names end in `ending`; [] without a folder."""
    if not is_dir(folder):
        return []
    names = [name(entry) for entry in _call(folder, os.listdir, "ls", False)]
    names = [one for one in names if one.startswith(TEMPORARY_PREFIX) and one.endswith(ending)]
    return [join(folder, one) for one in names]


def remove_partial(folder: str, ending: str = "") -> None:
    """Removes the temporary files that killed processes left in a folder.

    No other process may be writing there. ending: Of the names of the files to remove.
    """
    for path in temporary(folder, ending):
        if is_url(path):
            system, inner = _system(path)
            system.rm(inner, recursive=True)
        elif os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.remove(path)


def is_same(one: str, other: str) -> bool:
    """Whether two paths name the same file or folder; follows links."""
    if is_url(one) or is_url(other):
        return one.rstrip("/") == other.rstrip("/")
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)


def sha256(path: str) -> str:
    """The SHA-256 of the file's bytes, in hexadecimal."""
    digest = hashlib.sha256()  # Python 3.10 has no hashlib.file_digest
    with open_read(path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _call(path: str, local, method: str, *arguments):
    """local(path), or for a URL the method of its file system, called with the path in it."""
    if not is_url(path):
        return local(path)
    system, inner = _system(path)
    return getattr(system, method)(inner, *arguments)


def _system(url: str):
    """(fsspec's file system, path in it). Listings are not cached: other processes write, too."""
    try:
        return fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise InputError(f"{url}: no file system of this kind ({error})") from error
