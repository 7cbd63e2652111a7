"""Reasons in a model's training record not to trust it without a calibration."""

from serving.review.expectation import BAD_DICE

FEWEST_PATIENTS = 10  # training patients; among fewer, a single unusual one has too much influence


def reasons_against(groups) -> dict[str, str]:
    """Finds organs of which no model can be trusted; returns organ to the reason.

    groups: Organs to the models of these organs, see `predictor.Ensemble`.
    """
    reasons = {
        name: [_reason_against(one.training, name) for one in models]
        for names, models in groups.items()
        for name in names
    }
    return {name: by_model[0] for name, by_model in reasons.items() if all(by_model)}


def _reason_against(training: dict, organ: str) -> str:
    """Reason why a person should check every prediction of the organ; '' if there is none.

    training: The content of the model's training.json.
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
