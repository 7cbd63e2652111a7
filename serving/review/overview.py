"""`predictions.csv`: all cases of a folder of predictions, the one to look at first on top."""

from segthor import csv_files, files
from segthor.patients import Patient
from serving.prediction.facts import Facts
from serving.prediction.results import Results

FILE_NAME = "predictions.csv"
_COLUMNS = ("patient", "review", "expected_dice", "lower_dice", "organ", "slices", "reason")


def write(results: Results, scans: list[Patient], names) -> list[dict]:
    """Writes predictions.csv for these scans beside the label maps; returns its rows, worst first.

    Each row names the organ with the lowest expected Dice. A case without a label map comes first.

    names: Names of the predicted organs.
    """
    cases = {scan.name: results.facts(scan) for scan in scans}
    order = sorted(cases, key=lambda name: rank(cases[name], name))
    rows = [_row(name, cases[name]) for name in order]
    expected = [f"expected_dice_{name}" for name in names]
    path = files.join(results.folder, FILE_NAME)
    csv_files.write_table(path, rows, (*_COLUMNS, *expected))
    return rows


def rank(facts: Facts, name: str) -> tuple:
    """Sort key of a case, worst first.

    Failed cases come first, then those unlike the training data, then those to be reviewed, then
    all others; within these groups, the lowest expected Dice of an organ decides.
    """
    review = facts.review
    if facts.failed or review is None:
        return (0, 0.0, name)
    group = 1 if review.unlike_training else 2 if review.review else 3
    return (group, 1.0 if review.expected_dice is None else review.expected_dice, name)


def _row(name: str, facts: Facts) -> dict:
    review = facts.review
    if review is None:
        unjudged = "no evidence was recorded; predict again with --overwrite" if facts.job else ""
        reason = facts.failed or unjudged or "no label map"
        return {"patient": name, "review": "yes", "reason": reason}
    known = {o: row for o, row in review.organs.items() if row.expected_dice is not None}
    worst = min(known, key=lambda o: known[o].expected_dice, default=None)
    shown = known.get(worst) or next((r for r in review.organs.values() if r.review), None)
    return {
        "patient": name,
        "review": "yes" if review.review or facts.failed else "no",
        "expected_dice": review.expected_dice,
        "lower_dice": shown and shown.lower_dice,
        "organ": worst,
        "slices": " ".join(map(str, shown.slices)) if shown else "",
        "reason": "; ".join(filter(None, (facts.failed, review.reason))),
        **{f"expected_dice_{o}": row.expected_dice for o, row in known.items()},
    }
