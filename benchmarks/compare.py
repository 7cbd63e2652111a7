"""Compares choices of training for equal time on small phantoms.

Run from the project's root: python -m benchmarks.compare [--minutes=5]

window      a fixed level of 50 HU, or the patient's own (mean inside the four organs)
box         about the body, or about the organs: a smaller side, so finer pixels of one matrix
networks    one network for all organs, or four that share the time
classifier  outlines, or outlines and a classifier on one encoder
passes      serving.predict with the fixed level's model, or two passes: its organs give level
            and centre of the box for the second model

Every contender trains for the same time: a short run measures its slices per second, which gives
its number of steps. During training the level of held-out patients comes from their contours, which
a new patient lacks; the two passes do not use them. A repeated run continues in build/compare. The
program writes docs/comparison.md up to the section on other libraries (benchmarks.peers).
"""

import csv
import io
import subprocess
import sys

import numpy as np
from absl import app, flags

from segthor import files, json_files
from segthor.organs import SEGTHOR

MINUTES = flags.DEFINE_float("minutes", 5, "Training time of each contender.", lower_bound=0.1)
FOLDER = flags.DEFINE_string("folder", "build/compare", "Where data sets and runs lie.")
TABLE = flags.DEFINE_string("table", "docs/comparison.md", "Where the table goes.")
BATCH, CALIBRATION_STEPS = 8, 40
NAMES = SEGTHOR.names
OWN_LEVEL = f"--window_level=mean:{','.join(NAMES)}"
ABOUT_BODY = ("--crop_mm=264", "--pixel_mm=2.75")
ABOUT_ORGANS = (f"--crop_center=organs:{','.join(NAMES)}", "--crop_mm=192", "--pixel_mm=2")
DATASETS = {  # all of 96x96 pixels
    "fixed": ("--window_level=50",),
    "own": (OWN_LEVEL,),
    "centred": ("--window_level=50", *ABOUT_ORGANS),
    "own_centred": (OWN_LEVEL, *ABOUT_ORGANS),
}
# contender -> the runs that share its time: (data set, organs, task)
CONTENDERS = {
    "all organs, fixed level": [("fixed", NAMES, "segment")],
    "all organs, own level": [("own", NAMES, "segment")],
    "all organs, fixed level, box about the organs": [("centred", NAMES, "segment")],
    "all organs, own level, box about the organs": [("own_centred", NAMES, "segment")],
    "four networks, fixed level": [("fixed", (name,), "segment") for name in NAMES],
    "with classifier, fixed level": [("fixed", NAMES, "joint")],
}
PATIENTS, HELD_OUT = 60, 0.25
BY_HAND = "## Other libraries at equal time"


def main(_):
    for dataset in DATASETS:
        make_dataset(dataset)
    for _, names, task in (run for runs in CONTENDERS.values() for run in runs):
        slices_per_s("fixed", names, task)  # all rates first, in the same quiet
    trained = {}
    for name, runs in CONTENDERS.items():
        dice, steps = contend(runs)
        trained[f"{name} ({steps} steps)"] = dice
    first = f"--level_model={model('fixed')}"
    predicted = {
        "one pass, fixed level": predict("one_pass", "fixed"),
        "two passes, own level": predict("two_passes", "own", first),
        "two passes, fixed level, box about the organs": predict("two_centred", "centred", first),
        "two passes, own level, box about the organs": predict("two_both", "own_centred", first),
    }
    with files.atomic_write(TABLE.value) as stream:
        stream.write(page(trained, predicted).encode())
    print(f"Wrote {TABLE.value}")


def make_dataset(dataset):
    folder, patients = f"{FOLDER.value}/{dataset}", f"{FOLDER.value}/patients"
    if not files.exists(patients):
        program("segthor.phantom", f"--output={patients}", f"--patients={PATIENTS}")
    if not files.exists(f"{folder}/dataset.json"):
        recipe = (*ABOUT_BODY, *DATASETS[dataset])
        recipe += ("--split=hash", f"--validation_fraction={HELD_OUT}")
        program("beam_jobs.build", f"--input={patients}", f"--output={folder}", *recipe)


def contend(runs):
    """(Dice [patients, organs], steps in all) of the contender's networks, which share the time."""
    columns, total = {}, 0
    for dataset, names, task in runs:
        rate = slices_per_s("fixed", names, task)  # slices of one size cost one time
        steps = max(1, round(MINUTES.value * 60 / len(runs) * rate / BATCH))
        workdir = train(dataset, names, task, steps)
        text = files.read_bytes(f"{workdir}/best_patients.csv").decode()
        rows = list(csv.DictReader(io.StringIO(text)))
        total += json_files.read(f"{workdir}/summary.json")["steps"]
        columns |= {name: [float(row[name]) for row in rows] for name in names}
    return np.array([columns[name] for name in NAMES]).T, total


def slices_per_s(dataset, names, task):
    return json_files.read(f"{train(dataset, names, task, CALIBRATION_STEPS)}/summary.json")[
        "slices_per_s"
    ]


def train(dataset, names, task, steps):
    """A run, scored once at its end: `best` is then its last checkpoint. Returns its folder."""
    if steps == CALIBRATION_STEPS or not (known := planned(dataset, names, task)):
        known = steps
    workdir = f"{FOLDER.value}/{dataset}-{'+'.join(names)}-{task}-{known}"
    if not files.exists(f"{workdir}/summary.json"):
        choices = (f"--organs={','.join(names)}", f"--task={task}", f"--batch_size={BATCH}")
        length = (f"--steps={known}", f"--validate_every={known}", "--checkpoint_every=200")
        where = (f"--data={FOLDER.value}/{dataset}", f"--workdir={workdir}")
        program("trainer.main", "--flagfile=configs/smoke.flags", *choices, *length, *where)
    return workdir


def planned(dataset, names, task):
    """Steps of an interrupted run of these choices: its rate was measured then; 0: none."""
    stem = f"{dataset}-{'+'.join(names)}-{task}-"
    found = [entry for entry in files.listdir(FOLDER.value) if entry.startswith(stem)]
    steps = [int(entry.removeprefix(stem)) for entry in found]
    return next((count for count in steps if count != CALIBRATION_STEPS), 0)


def model(dataset):
    """The exported network for all organs of this data set. Returns its folder."""
    folder = f"{FOLDER.value}/{dataset}-model"
    if not files.exists(folder):
        workdir = train(dataset, NAMES, "segment", planned(dataset, NAMES, "segment"))
        program("serving.export", f"--workdir={workdir}", f"--output={folder}")
    return folder


def predict(name, dataset, *arguments):
    """Dice [patients, organs] of label maps that serving.predict makes of the held-out scans."""
    output, truth = f"{FOLDER.value}/{name}", f"{FOLDER.value}/fixed"
    scans = (f"--input={truth}", "--split=validation", f"--output={output}")
    program("serving.predict", f"--model={model(dataset)}", *scans, *arguments)
    where = (f"--predictions={output}", f"--labels={truth}", f"--output={output}/scores")
    program("serving.evaluate", *where)
    found = json_files.read(f"{output}/scores/scores.json")["patients"]
    return np.array([[found[one][organ]["dice"] for organ in NAMES] for one in sorted(found)])


def page(trained, predicted):
    """docs/comparison.md up to BY_HAND, which is written by hand and stays."""
    before = files.read_bytes(TABLE.value).decode() if files.exists(TABLE.value) else ""
    by_hand = f"\n{BY_HAND}{before.partition(BY_HAND)[2]}" if BY_HAND in before else ""
    patients = len(next(iter(trained.values())))
    minutes = f"{MINUTES.value:g}"
    return f"""# Comparison at equal training time

`python -m benchmarks.compare --minutes={minutes}`: {minutes} minutes of training each, {PATIENTS}
small phantoms whose contrast agent adds 40 to 180 HU, {patients} of them held out, one seed. Volume
Dice on these; last column: difference of the mean to the first line, with its standard error over
the patients. Steps follow from rates that a machine of two cores repeats to within a sixth.

## Scored while training, in the network's own pixels

{table(trained)}
## Predicted from the scans, scored on the scanner's grid

{table(predicted)}{by_hand}"""


def table(scores):
    lines = [
        f"| contender | {' | '.join(NAMES)} | mean | difference |",
        "|---|" + "---|" * (len(NAMES) + 2),
    ]
    first = next(iter(scores.values()))
    for name, dice in scores.items():
        difference = dice.mean(1) - first.mean(1)
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        values = " | ".join(f"{value:.3f}" for value in (*dice.mean(0), dice.mean()))
        lines.append(f"| {name} | {values} | {difference.mean():+.3f} ± {error:.3f} |")
    return "\n".join(lines) + "\n"


def program(module, *arguments):
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


if __name__ == "__main__":
    app.run(main)
