"""Measures how reliable the marks for review are; writes the results into docs/review.md.

Run from the project's root: python -m benchmarks.review [FRESH PATIENTS, 240 unless told]

60 small phantoms in 5 folds, trained for some minutes; a calibration; then fresh patients, half of
them worsened in ways and strengths that the calibration did not see. All lies under
build/benchmark/review; the same command goes on where an earlier one ended. About an hour on 2
cores.
"""

import trainer  # noqa: F401, I001  before tensorflow: sets up its environment
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from segthor import phantom
from serving.prediction import bundle
from segthor.volume import Volume
from serving.prediction.predictor import Ensemble
from serving.review import cases, plot
from serving.review.expectation import BAD_DICE
from serving.review.fit import auroc
from serving.review.judge import Judge, average_dice

FOLDER, DOC = Path("build/benchmark/review"), Path("docs/review.md")
PICTURE = Path("docs/images/review-reliability.png")
START, END = "<!-- written by benchmarks/review.py -->", "<!-- end -->"
PATIENTS, FOLDS, SEED, FRESH_SEED = 60, 5, 7, 8
DRAWS = 2000


def main(number: str = "240"):
    _train()
    bundles = [bundle.load(str(FOLDER / f"calibration/models/fold_{n}")) for n in range(FOLDS)]
    single = [Ensemble([one]) for one in bundles]
    ones = [row for n, one in enumerate(single) for row in _fresh(int(number), one, f"fold_{n}")]
    rows = _fresh(int(number), Ensemble(bundles), "five")
    text = []
    for title, found in (
        ("One network, each of the five in turn", ones),
        ("The five folds averaged", rows),
    ):
        told = {organ: _arrays(found, organ) for organ in single[0].organs}
        text += [f"**{title}**", "", *_table(told), ""]
        if found is ones:
            plot.write(str(PICTURE), told)
    text += [_foretold(ones, rows, single[0].organs), "", _kinds(rows), ""]
    print("\n".join(text))
    _document("\n".join(text), int(number))


def _train() -> None:
    """Phantoms, dataset, folds, calibration: each does only what is missing."""
    patients, dataset, runs = (str(FOLDER / name) for name in ("patients", "dataset", "runs"))
    _run("segthor.phantom", f"--output={patients}", f"--patients={PATIENTS}",
         "--test_patients=0", "--size=small", f"--seed={SEED}")  # fmt: skip
    _run("beam_jobs.build", f"--input={patients}", f"--output={dataset}",
         "--flagfile=configs/demo_build.flags", f"--folds={FOLDS}")  # fmt: skip
    if not (FOLDER / "runs/cross_validation.csv").exists():  # a finished run costs a start each
        _run("trainer.cross_validate", "--flagfile=configs/smoke.flags", f"--data={dataset}",
             f"--workdir={runs}", "--epochs=0", "--steps=600", "--validate_every=600",
             "--surface_distances=false")  # fmt: skip
    _run("serving.calibrate", f"--runs={runs}", f"--data={dataset}",
         f"--output={FOLDER / 'calibration'}")  # fmt: skip


def _run(module, *arguments) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


def _fresh(number: int, models: Ensemble, name: str) -> list[dict]:
    """Rows of `cases.measure_scan` with what the review says, of every fresh patient."""
    judge = Judge.of_models(models)
    key = [one.digest for one in models.bundles]
    rows = []
    for patient in range(number):
        path = FOLDER / f"fresh_{name}" / f"{patient:03d}.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        if kept.get("key") != key:
            made = phantom.make(phantom.patient_seed(FRESH_SEED, patient))
            scan, kind = made.volume, cases.AS_IT_IS
            if patient % 2:
                kind = list(UNSEEN)[patient // 2 % len(UNSEEN)]
                scan = _worse(kind, scan, np.random.default_rng([FRESH_SEED, patient]))
            labels = made.label_map
            made_rows = cases.measure_scan(models, scan, labels, models.organs, str(patient), kind)
            kept = {"key": key, "rows": made_rows}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(kept))
        organs = {row["organ"]: row["evidence"] for row in kept["rows"]}
        judged = judge.judge(kept["rows"][0]["scan"], organs, ())
        rows += [
            row | {"judged": judged.organs[row["organ"]], "unlike": judged.unlike_training}
            for row in kept["rows"]
        ]
    return rows


def _arrays(rows, organ: str) -> dict[str, np.ndarray]:
    own = [row for row in rows if row["organ"] == organ]
    return {
        "expected": np.array([row["judged"].expected_dice for row in own]),
        "lower": np.array([row["judged"].lower_dice for row in own]),
        "marked": np.array([row["judged"].review or row["unlike"] for row in own]),
        "true": np.array([row["dice"] for row in own]),
        "kind": np.array([row["kind"] for row in own]),
        "patient": np.array([int(row["patient"]) for row in own]),
    }


def _measures(told: dict) -> dict:
    """What is claimed, of one organ; None where there is nothing to measure it on."""
    bad, own = told["true"] < BAD_DICE, told["kind"] == cases.AS_IT_IS
    holds = told["true"] >= told["lower"]

    def share(values):
        return float(values.mean()) if len(values) else None

    return {
        "AUROC": auroc(told["expected"], bad),
        "bound holds, undamaged": share(holds[own]),
        "bad ones marked": share(told["marked"][bad]),
        "good ones marked": share(told["marked"][~bad]),
    }


def _table(told: dict) -> list[str]:
    """Markdown: each measure with its 95 % bootstrap interval over patients."""
    titles = list(_measures(next(iter(told.values()))))
    lines = [f"| organ | bad of all | {' | '.join(titles)} |", "|---" * (len(titles) + 2) + "|"]
    for organ, one in told.items():
        count, patients = len(one["true"]), len(np.unique(one["patient"]))
        of_patient = np.argsort(one["patient"], kind="stable").reshape(patients, -1)
        drawn = np.random.default_rng(0).integers(0, patients, (DRAWS, patients))
        draws = [_measures({key: values[of_patient[chosen].ravel()] for key, values in one.items()})
                 for chosen in drawn]  # fmt: skip
        cells = []
        for title, value in _measures(one).items():
            known = [draw[title] for draw in draws if draw[title] is not None]
            if value is None or not known:
                cells.append("-")
            else:
                low, high = np.quantile(known, (0.025, 0.975))
                cells.append(f"{value:.2f} ({low:.2f} to {high:.2f})")
        bad = int((one["true"] < BAD_DICE).sum())
        lines.append(f"| {organ} | {bad} of {count} | {' | '.join(cells)} |")
    return lines


def _foretold(ones, rows, organs) -> str:
    """What averaging wins on undamaged scans, by the true Dice of the networks, and measured."""
    lines = [
        "| undamaged, mean Dice | one network | average, foretold | average |",
        "|---" * 4 + "|",
    ]
    for organ in organs:
        each = {}
        for row in ones:
            if row["organ"] == organ:
                each.setdefault(row["patient"], []).append(row["dice"])
        own = [row for row in rows if row["organ"] == organ and row["kind"] == cases.AS_IT_IS]
        one = [np.mean(each[row["patient"]]) for row in own]
        apart = [row["evidence"]["disagreement"] for row in own]
        foretold = np.mean([average_dice(*pair) for pair in zip(one, apart, strict=True)])
        measured = np.mean([row["dice"] for row in own])
        lines.append(f"| {organ} | {np.mean(one):.4f} | {foretold:.4f} | {measured:.4f} |")
    return "\n".join(lines)


def _kinds(rows) -> str:
    """Of each way of worsening, the mean true Dice beside the expected one, and what was missed."""
    columns = (
        "the five folds averaged",
        "scans",
        "mean Dice",
        "mean expected",
        "bad organs",
        "not marked",
    )
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for kind in (cases.AS_IT_IS, *UNSEEN):
        own = [row for row in rows if row["kind"] == kind]
        if own:
            true = np.mean([row["dice"] for row in own])
            expected = np.mean([row["judged"].expected_dice for row in own])
            scans = len({row["patient"] for row in own})
            bad = [row for row in own if row["dice"] < BAD_DICE]
            missed = sum(not (row["judged"].review or row["unlike"]) for row in bad)
            lines.append(
                f"| {kind} | {scans} | {true:.3f} | {expected:.3f} | {len(bad)} | {missed} |"
            )
    return "\n".join(lines)


def _document(text: str, number: int) -> None:
    command = "python -m benchmarks.review" + (f" {number}" if number != 240 else "")
    whole = DOC.read_text()
    before, _, rest = whole.partition(START)
    _, _, after = rest.partition(END)
    DOC.write_text(f"{before}{START}\n\n`{command}`\n\n{text}{END}{after}")


def _worse(kind: str, scan: Volume, rng) -> Volume:
    hu = UNSEEN[kind](scan.zyx.astype(np.float32), rng)
    return Volume(np.rint(np.clip(hu, -32768, 32767)).astype(np.int16), scan.grid)


def _slope(zyx, rng):
    """A wrong slope."""
    return (zyx + 1000) * rng.choice((rng.uniform(0.75, 0.95), rng.uniform(1.05, 1.3))) - 1000


def _clipped(zyx, rng):
    """Cut off at a window and kept in few grey levels, as where it went through pictures."""
    level, width = rng.uniform(-50, 100), rng.uniform(80, 400)
    step = width / rng.integers(6, 64)
    return np.rint(np.clip(zyx, level - width / 2, level + width / 2) / step) * step


def _dead_rows(zyx, rng):
    """Bands without any signal across half of the slices or more."""
    rows = zyx.shape[1]
    worse, held = zyx.copy(), int(len(zyx) * rng.uniform(0.5, 1))
    first = int(rng.integers(0, len(zyx) - held + 1))
    for _ in range(int(rng.integers(2, 7))):
        y = int(rng.integers(rows // 4, 3 * rows // 4))
        worse[first : first + held, y : y + int(rng.integers(2, 9))] = -1000
    return worse


def _rings(zyx, rng):
    """Rings about the middle of every slice."""
    y, x = np.mgrid[: zyx.shape[1], : zyx.shape[2]]
    radius = np.hypot(y - zyx.shape[1] / 2, x - zyx.shape[2] / 2)
    return zyx + rng.uniform(30, 250) * np.sin(radius * rng.uniform(0.5, 2))


def _shading(zyx, rng):
    """Brighter towards one side."""
    ramp = np.linspace(-1, 1, zyx.shape[2]) * rng.uniform(40, 250) * rng.choice((-1, 1))
    return zyx + np.where(zyx > -500, ramp.astype(np.float32), 0)


UNSEEN = {
    "slope": _slope,
    "clipped": _clipped,
    "dead rows": _dead_rows,
    "rings": _rings,
    "shading": _shading,
}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
