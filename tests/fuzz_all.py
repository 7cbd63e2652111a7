"""Damages every kind of file that the programs read, at random; run before a release.

python -m tests.fuzz_all [--minutes=10] [--only=codecs,json] [--seed=0]

Each kind has its minutes, in a process of its own. Its undamaged files must be read. A damaged file
must be read, or be refused by an `InputError` that quotes no header, within a minute. Anything else
is printed with the seed that repeats it, and the exit status is 1. `tests.fuzz` and
`tests.fuzz_dicom` do the same through the whole data job.
"""

import argparse
import contextlib
import functools
import io
import multiprocessing
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from segthor.errors import InputError
from tests import fuzz_runner
from tests.fuzz_kinds import KINDS, SECRET


def run_kind(name: str, seconds: float, first_seed: int, most: int = 1 << 62) -> Counter:
    """Runs cases of one kind until the time is up; how each ended, WRONG among them."""
    with fuzz_runner.folder() as folder:
        kind = KINDS[name](Path(folder))
        kind.check_base()
        run = functools.partial(_run_case, kind)
        _, ended = fuzz_runner.run_cases(run, seconds, first_seed, most)
    return ended


def _run_case(kind, seed: int) -> Counter:
    printed, code, refusal = io.StringIO(), "read", ""
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            kind.run(np.random.default_rng(seed))
    except InputError as error:
        code, refusal = getattr(error, "code", "refused"), str(error)
    assert SECRET not in refusal + printed.getvalue(), "quotes the header"
    return Counter([code])


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
        print(
            f"{name}, seed {fuzz_runner.under_way.value}: ended the process ({child.exitcode})",
            flush=True,
        )
    return child.exitcode == 0


def _run_child(name: str, given) -> None:
    warnings.simplefilter("ignore")
    ended = run_kind(name, given.minutes * 60, given.seed)
    print(f"{name}: {sum(ended.values())} cases; {dict(ended.most_common())}", flush=True)
    sys.exit(int(bool(ended[fuzz_runner.WRONG])))


if __name__ == "__main__":
    sys.exit(main())
