"""What is known about one predicted case: `cases/PATIENT.json` beside the label maps."""

from dataclasses import dataclass, fields, replace

from segthor import fields as json_fields
from segthor import files, json_files
from segthor.errors import InputError
from segthor.findings import Finding
from segthor.organs import Organs


@dataclass(frozen=True)
class Change:
    """What post-processing did to one organ.

    removed_cm3: Volume that was removed.
    filled_cm3: Volume of the holes that were filled.
    removed_pieces: Number of pieces that were removed.
    """

    removed_cm3: float
    filled_cm3: float
    removed_pieces: int = 0


@dataclass(frozen=True)
class Evidence:
    """How the prediction was made; see `serving.review.evidence`.

    scan: Figure of the scan to its value and z-score.
    organs: Organ to its evidence; empty for an organ that is not there.
    """

    scan: dict[str, tuple[float, float]]
    organs: dict[str, dict]


@dataclass(frozen=True, kw_only=True)
class OrganJudgement:
    """What is expected of one predicted organ.

    expected_dice: Expected Dice; None: the models store no calibration.
    lower_dice: What the Dice reaches in `calibration.COVERAGE` of such cases.
    expected_surface_dice: The same of the surface Dice.
    lower_surface_dice: The same of the surface Dice.
    review: Whether a person should look at the organ.
    reason: What of its evidence is unusual, in words.
    slices: The slices to look at first, counted from 1 from the feet.
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
    """What is expected of one case.

    calibrated: Whether the models store a calibration of every organ.
    recall: Share of the bad predictions that reviews are to catch.
    review: Whether a person should open the case.
    reason: Why, in words.
    unlike_training: Whether the scan is unlike the training data.
    expected_dice: The lowest expected Dice of an organ.
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
    """One case's facts; None: not known, as of a case that was not tried or came another way.

    job: Digest of the settings of the job that made the label map.
    scan: Path of the scan, and its stamp from before it was read.
    label_map: Name and SHA-256 of the label map's file, as the job wrote it.
    uneven: Of a scan with uneven planes, what became of the label map in NIfTI.
    organs: Organs that the models outline, whether they are there or not.
    engine: What computed the networks.
    level_hu: Window level of the (first) network.
    width_hu: Window width of the (first) network.
    volumes_cm3: Organ to its volume.
    findings: What the audit says of scan and label map.
    postprocess: Organ to what post-processing changed.
    evidence: What the review is judged by.
    review: Whether a person should open the case, and why.
    objects: DICOM format to whether there was something to write.
    failed: Why the last try gave no label map.
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
        """Writes what is known of a case."""
        self.write(path(folder, patient))

    def write(self, place: str) -> None:
        """Writes what is known to a file."""
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        known = {name: value for name, value in known.items() if value is not None}
        json_files.write(place, known)


def path(folder: str, patient: str) -> str:
    """Where a case's facts are stored."""
    return files.inside(files.join(folder, "cases"), f"{patient}.json")


def read(folder: str, patient: str) -> Facts:
    """The facts of a case; raises InputError for a file that no prediction job wrote."""
    place = path(folder, patient)
    if not files.exists(place):
        return Facts()
    where = f"{place}: not the facts of {patient} that serving.predict writes; predict it again"
    return json_fields.from_json(Facts, json_files.read(place), where)


def read_of_table(folder: str, patient: str, organs: Organs) -> Facts:
    """The facts with the predicted organs in the table's order: all of them where none are noted.

    Raises:
      InputError: a file that no prediction job wrote, or that names an organ the table lacks.
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
