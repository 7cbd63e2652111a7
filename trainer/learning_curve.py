"""Estimates how much more patients would help, by training on subsets of the training patients.

python -m trainer.learning_curve --flagfile=configs/all.flags --steps=2000 --sizes=5,10,20,40 \
    --data=DATASET --workdir=RUNS

All other flags are those of trainer.main. Each size and draw is one run of --steps steps, scored at
its end on the validation patients. Writes RUNS/learning_curve.csv and RUNS/learning_curve.png.
Repeat the same command to continue an interrupted one. Exit status as of trainer.cross_validate.
"""

import numpy as np
from absl import flags

from segthor import csv_files, errors, files, flags_of, locks, outputs, plots
from segthor.errors import InputError
from segthor.manifest import DEFAULT_DATASET, Dataset
from trainer import child, growth, run, sources

_DATA = flags.DEFINE_string("data", DEFAULT_DATASET, "Folder of the dataset.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs, one in each SIZE_DRAW.")
_SIZES = flags.DEFINE_list("sizes", ["5", "10", "20", "40"], "Numbers of training patients.")
_DRAWS = flags.DEFINE_integer(
    "draws", 3, "Subsets of each size; those of one draw are nested.", lower_bound=1
)
_TABLE, _PICTURE = "learning_curve.csv", "learning_curve.png"
_WRITTEN = {
    _TABLE: outputs.csv_with("organ", "patients", "kind", "dice"),
    _PICTURE: outputs.picture,
}
_SCORED_ONCE = ("--validate_every=1000000000", "--checkpoint_every=200")
# With 1.2 passes, 32 patients scored less than the power law predicted; see docs/training.md.
_FEWEST_PASSES = 4
_CHOSEN_HERE = ("train_patients", "draw", "minutes", "validate_every")


def main(argv):
    """Trains run after run, then writes table and picture."""
    outputs.check_folder(_WORKDIR.value, {"data": _DATA.value}, written=_WRITTEN, flag="workdir")
    sizes = _parse_sizes(_SIZES.value)
    flags_of.refuse(argv[1:], dict.fromkeys(_CHOSEN_HERE, "is chosen here; leave it out"))
    if "steps" not in flags_of.given(argv[1:]):
        raise InputError("--steps: expected one number for all sizes, found nothing")
    organs = Dataset.load(_DATA.value).organs
    _check_count(sizes[-1])
    largest = sources.open_source(_DATA.value, None, sizes[-1])
    sources.require_validation(largest, "--data")
    with locks.lock_folder(_WORKDIR.value):
        for size in sizes:
            for draw in range(_DRAWS.value):
                status = _train(size, draw, argv[1:])
                if status:
                    return status
                if (size, draw) == (sizes[0], 0):  # early, so that the user can start again
                    _warn_of_few_steps(size, largest)
        scores = _read_scores(sizes, organs.names)
        rows = growth.summarise(sizes, scores)
        path = files.join(_WORKDIR.value, _TABLE)
        csv_files.write_table(path, rows)
        for row in rows:
            dice = f"{row['dice']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
            print(f"{row['organ']:16}{row['patients']:6} patients  {row['kind']:10}{dice}")
        _warn_of_few_steps(sizes[-1], largest)
        picture = files.join(_WORKDIR.value, _PICTURE)
        plots.save(growth.plot(rows, sizes, scores, organs), picture)
        print(f"Wrote {path} and {picture}")
    return 0


def _parse_sizes(texts) -> list[int]:
    if not all(text.isdecimal() and int(text) for text in texts) or len(set(texts)) < 3:
        raise InputError(
            f"--sizes: expected three or more numbers of patients, found {','.join(texts)}"
        )
    return sorted({int(text) for text in texts})


def _check_count(largest: int) -> None:
    """Raises InputError if the dataset has fewer training patients."""
    count = len(sources.patients_of(sources.open_source(_DATA.value, None).train))
    if largest > count:
        raise InputError(
            f"--sizes: expected at most the {count} training patients of {_DATA.value}, found "
            f"{largest}"
        )


def _folder(size: int, draw: int) -> str:
    return files.join(_WORKDIR.value, f"{size}_{draw}")


def _train(size: int, draw: int, flags_of_trainer) -> int:
    print(f"{size} patients, draw {draw + 1} of {_DRAWS.value}", flush=True)
    # Runs of all sizes are augmented alike.
    chosen = [f"--train_patients={size}", f"--draw={draw}", "--few_patients=0", *_SCORED_ONCE]
    where = [f"--data={_DATA.value}", f"--workdir={_folder(size, draw)}"]
    return child.train([*flags_of_trainer, *chosen, *where], _folder(size, draw))


def _warn_of_few_steps(size: int, largest) -> None:
    """Warns if the runs pass too few times over the slices of the largest size.

    size: Any size whose run has started; all runs take as many steps.
    largest: The `Source` of the largest size.
    """
    record = run.read(_folder(size, 0))
    steps, batch = record.config.steps, record.config.batch_size
    passes = steps * batch * record.replicas / largest.train_slices
    if passes < _FEWEST_PASSES:
        print(
            f"warning: {steps} steps are {passes:.1f} passes over the slices of the largest size, "
            f"expected at least {_FEWEST_PASSES}. With fewer, more patients may score less, which "
            "no power law describes. Raise --steps.",
            flush=True,
        )


def _read_scores(sizes, names) -> dict[str, np.ndarray]:
    """Reads Dice by organ, float [sizes, draws, validation patients]; NaN where not contoured."""
    tables = [
        [run.read_patients(_folder(size, draw)) for draw in range(_DRAWS.value)] for size in sizes
    ]
    if len({tuple(row["patient"] for row in rows) for draws in tables for rows in draws}) > 1:
        raise InputError(
            f"{_WORKDIR.value}: expected runs that were scored on the same patients; a "
            f"{run.PATIENTS} is damaged"
        )
    names = [name for name in names if name in tables[0][0][0]]
    scores = {
        name: np.array(
            [[[float(row[name] or "nan") for row in rows] for rows in draws] for draws in tables]
        )
        for name in names
    }
    return scores | {growth.MEAN: np.nanmean(np.stack(list(scores.values())), 0)}


if __name__ == "__main__":
    errors.run(main, known_only=True)
