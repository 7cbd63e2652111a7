"""Chooses the post-processing of each organ on validation patients and stores it with the model.

  python -m serving.predict --model=M --input=data/dataset --split=validation --nopostprocess \\
    --output=raw
  python -m serving.tune --model=M --predictions=raw --labels=data/dataset

serving.predict then applies it, unless --nopostprocess is given. Exit status: 0, or 1 if a patient
could not be read.
"""

import contextlib
import math

from absl import flags

from segthor import files, inputs, locks
from segthor import model_directory as directory
from segthor.errors import InputError, hint, run
from segthor.organs import Organs
from segthor.patients import Patient
from serving import card
from serving.prediction import candidates, facts, postprocess, results
from serving.scoring import pairs, tables

MODEL = flags.DEFINE_list("model", None, "Models of the predictions.", required=True)
PREDICTIONS = flags.DEFINE_string(
    "predictions", None, "Folder of label maps that --nopostprocess made.", required=True
)
LABELS = flags.DEFINE_string("labels", None, "The contours, as in evaluate.", required=True)
FEWEST = 3  # patients; with fewer a choice is not meaningful


def main(_):
    """Scores every candidate on every patient, stores the best, prints the table."""
    if not MODEL.value:
        raise InputError("--model=: expected model directories, found nothing")
    versions = [directory.newest(folder) for folder in MODEL.value]
    head = _check_raw([directory.digest(version) for version in versions])
    organs = pairs.table_of(PREDICTIONS.value, LABELS.value)
    matched = _match(organs)
    with contextlib.ExitStack() as stack:
        for version in sorted(set(map(files.absolute, versions))):
            stack.enter_context(locks.lock_folder(version))
            postprocess.clear_leftovers(version)
        scored, failed = _score(matched, organs)
        rules, table = candidates.choose(scored, organs)
        if not rules:
            raise InputError("no organ is both contoured and predicted; nothing to choose for")
        print(f"\n{_format_table(table)}\n")
        rows = [{k: None if v == math.inf else v for k, v in row.items()} for row in table]
        for version in versions:
            postprocess.save(version, rules, rows)
            card.refresh(version)
    chosen = (f"{name}: {postprocess.describe_rule(vars(rule))}" for name, rule in rules.items())
    print(f"Stored with {', '.join(versions)}: {', '.join(chosen)}.")
    level_model = "LEVEL_MODEL" if head.get("level_models") else None
    models = {"model": MODEL.value, "level_model": level_model}
    print(hint("serving.predict", **models, input="SCANS", output="PREDICTIONS"))
    if failed:
        print(f"{failed} patients FAILED and were not scored; see the lines above.")
    return 1 if failed else 0


def _match(organs: Organs) -> list[tuple[Patient, Patient]]:
    """Finds the patients that have contours and a prediction."""
    predictions = inputs.find_predictions(PREDICTIONS.value)
    matched = [
        (contours, Patient(contours.name, "", predictions[contours.name]))
        for contours in pairs.contours_of(LABELS.value, organs=organs)
        if contours.name in predictions
    ]
    if len(matched) < FEWEST:
        raise InputError(
            f"{len(matched)} patients have both predictions and contours; expected at least "
            f"{FEWEST}"
        )
    return matched


def _score(matched, organs: Organs) -> tuple[list[dict], int]:
    """Scores all candidates on each patient; returns the scores and the number of failures."""

    def score(contours: Patient, prediction: Patient):
        if contours.fault:
            raise InputError(contours.fault)
        predicted, truth = pairs.read(contours, prediction, organs=organs)
        predictable = facts.read_of_table(PREDICTIONS.value, contours.name, organs).organs
        names = [name for name in truth.contoured if name in predictable]
        warnings = [finding.message for finding in (*predicted.findings, *truth.findings)]
        return candidates.score_candidates(predicted, truth, names), "", warnings

    scored, failed = pairs.for_each(matched, score)
    if len(scored) < FEWEST:
        raise InputError(
            f"{len(scored)} of {len(matched)} patients could be scored, expected at least "
            f"{FEWEST}; see the lines above"
        )
    return scored, len(failed)


def _check_raw(digests: list[str]) -> dict:
    """Returns the settings of the label maps; raises InputError unless they fit these models."""
    head = results.settings_of(PREDICTIONS.value)
    if not set(digests) <= set(head["models"]):
        raise InputError(
            f"{PREDICTIONS.value}: another model than {','.join(MODEL.value)} made these; predict "
            "again"
        )
    if head.get("postprocess"):
        raise InputError(
            f"{PREDICTIONS.value}: is post-processed already; expected label maps made with "
            "--nopostprocess"
        )
    return head


def _format_table(table: list[dict]) -> str:
    rows = [
        (
            row["organ"],
            postprocess.describe_rule(row),
            tables.format_number(row["dice"], "{:.4f}"),
            tables.format_number(row["average_hausdorff_mm"], "{:.3f}"),
            "<- chosen" if row["chosen"] else "",
        )
        for row in table
    ]
    return tables.align(("organ", "rule", "Dice", "average HD mm", ""), rows)


if __name__ == "__main__":
    run(main)
