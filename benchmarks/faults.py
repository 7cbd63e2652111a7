"""Fault drills: causes faults while the programs run, and reports whether they behave as required.

Run from the project's root:
  python -m benchmarks.faults [--drills=build,predict-killed] [--repeats=10] [--flink] [--docs]

All data are tiny, so that a drill takes seconds (the trainer's, a minute). --docs writes the table
into docs/planning.md. Exit status: 0 if every drill holds or was skipped with a reason.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

from benchmarks.drills import building, predicting, stage, training

_DRILLS = flags.DEFINE_list("drills", [], "Names of drills, or how they begin (default: all).")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Kills per drill.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Decides when and where.")
_FLINK = flags.DEFINE_bool("flink", False, "Also kill a TaskManager (starts a Flink cluster).")
_HOSTS = flags.DEFINE_bool("hosts", False, "Also kill one of two trainer processes (minutes).")
_DOCS = flags.DEFINE_bool("docs", False, "Write the table into docs/planning.md.")

PAGE, BEGIN, END = "docs/planning.md", "<!-- drills -->\n", "<!-- end of drills -->\n"


def _in_test(test: str):
    """Runs a drill that exists as a test."""

    def drill(scene: stage.Stage) -> str:
        environment = os.environ | {"SEGTHOR_TEST_KILLS": str(scene.repeats)}
        command = [sys.executable, "-m", "pytest", "-rs", f"tests/{test}"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        last = done.stdout.strip().splitlines()[-1]
        if "skipped" in last:
            raise stage.Skipped(done.stdout.strip().splitlines()[-2])
        stage.holds(done.returncode == 0, last)
        return last.split(" in ")[0]

    return drill


def _killed_task_manager(scene):
    """`kill -9` of a Flink TaskManager in mid-job: the job completes with the same bytes."""
    return _in_test("test_flink.py::test_a_task_manager_killed_in_mid_job_changes_nothing")(scene)


def _killed_host(scene):
    """`kill -9` of one of two trainers: the other ends with a clear line; continued, the same."""
    test = "test_a_killed_process_ends_the_run_and_the_same_command_continues_it"
    return _in_test(f"test_train_hosts.py::{test}")(scene)


DRILLS = {
    "build-killed": building.killed,
    "build-full-disk": building.full_disk,
    "build-read-only": building.read_only,
    "build-changing-input": building.changing_input,
    "build-flipped-bit": building.flipped_bit,
    "predict-killed": predicting.killed,
    "predict-full-disk": predicting.full_disk,
    "predict-read-only": predicting.read_only,
    "predict-flipped-bit": predicting.flipped_bit,
    "train-killed": training.killed,
    "train-full-disk": training.full_disk,
    "train-read-only": training.read_only,
    "train-corrupt-checkpoint": training.corrupt_checkpoint,
    "train-flipped-bit": training.flipped_bit,
    "train-killed-host": _killed_host,
    "flink-killed": _killed_task_manager,
}


def main(_):
    """Runs the drills one after the other, then prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        scene = stage.Stage(Path(folder), random.Random(_SEED.value), _REPEATS.value)
        stage.make_patients(scene.patients)
        rows = [(name, *_do(name, DRILLS[name], scene)) for name in _chosen()]
    table = "\n".join(
        ["| drill | what must hold | result |", "|---|---|---|"]
        + [f"| {name} | {rule} | {result} |" for name, rule, result, _ in rows]
    )
    print(f"\n{table}")
    if _DOCS.value:
        _write(table)
    return 0 if all(good for *_, good in rows) else 1


def _chosen() -> list[str]:
    asked = tuple(_DRILLS.value)
    optional = {"flink-killed": _FLINK.value, "train-killed-host": _HOSTS.value}
    return [
        name for name in DRILLS if (name.startswith(asked) if asked else optional.get(name, True))
    ]


def _do(name: str, drill, scene) -> tuple[str, str, bool]:
    """(what must hold, the result as text, whether it holds)."""
    rule, started = drill.__doc__.strip(), time.monotonic()
    try:
        result, good = f"holds: {drill(scene)}", True
    except stage.Skipped as reason:
        result, good = f"skipped: {reason}", True
    except stage.Failed as reason:
        result, good = f"**does not hold**: {reason}", False
    print(f"{name:<26}{time.monotonic() - started:6.0f} s  {result}", flush=True)
    return rule, result, good


def _write(table: str) -> None:
    page = Path(PAGE).read_text()
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    Path(PAGE).write_text(f"{before}{BEGIN}{table}\n{END}{after}")
    print(f"Wrote the table into {PAGE}")


if __name__ == "__main__":
    app.run(lambda argv: sys.exit(main(argv)))
