"""Compares choices of training on phantoms of several makes; each choice is a row of ROWS.

Run from the project's root:
  python -m benchmarks.learning [--only=ROW,...] [--seeds=3] [--steps=800 | --minutes=10]

Makes of phantoms: `own` (segthor.phantom, 24 patients, of whom 18 are trained on, and 6 to test)
and, where --other names a folder with train/, test/ and test_labels/, `other`.

With --steps every row takes about the same time: a row says how many times the steps of the first
row it takes. With --minutes rows get the same time exactly, for which the machine must be quiet.
Every run is exported, its test patients are predicted and scored on the scanner's grid. An organ's
ends are its two lowest and two highest slices, its middle is the rest; far parts are components
apart from the largest one. The intervals are Student's, 95 %, over the patients' means over the
seeds. A repeated run continues in build/learning. The program writes one section of
docs/learning.md for each make and length, and leaves the other sections as they are.
"""

import re
import subprocess
import sys

import nibabel
import numpy as np
from absl import app, flags
from scipy import ndimage, stats

from segthor import files, json_files
from segthor.organs import SEGTHOR

ONLY = flags.DEFINE_list("only", [], "Rows of the section besides the first one; all where empty.")
MAKES = flags.DEFINE_list("makes", ["own", "other"], "Makes of phantoms.")
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each row.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 800, "Steps of each run.", lower_bound=1)
MINUTES = flags.DEFINE_float("minutes", 0, "Minutes of each run instead of steps.", lower_bound=0)
OTHER = flags.DEFINE_string("other", "../shared/data/other_phantoms", "Phantoms of another make.")
FOLDER = flags.DEFINE_string("folder", "build/learning", "Where datasets and runs lie.")
TABLE = flags.DEFINE_string("table", "docs/learning.md", "Where the table goes.")

# Row -> flags of the data job, flags of the trainer, times the steps of the first row. Names have
# no commas, since --only separates rows by commas.
ROWS = {
    "configs/quick.flags": ((), (), 1),
    "float32": ((), ("--precision=float32",), 1),
    "learning rate 5e-4": ((), ("--learning_rate=5e-4",), 1),
    "learning rate 3e-3 + float32": ((), ("--learning_rate=3e-3", "--precision=float32"), 1),
    "weight decay 0.05": ((), ("--weight_decay=0.05",), 1),
    "weaker changes of grey": (
        (),
        ("--augment_window_level=0.02", "--augment_window_width=0.05", "--augment_gamma=0.05"),
        1,
    ),
    "default augmentation": ((), ("--few_patients=1000",), 1),
    "sizes from 0.77 to 1.3": ((), ("--augment_scale=0.3",), 1),
    "5 slices of context": (("--context=5",), (), 1),
    "7 slices of context": (("--context=7",), (), 1),
    "7 slices of context + float32": (("--context=7",), ("--precision=float32",), 1),
    "own pixels of the scan in a box of 64 + float32": (
        ("--pixel_mm=0", "--crop_mm=64"),
        ("--precision=float32",),
        2,
    ),
    "one patient": ((), ("--train_patients=1", "--few_patients=0"), 1),
    "one patient + default augmentation": ((), ("--train_patients=1",), 1),
    "four patients": ((), ("--train_patients=4", "--few_patients=0"), 1),
    "four patients + default augmentation": ((), ("--train_patients=4",), 1),
    "twelve patients": ((), ("--train_patients=12",), 1),
    "twelve patients + default augmentation": (
        (),
        ("--train_patients=12", "--few_patients=12"),
        1,
    ),
}
ENDS = 2  # slices at each end of an organ


def main(_):
    makes = {"own": make_phantoms} | (
        {"other": lambda: OTHER.value} if files.exists(OTHER.value) else {}
    )
    makes = {make: makes[make]() for make in MAKES.value if make in makes}
    if unknown := sorted(set(ONLY.value) - set(ROWS)):
        raise app.UsageError(f"--only: expected rows of {', '.join(ROWS)}; found {unknown}")
    first, *others = ROWS
    rows = [first, *(row for row in ONLY.value or others if row != first)]
    page = files.read_bytes(TABLE.value).decode()
    scores = {}
    for seed in range(SEEDS.value):
        for row in rows:
            for make, patients in makes.items():
                scores[make, row, seed] = run(make, patients, row, seed)
    for make in makes:
        page = replace_section(page, *section(make, rows, scores))
    with files.atomic_write(TABLE.value) as stream:
        stream.write(page.encode())
    print(f"Wrote {TABLE.value}")


def make_phantoms() -> str:
    """Phantoms of the project's own make. Returns their folder."""
    folder = f"{FOLDER.value}/own_patients"
    if not files.exists(folder):
        counts = ("--patients=24", "--test_patients=6", "--size=small", "--seed=0")
        program("segthor.phantom", f"--output={folder}", *counts)
    return folder


def run(make: str, patients: str, row: str, seed: int) -> dict:
    """Trains, exports, predicts and scores. Returns patient to organ to scores."""
    recipe, choices, times = ROWS[row]
    length = f"minutes{MINUTES.value:g}" if MINUTES.value else f"steps{STEPS.value}"
    name = "_".join([make, re.sub(r"[^0-9A-Za-z]+", "-", row), length, f"seed{seed}"])
    folder = f"{FOLDER.value}/{name}"
    if not files.exists(f"{folder}/scores.json"):
        dataset = build(make, patients, recipe)
        train(dataset, f"{folder}/run", choices, STEPS.value * times, seed)
        program("serving.export", f"--workdir={folder}/run", f"--output={folder}/model")
        test, predictions = f"--input={patients}/test", f"{folder}/predictions"
        program("serving.predict", f"--model={folder}/model", test, f"--output={predictions}")
        truth = (f"--labels={patients}/test_labels", f"--scans={patients}/test")
        where = (f"--predictions={predictions}", f"--output={folder}/evaluation")
        program("serving.evaluate", *where, *truth)
        scored = json_files.read(f"{folder}/evaluation/scores.json")["patients"]
        for patient, organs in scored.items():
            add_places(organs, f"{predictions}/{patient}.nii.gz", truth_file(patients, patient))
        json_files.write(f"{folder}/scores.json", scored)
    return json_files.read(f"{folder}/scores.json")


def build(make: str, patients: str, recipe) -> str:
    """Builds a dataset once. Returns its folder."""
    folder = f"{FOLDER.value}/{'_'.join([make, 'dataset', *recipe]).replace('--', '')}"
    if not files.exists(f"{folder}/dataset.json"):
        common = (f"--input={patients}", f"--output={folder}")
        program("beam_jobs.build", *common, "--flagfile=configs/demo_build.flags", *recipe)
    return folder


def train(dataset: str, workdir: str, choices, steps: int, seed: int) -> None:
    """Trains for --minutes, else for so many steps."""
    length = (f"--minutes={MINUTES.value}", *([] if MINUTES.value else [f"--steps={steps}"]))
    common = (f"--data={dataset}", f"--workdir={workdir}", f"--seed={seed}")
    program("trainer.main", "--flagfile=configs/quick.flags", *common, *length, *choices)


def truth_file(patients: str, patient: str) -> str:
    """The reference label map: a file, or a folder with GT.nii.gz."""
    flat = f"{patients}/test_labels/{patient}.nii.gz"
    return flat if files.exists(flat) else f"{patients}/test_labels/{patient}/GT.nii.gz"


def add_places(organs: dict, predicted_file: str, truth_file: str) -> None:
    """Adds Dice at the ends and in the middle, and the number of far parts, to each organ."""
    predicted, truth = (
        np.asarray(nibabel.load(file).dataobj) for file in (predicted_file, truth_file)
    )
    for name, scores in organs.items():
        label = SEGTHOR.labels([name])[0]
        ours, true = predicted == label, truth == label
        slices = np.flatnonzero(true.any((0, 1)))
        ends = np.zeros(true.shape[2], bool)
        ends[[*slices[:ENDS], *slices[-ENDS:]]] = True
        middle = np.zeros_like(ends)
        middle[slices[0] : slices[-1] + 1] = True
        middle &= ~ends
        scores["dice_ends"] = dice(ours[..., ends], true[..., ends])
        scores["dice_middle"] = dice(ours[..., middle], true[..., middle])
        scores["far_parts"] = max(0, ndimage.label(ours, np.ones((3, 3, 3)))[1] - 1)


def dice(ours: np.ndarray, true: np.ndarray) -> float:
    """Dice of two masks; 1 where both are empty."""
    total = np.count_nonzero(ours) + np.count_nonzero(true)
    return 2 * np.count_nonzero(ours & true) / total if total else 1.0


def section(make, rows, scores) -> tuple[str, str]:
    """Heading and text of the section of one make."""
    length = f"{MINUTES.value:g} minutes" if MINUTES.value else f"{STEPS.value} steps"
    flag = f"--minutes={MINUTES.value:g}" if MINUTES.value else f"--steps={STEPS.value}"
    command = f"python -m benchmarks.learning --makes={make} --seeds={SEEDS.value} {flag}"
    if len(rows) < len(ROWS):
        command += f" --only='{','.join(rows[1:] or rows)}'"
    return (
        f"## Make {make}, {length}",
        f"`{command}`\n\n{table(make, rows, scores)}",
    )


def replace_section(page: str, heading: str, text: str) -> str:
    """Replaces a section of a page, or adds it at the end."""
    before, found, after = page.partition(f"{heading}\n")
    _, separator, others = after.partition("\n## ") if found else ("", "", "")
    rest = f"\n## {others}" if separator else ""
    return f"{before.rstrip()}\n\n{heading}\n\n{text}{rest}"


def table(make, rows, scores) -> str:
    names = SEGTHOR.names
    heads = ["choice", *names, "mean", "ends", "middle", "HD95 mm", "far parts", "difference"]
    heads += ["mean of each seed"] * (SEEDS.value > 1)
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---|" * (len(heads) - 1)]
    first = values(make, rows[0], scores, "dice").mean(1)
    for row in rows:
        per_organ = values(make, row, scores, "dice")
        cells = [f"{value:.3f}" for value in per_organ.mean(0)]
        cells.append(f"{per_organ.mean():.3f} ± {half_interval(per_organ.mean(1)):.3f}")
        for key, digits in (
            ("dice_ends", 3),
            ("dice_middle", 3),
            ("hausdorff95_mm", 1),
            ("far_parts", 2),
        ):
            cells.append(f"{values(make, row, scores, key).mean():.{digits}f}")
        differences = per_organ.mean(1) - first
        text = f"{differences.mean():+.3f} ± {half_interval(differences):.3f}"
        cells.append("" if row is rows[0] else text)
        if SEEDS.value > 1:
            runs = [scores[make, row, seed] for seed in range(SEEDS.value)]
            cells.append(", ".join(f"{of_run(run, 'dice').mean():.3f}" for run in runs))
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def values(make, row, scores, key) -> np.ndarray:
    """One kind of score, means over the seeds, float [patients, organs]."""
    return np.mean([of_run(scores[make, row, seed], key) for seed in range(SEEDS.value)], 0)


def of_run(run, key) -> np.ndarray:
    """One kind of score of one run, float [patients, organs]."""
    return np.array([[run[p][name][key] for name in SEGTHOR.names] for p in sorted(run)])


def half_interval(values: np.ndarray) -> float:
    """Half the width of the 95 % interval of the mean over the patients."""
    return stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)


def program(module, *arguments):
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


if __name__ == "__main__":
    app.run(main)
