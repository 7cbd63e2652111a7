"""Drills of the trainer."""

import shutil
import sys
from pathlib import Path

import numpy as np

from benchmarks.drills import building
from benchmarks.drills.stage import (
    Failed,
    Stage,
    flip_bit,
    holds,
    kill_at_random,
    refused,
    remount,
    run,
    small_disk,
)

STEPS = 12
FLAGS = [
    *("--decoder=pspnet", "--backbone=resnet18", "--batch_size=4", "--shuffle_buffer=16"),
    *(f"--steps={STEPS}", "--deterministic", "--checkpoint_every=2", "--validate_every=6"),
    *("--steps_per_call=2", "--fold=1"),
]


def train(stage: Stage, workdir: Path, data: Path | None = None) -> list[str]:
    """The trainer's command, with a small network."""
    program = [sys.executable, "-m", "trainer.main"]
    return [*program, f"--data={data or dataset(stage)}", f"--workdir={workdir}", *FLAGS]


def dataset(stage: Stage) -> Path:
    """Slices of 96x96 pixels, the smallest that the network takes."""
    output = stage.new("training-data")
    if not output.exists():
        command = building.build(stage, output)
        run([*command, "--crop_mm=288", "--pixel_mm=3"])
    return output


def weights(workdir: Path) -> dict[str, np.ndarray]:
    """Every value of the run's last checkpoint."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(workdir / "checkpoints")))
    names = [name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name]
    return {name: reader.get_tensor(name) for name in names if name != "save_counter"}


def whole(stage: Stage) -> Path:
    """An undisturbed run."""
    workdir = stage.new("run")
    if not workdir.exists():
        run(train(stage, workdir))
    return workdir


def same_weights(stage: Stage, workdir: Path) -> None:
    """Raises Failed unless all weights are bit for bit those of an undisturbed run."""
    one, other = weights(whole(stage)), weights(workdir)
    holds(sorted(one) == sorted(other), "the checkpoints hold other variables")
    for name, value in one.items():
        if not np.array_equal(value, other[name]):
            raise Failed(f"{name} differs from an undisturbed run's")


def killed(stage: Stage) -> str:
    """`kill -9` of the trainer (--deterministic); continued, it ends with the same weights."""
    workdir, hits = stage.new("run-killed"), 0
    for _ in range(stage.repeats):
        hits += kill_at_random(stage, train(stage, workdir), lambda: _step(workdir), STEPS - 2)
    run(train(stage, workdir))
    same_weights(stage, workdir)
    return f"{hits} of {stage.repeats} kills met it running; weights identical"


def full_disk(stage: Stage) -> str:
    """A full disk: one line; with room, the same command ends with the same weights."""
    size_kb = sum(path.stat().st_size for path in whole(stage).rglob("*")) // 1024
    with small_disk(stage.new("run-full"), f"{size_kb // 2}k") as disk:
        refused(train(stage, disk / "run"), "No space left")
        remount(disk, "size=1g")
        run(train(stage, disk / "run"))
        same_weights(stage, disk / "run")
    return "one line; then the same weights"


def read_only(stage: Stage) -> str:
    """A folder that cannot be written: one line."""
    with small_disk(stage.new("run-read-only"), "1m") as disk:
        remount(disk, "ro")
        refused(train(stage, disk / "run"), "Read-only file system")
    return "one line"


def corrupt_checkpoint(stage: Stage) -> str:
    """The last checkpoint damaged: said so, continued from the one before, the same weights."""
    damages = {
        "flipped": lambda path: flip_bit(path, stage.chance),
        "cut": _cut,
        "removed": Path.unlink,
    }
    for name, damage in damages.items():
        workdir = stage.new(f"run-damaged-{name}")
        shutil.copytree(whole(stage), workdir)
        damage(workdir / f"checkpoints/ckpt-{STEPS}.data-00000-of-00001")
        said = run(train(stage, workdir))
        holds(f"ckpt-{STEPS} is damaged" in said, "nothing said of the damage")
        holds(f"Continuing at step {STEPS - 2}" in said, "not continued from the one before")
        same_weights(stage, workdir)
    return "said so; weights identical"


def flipped_bit(stage: Stage) -> str:
    """A shard with one bit turned over: the trainer ends in one line."""
    data = stage.new("training-data-flipped")
    shutil.copytree(dataset(stage), data)
    for shard in sorted((data / "shards").iterdir()):
        flip_bit(shard, stage.chance)
    refused(train(stage, stage.new("run-flipped"), data), "damaged", "beam_jobs.verify")
    return "one line"


def _step(workdir: Path) -> int:
    found = [path.stem.rpartition("-")[2] for path in workdir.glob("checkpoints/ckpt-*.index")]
    return max(map(int, found), default=0)


def _cut(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size // 2)
