"""Drills of batch prediction."""

import sys
from pathlib import Path

from benchmarks.drills.stage import (
    PATIENTS,
    RECIPE,
    Stage,
    contents,
    flip_bit,
    holds,
    kill_at_random,
    refused,
    remount,
    run,
    small_disk,
)


def predict(stage: Stage, output: Path, model: Path | None = None) -> list[str]:
    """The command; the scans are those of the patients with contours."""
    return [
        *(sys.executable, "-m", "serving.predict", f"--model={model or save_model(stage)}"),
        *(f"--input={stage.patients}/train", f"--output={output}"),
    ]


def save_model(stage: Stage, name: str = "model") -> Path:
    """Saves a model that needs no training: it recognizes organs by their grey levels."""
    sys.path.insert(0, "tests")
    import tiny_models

    folder = stage.new(name)
    if not folder.exists():
        tiny_models.save_coded(folder, RECIPE)
    return folder


def expected(stage: Stage) -> dict[str, bytes]:
    """The predictions of an undisturbed run."""
    output = stage.new("predictions")
    if not output.exists():
        run(predict(stage, output))
    return contents(output)


def killed(stage: Stage) -> str:
    """`kill -9` of the prediction; repeated until done, the same label maps, none half-written."""
    whole, output = expected(stage), stage.new("predict-killed")
    hits = 0
    for _ in range(stage.repeats):
        hits += kill_at_random(stage, predict(stage, output), lambda: _maps(output), PATIENTS - 1)
        for name, content in contents(output, "*.nii.gz").items():
            if not name.startswith(".partial-"):
                holds(content == whole[name], f"{name} is not as an undisturbed run writes it")
    run(predict(stage, output))
    found = {name: value for name, value in contents(output).items() if ".partial-" not in name}
    holds(found == whole, "the predictions differ from an undisturbed run's")
    return f"{hits} of {stage.repeats} kills met it running; identical"


def full_disk(stage: Stage) -> str:
    """A full disk: one line, no half-written label map; with room, the same command completes."""
    whole = expected(stage)
    with small_disk(stage.new("predict-full"), "32k") as disk:
        output = disk / "predictions"
        refused(predict(stage, output), "No space left")
        for name, content in contents(output, "*.nii.gz").items():
            holds(content == whole[name], f"{name} is half-written")
        remount(disk, "size=64m")
        run(predict(stage, output))
        holds(contents(output) == whole, "differs from an undisturbed run's")
    return "one line; then identical"


def read_only(stage: Stage) -> str:
    """An output that cannot be written: one line."""
    with small_disk(stage.new("predict-read-only"), "1m") as disk:
        remount(disk, "ro")
        refused(predict(stage, disk / "predictions"), "Read-only file system")
    return "one line"


def flipped_bit(stage: Stage) -> str:
    """A model's weights with one bit turned over: one line that names the model."""
    folder = save_model(stage, "broken-model")
    weights = next(folder.rglob("variables.data-00000-of-00001"))
    flip_bit(weights, stage.chance, 0, 0.05)
    refused(predict(stage, stage.new("predict-flipped"), folder), str(folder), "cannot be loaded")
    return "one line"


def _maps(output: Path) -> int:
    return len([path for path in output.glob("*.nii.gz") if not path.name.startswith(".")])
