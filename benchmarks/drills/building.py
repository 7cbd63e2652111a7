"""Drills of the data job."""

import os
import shutil
import sys
import threading

from benchmarks.drills.stage import (
    PATIENTS,
    Stage,
    build,
    contents,
    finish,
    flip_bit,
    holds,
    kill_at_random,
    refused,
    remount,
    run,
    small_disk,
    start,
)
from segthor.manifest import Dataset

REJECTED_STATUS = 3


def expected(stage: Stage) -> dict[str, bytes]:
    """The dataset of an undisturbed run."""
    output = stage.new("dataset")
    if not output.exists():
        run(build(stage, output))
    return contents(output)


def killed(stage: Stage) -> str:
    """`kill -9` of the build; repeated until done, the dataset is that of an undisturbed run."""
    whole, output = expected(stage), stage.new("build-killed")
    folder = output / "shards"

    def shards():
        return len(list(folder.iterdir())) if folder.is_dir() else 0

    most = len([name for name in whole if name.startswith("shards/")])
    hits = 0
    for number in range(stage.repeats):
        if number % most == 0:  # begin anew, or there is nothing left to interrupt
            shutil.rmtree(output, ignore_errors=True)
        hits += kill_at_random(stage, build(stage, output), shards, most - 1)
    run(build(stage, output))
    holds(contents(output) == whole, "the dataset differs from an undisturbed run's")
    run([sys.executable, "-m", "beam_jobs.verify", f"--data={output}"])
    return f"{hits} of {stage.repeats} kills met it running; identical"


def full_disk(stage: Stage) -> str:
    """A full disk: one line, no dataset; with room, the same command completes it identically."""
    whole = expected(stage)
    with small_disk(stage.new("build-full"), "256k") as disk:
        refused(build(stage, disk / "dataset"), "No space left")
        holds(not (disk / "dataset/dataset.json").exists(), "there is a manifest")
        remount(disk, "size=64m")
        run(build(stage, disk / "dataset"))
        holds(contents(disk / "dataset") == whole, "differs from an undisturbed run's")
    return "one line; then identical"


def read_only(stage: Stage) -> str:
    """An output that cannot be written: one line, nothing changed."""
    with small_disk(stage.new("build-read-only"), "64m") as disk:
        run(build(stage, disk / "dataset"))
        before = contents(disk)
        remount(disk, "ro")
        refused([*build(stage, disk / "dataset"), "--context=1"], "Read-only file system")
        holds(contents(disk) == before, "something changed")
    return "one line"


def changing_input(stage: Stage) -> str:
    """A CT that changes while it is read: that patient is refused; later it is taken whole."""
    patients, output = stage.new("changing-patients"), stage.new("build-changing")
    shutil.copytree(stage.patients, patients)
    run(build(stage, stage.new("changing-expected"), patients))
    changing = patients / "train/Patient_02/Patient_02.nii.gz"
    done = threading.Event()

    def change():
        while not done.wait(0.0005):
            os.utime(changing)

    thread = threading.Thread(target=change)
    thread.start()
    said = finish_with(build(stage, output, patients), done, thread)
    holds("rejected Patient_02" in said and "changed while" in said, "Patient_02 was taken")
    holds(len(Dataset.load(str(output)).patients) == PATIENTS - 1, "others were lost")
    run(build(stage, output, patients))
    holds(
        contents(output, "shards/*") == contents(stage.new("changing-expected"), "shards/*"),
        "differs from an undisturbed run's",
    )
    return "refused, then built; identical"


def finish_with(command, done, thread) -> str:
    """Runs a build that has to reject a patient, then ends the thread that disturbs it."""
    try:
        return finish(start(command), status=REJECTED_STATUS)
    finally:
        done.set()
        thread.join()


def flipped_bit(stage: Stage) -> str:
    """A shard with one bit turned over: verify names it, and a build without it writes it anew."""
    whole, output = expected(stage), stage.new("build-flipped")
    run(build(stage, output))
    for _ in range(stage.repeats):
        shard = stage.chance.choice(sorted((output / "shards").iterdir()))
        flip_bit(shard, stage.chance, 0, 0.999)
        said = run([sys.executable, "-m", "beam_jobs.verify", f"--data={output}"], status=2)
        holds(shard.name in said, f"verify did not name {shard.name}")
        shard.unlink()
        run(build(stage, output))
        holds(contents(output) == whole, "the dataset differs from an undisturbed run's")
    return f"named {stage.repeats} of {stage.repeats}; rebuilt identically"
