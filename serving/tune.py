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

from segthor import files, guard, inputs, locks
from segthor import model_directory as directory
from segthor.errors import InputError, hint, run
from segthor.organs import Organs
from segthor.patients import Patient
from serving import card
from serving.prediction import candidates, facts, postprocess, results
from serving.scoring import tables
from serving.scoring.pairs import contours_of, table_of
from serving.scoring.pairs import read as read_pair

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
    organs = table_of(PREDICTIONS.value, LABELS.value)
    predictions = inputs.find_predictions(PREDICTIONS.value)
    pairs = [e for e in contours_of(LABELS.value, organs=organs) if e.name in predictions]
    if len(pairs) < FEWEST:
        raise InputError(
            f"{len(pairs)} patients have both predictions and contours; expected at least {FEWEST}"
        )
    with contextlib.ExitStack() as stack:
        for version in sorted(set(map(files.absolute, versions))):
            stack.enter_context(locks.lock_folder(version))
            postprocess.clear_leftovers(version)
        scored = _score(pairs, predictions, organs)
        if len(scored) < FEWEST:
            raise InputError(
                f"{len(scored)} of {len(pairs)} patients could be scored, expected at least "
                f"{FEWEST}; see the lines above"
            )
        rules, table = candidates.choose(scored, organs)
        if not rules:
            raise InputError("no organ is both contoured and predicted; nothing to choose for")
        print(f"\n{_format_table(table)}\n")
        rows = [{k: None if v == math.inf else v for k, v in row.items()} for row in table]
        for version in versions:
            postprocess.save(version, rules, rows)
            card.refresh(version)
    chosen = ", ".join(f"{name}: {_describe_rule(rule.to_json())}" for name, rule in rules.items())
    print(f"Stored with {', '.join(versions)}: {chosen}.")
    level_model = "LEVEL_MODEL" if head.get("level_models") else None
    models = {"model": MODEL.value, "level_model": level_model}
    print(hint("serving.predict", **models, input="SCANS", output="PREDICTIONS"))
    failed = len(pairs) - len(scored)
    if failed:
        print(f"{failed} patients FAILED and were not scored; see the lines above.")
    return 1 if failed else 0


def _score(pairs, predictions, organs: Organs) -> list:
    """Scores all candidate rules, patient by patient; see `candidates.score_candidates`."""
    patients = []
    for number, labels in enumerate(pairs, 1):
        line = f"[{number}/{len(pairs)}] {labels.name}"
        try:
            if labels.fault:
                raise InputError(labels.fault)
            prediction = Patient(labels.name, "", predictions[labels.name])
            predicted, truth = read_pair(labels, prediction, organs=organs)
            predictable = facts.read_of_table(PREDICTIONS.value, labels.name, organs).organs
            names = [name for name in truth.contoured if name in predictable]
            patients.append(candidates.score_candidates(predicted, truth, names))
        except Exception as error:  # an unforeseen error must not stop the other patients
            print(f"{line}  FAILED: {guard.describe(error)}", flush=True)
            continue
        print(line, flush=True)
        for finding in (*predicted.findings, *truth.findings):
            print(f"warning: {finding.message}", flush=True)
    return patients


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
            _describe_rule(row),
            tables.format_number(row["dice"], "{:.4f}"),
            tables.format_number(row["average_hausdorff_mm"], "{:.3f}"),
            "<- chosen" if row["chosen"] else "",
        )
        for row in table
    ]
    return tables.align(("organ", "rule", "Dice", "average HD mm", ""), rows)


def _describe_rule(rule: dict) -> str:
    parts = [
        "largest piece" if rule["largest"] else "",
        f"pieces from {rule['min_cm3']:g} cm3" if rule["min_cm3"] else "",
        "holes filled" if rule["fill_holes"] else "",
    ]
    return ", ".join(part for part in parts if part) or "as predicted"


if __name__ == "__main__":
    run(main)
