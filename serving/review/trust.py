"""What the record of its training says against trusting a model that was not calibrated."""

from serving.review.expectation import BAD_DICE

FEWEST_PATIENTS = 10  # in training; of fewer, one unusual patient decides what the model learns


def reasons_against(groups) -> dict[str, str]:
    """Organ to why none of its models is to be trusted; organs with one that is are left out.

    groups: Organs to the models of these organs, see `predictor.Ensemble`.
    """
    reasons = {
        name: [_reason_against(one.training, name) for one in models]
        for names, models in groups.items()
        for name in names
    }
    return {name: found[0] for name, found in reasons.items() if all(found)}


def _reason_against(training: dict, organ: str) -> str:
    """Why its outlines of an organ need a person each time, in words; '' for no reason.

    training: The model's record, as the trainer wrote it.
    """
    patients = _part(training, "reference").get("patients")
    if not isinstance(patients, int) or patients < FEWEST_PATIENTS:
        return f"trained on {patients or 'fewer than 3'} patients"
    dice = _part(_part(training, "summary"), "best").get(f"dice_{organ}")
    if not isinstance(dice, int | float):
        return "no validation score"
    return f"validation Dice {dice:.2f}" if dice < BAD_DICE else ""


def _part(record: dict, key: str) -> dict:
    value = record.get(key)
    return value if isinstance(value, dict) else {}
