"""The memory of this process: how much it may take, and how it holds what it took."""

import ctypes
import functools
import os
import resource
import sys

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # glibc's malloc.h
_NEVER = -1
# Of the free memory, what one scan may fill: its contours and what is made of it need the rest.
_SCAN_SHARE = 3
# Folder of the cgroup's hierarchy: its files of limit and use, and the cache that use includes.
_CGROUPS = {
    "sys/fs/cgroup": ("memory.max", "memory.current", "inactive_file"),
    "sys/fs/cgroup/memory": (
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}


def keep_freed() -> None:
    """From now on freed memory waits for the next array and does not go back to the system.

    For work that allocates the same large arrays again and again: the system hands out each fresh
    page by a fault, and they took up to a third of the processor's time. To be called before there
    are threads: they then share one heap, since each heap of their own would keep the most that its
    thread ever held. On Linux's usual C library; elsewhere (musl, macOS) nothing changes.
    """
    if sys.platform == "linux":
        allocator = ctypes.CDLL(None)
        if hasattr(allocator, "mallopt"):
            allocator.mallopt(_MMAP_MAX, 0)
            allocator.mallopt(_TRIM_THRESHOLD, _NEVER)
            allocator.mallopt(_ARENA_MAX, 1)


def page_faults() -> int:
    """Pages that this process had to ask the system for so far; alike however busy the machine."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@functools.cache
def scan_limit(processes: int = 1) -> int:
    """How many bytes a single scan may fill where so many processes read scans at once.

    A third of the memory that was free at the first call, divided among them.
    """
    return available_bytes() // (_SCAN_SHARE * processes)


def available_bytes(root: str = "/") -> int:
    """Memory that may still be taken: what the machine has free, within the container's limit.

    root: of the file system that Linux describes itself in. Elsewhere all memory of the machine.
    """
    fields = _fields(os.path.join(root, "proc/meminfo"))
    if "MemAvailable:" not in fields:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([fields["MemAvailable:"] * 1024, *_left_in_cgroups(root)])


def _left_in_cgroups(root: str):
    """What each limit on this process leaves: its own group's, and those of the groups above."""
    for line in _lines(os.path.join(root, "proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        hierarchy = "sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup"
        limit_file, used_file, cache_field = _CGROUPS[hierarchy]
        top = os.path.join(root, hierarchy)
        group = os.path.join(top, path.strip("/"))
        while True:  # a container may see its own group as the top one
            limit, used = (_number(os.path.join(group, n)) for n in (limit_file, used_file))
            if limit is not None and used is not None:
                cache = _fields(os.path.join(group, "memory.stat")).get(cache_field, 0)
                yield max(0, limit - used + cache)
            if len(group.rstrip("/")) <= len(top):
                break
            group = os.path.dirname(group.rstrip("/"))


def _fields(path: str) -> dict[str, int]:
    """Name to number, of a file with one such pair per line."""
    pairs = [line.split()[:2] for line in _lines(path)]
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _number(path: str) -> int | None:
    """The file's only number; None where it says 'max' or there is no such file."""
    words = _lines(path)
    return int(words[0]) if words and words[0].isdecimal() else None


def _lines(path: str) -> list[str]:
    try:
        with open(path) as stream:
            return stream.read().splitlines()
    except OSError:
        return []
