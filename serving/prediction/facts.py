"""The facts about one predicted case: `cases/PATIENT.json` beside the label maps."""

import math
from dataclasses import dataclass, replace

from segthor import fields, files, json_files
from segthor.errors import InputError
from segthor.findings import Finding
from segthor.organs import Organs

# Names of the evidence of an organ that was found; see `serving.review.evidence`.
_OF_ORGAN = (
    "uncertainty border_uncertainty expected_loss weak_share weak_slices disagreement "
    "disagreeing_slices slices removed_share surplus_pieces gap_share gaps volume_z length_z hu_z "
    "place_z"
).split()


@dataclass(frozen=True)
class Change:
    """The changes of one organ by post-processing.

    removed_cm3: Removed volume.
    filled_cm3: Volume of filled holes.
    removed_pieces: Number of removed pieces.
    """

    removed_cm3: float
    filled_cm3: float
    removed_pieces: int = 0


@dataclass(frozen=True)
class Evidence:
    """The evidence of how good a prediction is; see `serving.review.evidence`.

    scan: Name of a figure of the scan to its value and z-score.
    organs: Organ to its evidence; {} for an organ that was not found.
    """

    scan: dict[str, tuple[float, float]]
    organs: dict[str, dict]

    def __post_init__(self):
        for organ, row in self.organs.items():
            for name in _OF_ORGAN if row else ():
                if name not in row or not _is_valid(name, row[name]):
                    found = repr(row.get(name, "nothing"))[:40]
                    raise InputError(
                        f"evidence of {organ}: {name}: expected a number, found {found}"
                    )


@dataclass(frozen=True, kw_only=True)
class OrganJudgement:
    """The judgement of one predicted organ.

    expected_dice: Expected Dice; None: the models store no calibration.
    lower_dice: Lower bound of the Dice, which `expectation.COVERAGE` of such cases reach.
    expected_surface_dice: Expected surface Dice.
    lower_surface_dice: Lower bound of the surface Dice.
    review: Whether a person should look at the organ.
    reason: What is unusual in its evidence, in words.
    slices: Slices to look at first, counted from 1 from the feet.
    """

    expected_dice: float | None
    lower_dice: float | None
    expected_surface_dice: float | None = None
    lower_surface_dice: float | None = None
    review: bool
    reason: str
    slices: tuple[int, ...]


@dataclass(frozen=True)
class Judgement:
    """The judgement of one case.

    calibrated: Whether the models store a calibration of every organ.
    recall: Share of the bad predictions that the marked cases should contain.
    review: Whether a person should look at the case.
    reason: The reason in words.
    unlike_training: Whether the scan is unlike the training data.
    expected_dice: Lowest expected Dice of an organ.
    organs: Organ to its judgement.
    """

    calibrated: bool
    recall: float
    review: bool
    reason: str
    unlike_training: bool
    expected_dice: float | None
    organs: dict[str, OrganJudgement]


@dataclass(frozen=True)
class Facts:
    """The facts about one case; None: not known, e.g. for a case that was not predicted.

    job: Digest of the settings of the job that made the label map.
    scan: Path of the scan, and its stamp from before it was read.
    label_map: Name and SHA-256 of the label map's file, as the job wrote it.
    uneven: For a scan with uneven planes, how or why not its label map was written to NIfTI.
    organs: Organs that the models predict, whether they were found or not.
    engine: Inference engine.
    level_hu: Window level of the first network.
    width_hu: Window width of the first network.
    volumes_cm3: Organ to its volume.
    findings: Findings of the audit about scan and label map.
    postprocess: Organ to its changes by post-processing.
    evidence: Evidence of how good the prediction is.
    review: The judgement of the evidence.
    objects: DICOM format to whether there was something to write.
    failed: Why the last attempt made no label map.
    """

    job: str | None = None
    scan: dict[str, str] | None = None
    label_map: dict[str, str] | None = None
    uneven: str | None = None
    organs: tuple[str, ...] | None = None
    engine: str | None = None
    level_hu: float | None = None
    width_hu: float | None = None
    volumes_cm3: dict[str, float] | None = None
    findings: tuple[Finding, ...] | None = None
    postprocess: dict[str, Change] | None = None
    evidence: Evidence | None = None
    review: Judgement | None = None
    objects: dict[str, bool] | None = None
    failed: str | None = None

    def save(self, folder: str, patient: str) -> None:
        """Writes the facts of a case of this folder."""
        self.write(path(folder, patient))

    def write(self, target: str) -> None:
        """Writes the facts to a file, without those that are None."""
        json_files.write(target, {k: v for k, v in vars(self).items() if v is not None})


def _is_valid(name: str, value) -> bool:
    """Whether a value is valid for the evidence of this name."""
    if name == "slices":
        return isinstance(value, list | tuple) and all(type(z) is int and z > 0 for z in value)
    if name == "disagreement" and value is None:
        return True
    return isinstance(value, int | float) and math.isfinite(value)


def path(folder: str, patient: str) -> str:
    """Path of a case's facts."""
    return files.inside(files.join(folder, "cases"), f"{patient}.json")


def read(folder: str, patient: str) -> Facts:
    """Reads the facts of a case; raises InputError if serving.predict did not write the file."""
    source = path(folder, patient)
    if not files.exists(source):
        return Facts()
    where = f"{source}: not the facts of {patient} that serving.predict writes; predict it again"
    return fields.from_json(Facts, json_files.read(source), where)


def read_of_table(folder: str, patient: str, organs: Organs) -> Facts:
    """Reads the facts of a case, with its organs in the order of the table; all if it names none.

    Raises:
      InputError: serving.predict did not write the file, or it names an organ that is not in the
        table.
    """
    facts = read(folder, patient)
    judged = facts.review.organs if facts.review else ()
    named = {*(facts.organs or ()), *(facts.postprocess or ()), *judged}
    for name in sorted(named - set(organs.names)):
        raise InputError(
            f"{path(folder, patient)}: the facts of {patient} name {name!r}, expected some of "
            f"{', '.join(organs.names)}; predict it again"
        )
    predicted = organs.names if facts.organs is None else facts.organs
    return replace(facts, organs=tuple(name for name in organs.names if name in predicted))
