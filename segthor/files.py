"""The one seam to file systems: local paths, and any URL that fsspec knows (gs://, s3://, ...).

Readers get whole files or streams; writers a temporary name that is renamed when all is written.
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
    """Whether `path` names another file system than the local one."""
    return "://" in path


def join(folder: str, *names: str) -> str:
    """`folder`/names..., for local paths and URLs alike."""
    return posixpath.join(folder, *names) if is_url(folder) else os.path.join(folder, *names)


def name(path: str) -> str:
    """The last part of a path or URL."""
    return path.rstrip("/").rsplit("/", 1)[-1]


def inside(folder: str, name: str) -> str:
    """`folder`/name, for a name that came from outside: in a CSV, a manifest or a file's name.

    Raises:
      InputError: the name is not that of a file in the folder itself.
    """
    if name in ("", ".", "..") or any(mark in name for mark in "/\\\0"):
        raise InputError(f"{folder}: expected the name of a file in this folder, found {name!r}")
    return join(folder, name)


def absolute(path: str) -> str:
    """The path from the root, so that it holds in every process; URLs as they are."""
    return path if is_url(path) else os.path.abspath(path)


def parent(path: str) -> str:
    """The folder that holds `path` ('.' for a bare local name)."""
    return path.rstrip("/").rpartition("/")[0] or ("/" if path.startswith("/") else ".")


def open_read(path: str, block_bytes: int | None = None):
    """A binary stream; raises InputError where there is no such file, or it cannot be opened.

    Only regular files are opened: a pipe may be waited for for ever, and a device has no end.

    block_bytes: how much is fetched at once from another file system, where little is needed.
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
    """A binary stream straight to `path`, for what may be met half-written; see `atomic_write`."""
    if is_url(path):
        system, inner = _system(path)
        return system.open(inner, "wb")
    return open(path, "wb")


def read_bytes(path: str) -> bytes:
    """The whole file."""
    with open_read(path) as stream:
        return stream.read()


def partial_path(path: str) -> str:
    """A temporary name beside `path`, with the end of its name, which may be as long as can be."""
    return join(parent(path), f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{name(path)[-40:]}")


@contextlib.contextmanager
def atomic_write(path: str, final=None, durable: bool = True):
    """Yields a binary stream; its content appears under `path` at the end, or not at all.

    final: Called when all is written; gives the path instead, for a name that depends on content.
    durable: Whether to wait for the disk, so that no power cut leaves the name without content.
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
            error.filename = path  # a disk that is full does not say whose file it was
        with contextlib.suppress(OSError):
            remove(temporary)
        raise


def _write_back(descriptor: int) -> None:
    """Has the system write to the disk from now on, so that a later `sync` waits less."""
    if not hasattr(os, "posix_fadvise"):  # as on macOS
        return
    own = os.dup(descriptor)

    def begin():
        os.posix_fadvise(own, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(own)

    threading.Thread(target=begin).start()  # the disk may be busy; nobody waits for it


def sync(path: str) -> None:
    """Waits until a file that was written without `durable` is on the disk; URLs always are."""
    if not is_url(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def move(source: str, target: str) -> None:
    """Renames a file, replacing `target`."""
    if is_url(source):
        system, source_path = _system(source)
        target_path = _system(target)[1]
        if type(system).mv is not fsspec.AbstractFileSystem.mv:
            system.mv(source_path, target_path)
        else:  # takes names with * or [ for patterns
            system.cp_file(source_path, target_path)
            system.rm_file(source_path)
    else:
        os.replace(source, target)


def exists(path: str) -> bool:
    """Whether there is a file or folder of that name."""
    if not is_url(path):
        return os.path.exists(path)
    system, inner = _system(path)
    return system.exists(inner)


def is_dir(path: str) -> bool:
    """Whether `path` is a folder."""
    if is_url(path):
        system, inner = _system(path)
        return system.isdir(inner)
    return os.path.isdir(path)


def size(path: str) -> int:
    """The file's bytes."""
    if is_url(path):
        system, inner = _system(path)
        return system.size(inner)
    return os.path.getsize(path)


def stamp(path: str) -> str:
    """A cheap mark that changes when the file does: size and time of change (or a tag)."""
    if is_url(path):
        system, inner = _system(path)
        info = system.info(inner)
        mark = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("created")
        return f"{info['size']}-{mark}"
    status = os.stat(path)
    return f"{status.st_size}-{status.st_mtime_ns}"


def listdir(folder: str) -> list[str]:
    """Sorted names of a folder's files and folders together; as `entries` otherwise."""
    return sorted(name for names in entries(folder) for name in names)


def entries(folder: str) -> tuple[list[str], list[str]]:
    """Sorted names of a folder's files, and of its folders, from one listing.

    Hidden ones are left out: temporary files, .DS_Store, ._scan.nii.gz.

    Raises InputError where there is no folder; on another file system than the local one it is then
    empty, since object stores know no folders without files.
    """
    if not is_dir(folder):
        if is_url(folder) and not exists(folder):
            return [], []
        found = "a file" if exists(folder) else "nothing"
        raise InputError(f"{folder}: expected a folder, found {found}")
    if is_url(folder):
        system, inner = _system(folder)
        listed = system.ls(inner, detail=True)
        found = [(name(entry["name"]), entry["type"] == "directory") for entry in listed]
    else:
        with os.scandir(folder) as listed:
            found = [(entry.name, _is_folder(entry)) for entry in listed]
    shown = sorted(one for one in found if one[0] and not one[0].startswith("."))
    return tuple([entry for entry, is_folder in shown if is_folder == kind] for kind in (0, 1))


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link onto itself, a path that is too long
        return False


def makedirs(folder: str) -> None:
    """Makes the folder and those above it, where they are missing."""
    if is_url(folder):
        system, inner = _system(folder)
        system.makedirs(inner, exist_ok=True)
    else:
        os.makedirs(folder, exist_ok=True)


def remove(path: str) -> None:
    """Removes one file."""
    if is_url(path):
        system, inner = _system(path)
        system.rm_file(inner)  # `rm` takes * and [ in a name for a pattern, and removes others
    else:
        os.remove(path)


def temporary(folder: str, ending: str = "") -> list[str]:
    """Paths of the temporary files in a folder, or of those whose names end so; none without it."""
    if not is_dir(folder):
        return []
    names = [one for one in _names(folder) if one.startswith(TEMPORARY_PREFIX)]
    return [join(folder, one) for one in names if one.endswith(ending)]


def remove_partial(folder: str, ending: str = "") -> None:
    """Removes what writers that were killed left in a folder; none may be writing there.

    ending: only of files whose names end so.
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
    """Whether two paths name one file or folder, links followed."""
    if is_url(one) or is_url(other):
        return one.rstrip("/") == other.rstrip("/")
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)


def sha256(path: str) -> str:
    """Hexadecimal SHA-256 of the file's bytes."""
    digest = hashlib.sha256()
    with open_read(path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _names(folder: str) -> list[str]:
    if is_url(folder):
        system, inner = _system(folder)
        return [name(entry) for entry in system.ls(inner, detail=False)]
    return os.listdir(folder)


def _system(url: str):
    """(file system, path inside). Listings are never cached: other processes write there too."""
    try:
        return fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise InputError(f"{url}: no file system of this kind ({error})") from error
