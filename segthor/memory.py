"""The memory of this process: how much is available, and how the allocator keeps it."""

import ctypes
import functools
import os
import resource
import sys

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # glibc's malloc.h
_NEVER = -1
# A scan may fill this fraction of the free memory; its contours and prepared slices need the rest.
_SCAN_FRACTION = 3
# Folder of a cgroup hierarchy: its files with limit and use, and the field of the cache in the use.
_CGROUPS = {
    "sys/fs/cgroup": ("memory.max", "memory.current", "inactive_file"),
    "sys/fs/cgroup/memory": (
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}


def keep_freed() -> None:
    """Makes the allocator keep freed memory for the next array.

    For work that allocates arrays of the same large sizes again and again: the system hands out
    each new page by a page fault, and these took up to a third of the processor's time. To be
    called before other threads start, which then share one heap: heaps of their own would each keep
    their largest size. Only for glibc; with other C libraries (musl, macOS) nothing changes.
    """
    if sys.platform == "linux":
        allocator = ctypes.CDLL(None)
        if hasattr(allocator, "mallopt"):
            allocator.mallopt(_MMAP_MAX, 0)
            allocator.mallopt(_TRIM_THRESHOLD, _NEVER)
            allocator.mallopt(_ARENA_MAX, 1)


def page_faults() -> int:
    """Number of minor page faults of this process so far; does not depend on the machine's load."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@functools.cache
def scan_limit(processes: int = 1) -> int:
    """How many bytes one scan may fill where this many processes read scans at once.

    A third of the memory that is free at the first call, divided by the number of processes.
    """
    return available_bytes() // (_SCAN_FRACTION * processes)


def available_bytes(root: str = "/") -> int:
    """Bytes of memory that are available: free on the machine and within the container's limit.

    On other systems than Linux all memory of the machine. root: Parent of /proc and /sys.
    """
    fields = _fields(os.path.join(root, "proc/meminfo"))
    if "MemAvailable:" not in fields:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([fields["MemAvailable:"] * 1024, *_left_in_cgroups(root)])


def _left_in_cgroups(root: str):
    """Yields the bytes that the limit of each cgroup of this process, or a parent, leaves."""
    for line in _lines(os.path.join(root, "proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        hierarchy = "sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup"
        limit_file, used_file, cache_field = _CGROUPS[hierarchy]
        top = os.path.join(root, hierarchy)
        group = os.path.join(top, path.strip("/"))
        while True:  # in a container its own group may be the top one
            limit, used = (_number(os.path.join(group, n)) for n in (limit_file, used_file))
            if limit is not None and used is not None:
                cache = _fields(os.path.join(group, "memory.stat")).get(cache_field, 0)
                yield max(0, limit - used + cache)
            if len(group.rstrip("/")) <= len(top):
                break
            group = os.path.dirname(group.rstrip("/"))


def _fields(path: str) -> dict[str, int]:
    """Name to number, for a file with one pair per line."""
    pairs = [line.split()[:2] for line in _lines(path)]
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _number(path: str) -> int | None:
    """The number in the file; None where the file holds 'max' or does not exist."""
    words = _lines(path)
    return int(words[0]) if words and words[0].isdecimal() else None


def _lines(path: str) -> list[str]:
    try:
        with open(path) as stream:
            return stream.read().splitlines()
    except OSError:
        return []
