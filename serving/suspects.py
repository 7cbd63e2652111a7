"""Ranks a dataset's contours by how much networks that were not trained on them disagree.

  python -m trainer.cross_validate --flagfile=configs/all.flags --data=data/dataset --workdir=runs
  python -m serving.suspects --runs=runs --data=data/dataset --output=suspects

The network of each fold predicts the patients that it was not trained on, from the records of the
dataset; no scan is read. Writes suspects.csv, the most suspicious contour first, and suspects.html,
a page with the slices in question. Repeat the same command to continue an interrupted one.
"""

import functools
import hashlib

import numpy as np
from absl import flags

from segthor import csv_files, files, folds, outputs, startup
from segthor.errors import InputError, hint, run
from segthor.manifest import VALIDATION, Built, Dataset
from segthor.organs import Organs
from serving.prediction import out_of_fold
from serving.scoring import page, suspect_page, suspicion, tables
from trainer import run as runs

RUNS = flags.DEFINE_string("runs", None, "Folder of trainer.cross_validate.", required=True)
DATA = flags.DEFINE_string("data", None, "Folder of the dataset of these runs.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Folder of the suspects.", required=True)
SHOWN = flags.DEFINE_integer("shown", 40, "Number of patients on the page.", lower_bound=1)
CSV, PAGE = "suspects.csv", "suspects.html"
WRITTEN = {CSV: outputs.csv_with("patient", "organ", "score", "slices"), PAGE: outputs.page}
PRINTED = 15


def main(_):
    """Predicts and compares fold by fold, ranks the contours, writes and prints them."""
    outputs.check_folder(OUTPUT.value, {"runs": RUNS.value, "data": DATA.value}, written=WRITTEN)
    dataset = folds.load_dataset(DATA.value)
    names = _check_runs(dataset)
    organs = dataset.organs.select(names)
    with outputs.lock_folder(OUTPUT.value, WRITTEN):
        out_of_fold.clear_leftovers(OUTPUT.value)
        disputes, failed = [], 0
        for fold in range(dataset.folds):
            of_fold, unread = _compare(dataset, fold, organs)
            disputes, failed = disputes + of_fold, failed + unread
        if not disputes:
            raise InputError(f"{DATA.value}: no contours of {', '.join(names)} could be compared")
        ranked = suspicion.rank(disputes)
        csv_files.write_table(files.join(OUTPUT.value, CSV), list(map(_make_row, ranked)))
        path, size = _write_page(dataset, ranked, organs)
    print(f"\n{_format_table(ranked[:PRINTED])}\n")
    print(
        f"Wrote {CSV} ({len(ranked)} contours) and {path} ({size / 1e6:.1f} MB); open the latter "
        "in a browser. A person has to decide which side is right."
    )
    if failed:
        print(f"{failed} patients FAILED and are not among them; see the lines above.")
    print(hint("beam_jobs.build", input="MENDED_PATIENTS", output="DATASET"))
    return 1 if failed else 0


def _check_runs(dataset: Dataset) -> tuple[str, ...]:
    """The organs that the networks outline.

    Raises:
      InputError: As `trainer.run.read_of_fold`; or the runs are of different organs.
    """
    names = [
        runs.read_of_fold(RUNS.value, fold, DATA.value, dataset).organs
        for fold in range(dataset.folds)
    ]
    if len(set(names)) > 1:
        found = "; ".join(sorted({", ".join(organs) for organs in names}))
        raise InputError(f"--runs={RUNS.value}: expected runs of the same organs, found {found}")
    return names[0]


def _compare(dataset: Dataset, fold: int, organs: Organs) -> tuple[list[suspicion.Dispute], int]:
    """Compares the contours of a fold; returns disputes, and the number of unreadable patients."""
    network, disputes, failed, number = functools.cache(lambda: _load_network(fold)), [], 0, 0
    count = sum(row.fold == fold for row in dataset.patients)
    for shard in dataset.shards_of(VALIDATION, fold):
        for row, stored in out_of_fold.read(DATA.value, dataset, shard):
            number += 1
            print(f"fold {fold} [{number}/{count}] {row.patient}", flush=True)
            if isinstance(stored, InputError):
                failed += 1
                print(f"FAILED: {row.patient}: {stored}", flush=True)
                continue
            prediction = _predict(row, stored.images, network, organs)
            disputes += [
                suspicion.measure(row.patient, stored.labels, prediction, organ, organs)
                for organ in organs
                if organ.name in row.organs
            ]
    return disputes, failed


def _predict(row: Built, images, network, organs: Organs) -> out_of_fold.SurePrediction:
    """Loads the stored prediction of a patient, or predicts and stores it."""
    key = _run_digest(row.fold)
    prediction = out_of_fold.load(OUTPUT.value, row.patient, key)
    if prediction is None:
        values = np.array([0, *organs.labels(organs.names)], np.uint8)
        prediction = out_of_fold.predict(network(), images, values)
        out_of_fold.save(OUTPUT.value, row.patient, key, prediction)
    return prediction


@functools.cache
def _run_digest(fold: int) -> str:
    """Digest of a run and its checkpoint, on which a stored prediction depends."""
    # The index of a checkpoint holds checksums of its data, which need not be read.
    folder = folds.run_folder(RUNS.value, fold)
    digest = hashlib.sha256(files.read_bytes(files.join(folder, runs.RUN)))
    best = files.join(folder, runs.BEST)
    for name in sorted(files.listdir(best)):
        if not name.startswith(files.TEMPORARY_PREFIX) and ".data-" not in name:
            digest.update(files.read_bytes(files.join(best, name)))
    return digest.hexdigest()[:16]


def _load_network(fold: int):
    """Loads a fold's best checkpoint, as a callable from images uint8 to probabilities."""
    startup.load_tensorflow()
    network, _ = runs.restore(folds.run_folder(RUNS.value, fold))
    return lambda images: network(images, training=False)[runs.SEGMENT]


def _make_row(suspect: suspicion.Suspect) -> dict:
    one = suspect.dispute
    return {
        "patient": one.patient,
        "organ": one.organ,
        "score": round(suspect.score, 4),
        "slices": " ".join(
            f"{first + 1}-{last + 1}" if last > first else f"{first + 1}"
            for first, last in suspicion.group_runs(one.slices)
        ),  # counted from 1
        "reason": suspect.reason,
    }


def _format_table(ranked) -> str:
    """Formats the suspects for the terminal, each line followed by its reason."""
    rows = [list(_make_row(suspect).values())[:-1] for suspect in ranked]
    head, rule, *lines = tables.align(("suspects", "organ", "score", "slices"), rows).split("\n")
    rows = [f"{line}  {one.reason}" for line, one in zip(lines, ranked, strict=True)]
    return "\n".join([head, rule, *rows])


def _write_page(dataset: Dataset, ranked, organs: Organs) -> tuple[str, int]:
    """Writes the page of the patients with the most suspicious contours, in their order."""
    names = list(dict.fromkeys(suspect.dispute.patient for suspect in ranked))[: SHOWN.value]
    entries = {}
    for shard in dataset.shards:
        if set(shard.patients) & set(names):
            for row, stored in out_of_fold.read(DATA.value, dataset, shard):
                if row.patient in names:
                    own = [one for one in ranked if one.dispute.patient == row.patient]
                    if isinstance(stored, InputError):  # the shard changed after the comparison
                        raise stored
                    prediction = out_of_fold.load(OUTPUT.value, row.patient, _run_digest(row.fold))
                    shown = row, stored, prediction.predicted, own
                    entries[row.patient] = suspect_page.entry(*shown, organs)
    path = files.join(OUTPUT.value, PAGE)
    source = f"suspects in {files.name(files.absolute(DATA.value))}"
    return path, page.write(path, [entries[name] for name in names], source, organs)


if __name__ == "__main__":
    run(main)
