"""Compares training from an earlier network and from random weights: tables in docs/training.md.

Run from the project's root: python -m benchmarks.warm [--real=FOLDER with ct.nii.gz, labels.nii.gz]

A network for the four organs learns from 24 small phantoms. Then it is fine-tuned, and beside it
one from random weights trained for as many steps with every other choice alike, three seeds each:

phantoms    other organs (spinal cord, lungs, esophagus), another matrix, 8 other phantoms
real        one patient, in slabs of eight slices along the body: every other slab is for the score.
            Neighbouring slabs look alike, so this is no estimate for another patient

It writes the tables and goes on in build/warm where an earlier call ended. About 20 minutes on two
cores.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
from absl import app, flags

from segthor import csv_files, files, json_files, nifti

REAL = flags.DEFINE_string("real", "../shared/data/lung1_002", "A patient's folder.")
FOLDER = flags.DEFINE_string("folder", "build/warm", "Where everything lies.")
DOC, START, END = "docs/training.md", "<!-- written by benchmarks/warm.py -->", "<!-- end -->"
SEEDS, SLAB = 3, 8
STEPS_BEFORE, STEPS = 600, 100
OF_WHOLE_ORGANS = ("organ_missing", "organ_volume", "organ_extent")
TARGETS = {  # the organs that are learned
    "phantoms": ("esophagus", "spinal_cord", "lung_left", "lung_right"),
    "real": ("esophagus", "heart"),
}
TITLES = {
    "phantoms": "8 other phantoms, 128x128 instead of 96x96",
    "real": "LUNG1-002, every other slab of its slices (one patient)",
}


def main(_):
    folder = Path(FOLDER.value)
    phantoms(folder / "before", 24, 0, "segthor")
    phantoms(folder / "others", 12, 1, "thorax")
    slabs(Path(REAL.value), folder / "slabs")
    build(folder, "before", ("--crop_mm=264", "--pixel_mm=2.75"), folder / "before/patients")
    thorax = ("--organ_table=configs/organs/thorax.csv", "--crop_mm=256", "--pixel_mm=2")
    chosen = ("--split=hash", "--validation_fraction=0.34")
    build(folder, "phantoms", (*thorax, *chosen), folder / "others/patients")
    listed = folder / "slabs/patients.csv"
    # A slab is no whole organ: the audit's ranges are for whole ones.
    severity = "--severity=" + ",".join(f"{code}=ignore" for code in OF_WHOLE_ORGANS)
    build(folder, "real", ("--crop_mm=384", "--pixel_mm=4", severity), listed)
    earlier = train(folder, "before", "source", 0, (f"--steps={STEPS_BEFORE}",))
    text = []
    for name, organs in TARGETS.items():
        text += [f"**{TITLES[name]}**", "", *table(folder, name, organs, earlier), ""]
    print("\n".join(text))
    write(text)
    return 0


def phantoms(folder: Path, number: int, seed: int, organs: str) -> None:
    if not (folder / "patients").exists():
        program("segthor.phantom", f"--output={folder / 'patients'}", f"--patients={number}",
                "--test_patients=0", f"--seed={seed}", f"--organs={organs}")  # fmt: skip


def slabs(patient: Path, folder: Path) -> None:
    """The patient in slabs of SLAB slices, as patients of their own, and a CSV that names them."""
    if (folder / "patients.csv").exists():
        return
    ct, labels = (nifti.read(str(patient / f"{name}.nii.gz")) for name in ("ct", "labels"))
    rows = []
    for number, first in enumerate(range(0, len(ct.zyx) - SLAB + 1, SLAB)):
        part = slice(first, first + SLAB)
        if not labels.zyx[part].any():
            continue
        grid = ct.grid.part(ct.zyx[part].shape, (first, 0, 0))
        own = folder / f"slab_{number:02d}"
        for name, scan in (("ct", ct), ("labels", labels)):
            own.mkdir(parents=True, exist_ok=True)
            nifti.write(str(own / f"{name}.nii.gz"), scan.zyx[part], grid)
        rows.append({
            "patient": own.name,
            "ct": f"{own.name}/ct.nii.gz",
            "labels": f"{own.name}/labels.nii.gz",
            "split": "validation" if number % 2 else "train",
            "organs": "esophagus;heart",
        })  # fmt: skip
    csv_files.write_table(str(folder / "patients.csv"), rows)


def build(folder: Path, name: str, recipe, given: Path) -> None:
    if not (folder / name / "dataset/dataset.json").exists():
        program("beam_jobs.build", f"--input={given}", f"--output={folder / name / 'dataset'}",
                *recipe)  # fmt: skip


def train(folder: Path, name: str, kind: str, seed: int, choices) -> Path:
    """A run, scored once at its end; returns its folder."""
    workdir = folder / name / f"{kind}_{seed}"
    if not (workdir / "summary.json").exists():
        program("trainer.main", "--flagfile=configs/smoke.flags", f"--workdir={workdir}",
                f"--data={folder / name / 'dataset'}", f"--seed={seed}",
                "--validate_every=1000000", "--checkpoint_every=200", *choices)  # fmt: skip
    return workdir


def table(folder, name, organs, earlier) -> list[str]:
    """Markdown: Dice of each organ, mean over the seeds and the lowest and highest of them."""
    kinds = {
        "from random weights": (),
        "from the four organs' network": (f"--start_from={earlier}",),
    }
    lines = [f"| {STEPS} steps | mean | {' | '.join(organs)} |"]
    lines.append("|---" * (len(organs) + 2) + "|")
    for (title, start), kind in zip(kinds.items(), ("random", "warm"), strict=True):
        chosen = (f"--steps={STEPS}", f"--organs={','.join(organs)}", *start)
        dice = [scores(train(folder, name, kind, seed, chosen), organs) for seed in range(SEEDS)]
        columns = np.column_stack([np.mean(dice, axis=1), dice]).T
        cells = [f"{c.mean():.3f} ({c.min():.3f} to {c.max():.3f})" for c in columns]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def scores(workdir: Path, organs) -> list[float]:
    best = json_files.read(str(workdir / "summary.json"))["best"]
    return [best[f"dice_{organ}"] for organ in organs]


def write(text) -> None:
    before, _, rest = Path(DOC).read_text().partition(START)
    after = rest.partition(END)[2]
    whole = f"{before}{START}\n\n" + "\n".join(text) + f"{END}{after}"
    with files.atomic_write(DOC) as stream:
        stream.write(whole.encode())


def program(module, *arguments):
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


if __name__ == "__main__":
    app.run(main)
