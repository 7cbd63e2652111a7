"""The loop of the fuzzing programs: random cases until the time is up, each made by its seed."""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

CASE_SECONDS = 60
WRONG = "WRONG"
MEMORY = "/dev/shm"  # a file system in memory: a case takes milliseconds there

under_way = multiprocessing.Value("q", lock=False)  # the seed, for a process that watches


def folder() -> tempfile.TemporaryDirectory:
    """A temporary folder, in memory where there is such a file system."""
    return tempfile.TemporaryDirectory(dir=MEMORY if os.path.isdir(MEMORY) else None)


def run_cases(
    run_case, seconds: float, first_seed: int, most: int = 1 << 62, limit: int = CASE_SECONDS
) -> tuple[int, Counter]:
    """Runs at least one case; returns how many ran, and how they ended, WRONG among it.

    run_case: Called with a seed; returns a Counter of how the case ended. What it raises is printed
      with the seed.
    most: Number of cases at most.
    limit: Seconds that a case may take.
    """
    signal.signal(signal.SIGALRM, lambda *_: _too_long(limit))
    began, count, ended = time.monotonic(), 0, Counter()
    while count < most and (not count or time.monotonic() - began < seconds):
        under_way.value = first_seed + count
        signal.alarm(limit)
        try:
            ended += run_case(first_seed + count)
        except Exception:
            ended[WRONG] += 1
            signal.alarm(0)
            print(f"seed {first_seed + count}:\n{traceback.format_exc()}", flush=True)
        finally:
            signal.alarm(0)
        count += 1
    return count, ended


def _too_long(limit: int):
    raise TimeoutError(f"a case took more than {limit} s")


def program(run_case, unit: str, limit: int = CASE_SECONDS) -> bool:
    """Runs cases as `python -m MODULE [seconds] [first seed]` says; whether one went wrong.

    run_case: Called with a seed and a folder; see `run_cases`.
    """
    given = dict(enumerate(sys.argv[1:]))
    began = time.monotonic()
    with folder() as above:
        place = Path(above) / "case"
        place.mkdir()
        count, ended = run_cases(
            lambda seed: run_case(seed, place),
            float(given.get(0, 600)),
            int(given.get(1, 0)),
            limit=limit,
        )
    for code, times in ended.most_common():
        print(f"{times:8} {code}")
    print(f"{count} {unit} in {time.monotonic() - began:.0f} s, {ended[WRONG]} went wrong")
    return bool(ended[WRONG])
