"""Damages every kind of file that the programs read, at random; run before a release.

python -m tests.fuzz_all [--minutes=10] [--only=codecs,json] [--seed=0]

Each kind has its minutes, in a process of its own. Its undamaged files must be read. A damaged file
must be read, or be refused by an `InputError` that quotes no header, within CASE_SECONDS.
Anything else is printed with the seed that repeats it, and the exit status is 1. `tests.fuzz` and
`tests.fuzz_dicom` do the same through the whole data job.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from segthor.errors import InputError
from tests.fuzz_kinds import KINDS, SECRET

CASE_SECONDS = 60
MEMORY = "/dev/shm"  # a file system in memory: a case takes milliseconds there

_under_way = multiprocessing.Value("q", lock=False)  # the seed, for the process that watches


def run_kind(name: str, seconds: float, first_seed: int, most: int = 1 << 62) -> Counter:
    """Runs cases of one kind until the time is up; how each ended, 'WRONG' among them."""
    ended, seed = Counter(), first_seed
    with tempfile.TemporaryDirectory(dir=MEMORY if os.path.isdir(MEMORY) else None) as folder:
        kind = KINDS[name](Path(folder))
        kind.check_base()
        began = time.monotonic()
        while seed - first_seed < most and (time.monotonic() - began < seconds or not ended):
            _under_way.value = seed
            ended[_run_case(kind, name, seed)] += 1
            seed += 1
    return ended


def _run_case(kind, name: str, seed: int) -> str:
    signal.alarm(CASE_SECONDS)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            kind.run(np.random.default_rng(seed))
        assert SECRET not in printed.getvalue()
        return "read"
    except InputError as error:
        if SECRET not in str(error) + printed.getvalue():
            return getattr(error, "code", "refused")
        print(f"{name}, seed {seed}: quotes the header: {error}", flush=True)
    except Exception:
        print(f"{name}, seed {seed}:\n{traceback.format_exc()}", flush=True)
    finally:
        signal.alarm(0)
    return "WRONG"


def _too_long(*_):
    raise TimeoutError(f"a case took more than {CASE_SECONDS} s")


def main() -> int:
    """Reads the options, runs every kind; 1 where a case went wrong."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--minutes", type=float, default=10, help="of each kind")
    options.add_argument("--only", default=",".join(KINDS), help="kinds, with commas between")
    options.add_argument("--seed", type=int, default=0, help="of the first case")
    given = options.parse_args()
    failed = [name for name in given.only.split(",") if not _run_apart(name, given)]
    print(f"went wrong: {', '.join(failed) or 'none'}")
    return int(bool(failed))


def _run_apart(name: str, given) -> bool:
    """Runs a kind in a child process, whose death is seen; whether all went well."""
    child = multiprocessing.get_context("fork").Process(target=_run_child, args=(name, given))
    child.start()
    child.join()
    if child.exitcode not in (0, 1):
        print(f"{name}, seed {_under_way.value}: ended the process ({child.exitcode})", flush=True)
    return child.exitcode == 0


def _run_child(name: str, given) -> None:
    signal.signal(signal.SIGALRM, _too_long)
    warnings.simplefilter("ignore")
    ended = run_kind(name, given.minutes * 60, given.seed)
    print(f"{name}: {sum(ended.values())} cases; {dict(ended.most_common())}", flush=True)
    sys.exit(int(bool(ended["WRONG"])))


if __name__ == "__main__":
    sys.exit(main())
