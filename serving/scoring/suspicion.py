"""Ranks contours by how much a network that was not trained on them disagrees with them.

A voxel is in dispute if it belongs to the organ in only one of contour and prediction, the network
is sure of it, and the organ in the other is farther away within the slice than the organ's
tolerance and than a pixel (differences at an edge do not count). The share of an organ in dispute
is relative to the voxels that belong to it in either. Since some organs are harder than others, the
ranking uses the difference to the usual share. Only numpy and scipy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segthor.boxes import nonzero_box
from segthor.metrics import TOLERANCE_SLACK_MM, without
from segthor.organs import Organ, Organs
from segthor.volume import LabelMap

_SLICE_SHARE = 0.1  # share in dispute from which a slice is listed
_CALLED_SHARE = 0.5  # share of disputed voxels with one other label from which that is mentioned


@dataclass(frozen=True)
class Dispute:
    """The dispute about one organ's contour in one patient. Slices are numbered from 0.

    patient: Name of the patient.
    organ: Name of the organ.
    share: Share of the organ in dispute, 0 to 1.
    empty: Slices in question with a prediction and no contour.
    superfluous: Slices in question with a contour and no prediction.
    moved: Slices in question with both.
    called: The other organ that the network predicts for most of the disputed voxels, or ''.
    """

    patient: str
    organ: str
    share: float
    empty: tuple[int, ...] = ()
    superfluous: tuple[int, ...] = ()
    moved: tuple[int, ...] = ()
    called: str = ""

    @property
    def slices(self) -> tuple[int, ...]:
        """All slices in question, ascending."""
        return tuple(sorted((*self.empty, *self.superfluous, *self.moved)))


@dataclass(frozen=True)
class Suspect:
    """A dispute compared with those of the same organ in other patients.

    dispute: The dispute.
    usual: Median share of the organ in dispute over all patients.
    """

    dispute: Dispute
    usual: float

    @property
    def score(self) -> float:
        """Share in dispute above the usual one, by which contours are ranked."""
        return self.dispute.share - self.usual

    @property
    def reason(self) -> str:
        """The reason in words."""
        one = self.dispute
        parts = [f"{one.share:.0%} of the organ in dispute, usually {self.usual:.0%}"]
        if one.called:
            parts.append(f"most of it is called {one.called}")
        for slices, words in (
            (one.empty, "no contour in {} where one is expected"),
            (one.superfluous, "a contour in {} where none is expected"),
            (one.moved, "another outline in {}"),
        ):
            if slices:
                count = len(slices)
                parts.append(words.format(f"{count} slice{'s' if count > 1 else ''}"))
        return "; ".join(parts)


def measure(patient: str, truth: LabelMap, prediction, organ: Organ, organs: Organs) -> Dispute:
    """Compares an organ's contour with a prediction; ignored voxels are not in dispute.

    patient: Name of the patient.
    truth: The contours.
    prediction: `serving.prediction.out_of_fold.SurePrediction`, on the same grid.
    organ: The organ to compare, which is contoured.
    organs: The organs that the network knows.
    """
    predicted = without(truth.left_out, prediction.predicted)
    box = nonzero_box((truth.zyx == organ.label) | (predicted == organ.label))
    true, positive = truth.zyx[box] == organ.label, predicted[box] == organ.label
    disputed = prediction.sure[box] & (true != positive)
    _accept_near_voxels(disputed, true, positive, organ, truth.grid.spacing_mm[1:])
    counts, total = disputed.sum((1, 2)), (true | positive).sum((1, 2))
    questioned = counts >= _SLICE_SHARE * np.maximum(total, 1)
    has_true, has_positive = true.any((1, 2)), positive.any((1, 2))
    return Dispute(
        patient,
        organ.name,
        float(counts.sum() / max(total.sum(), 1)),
        *(
            tuple(int(box[0].start + z) for z in np.flatnonzero(questioned & kind))
            for kind in (~has_true, has_true & ~has_positive, has_true & has_positive)
        ),
        called=_other_organ(predicted[box][disputed & true], organs),
    )


def _accept_near_voxels(disputed, true, positive, organ: Organ, pixel_mm) -> None:
    """Ends the dispute, in place, where the other map has the organ within the tolerance."""
    tolerance_mm = max(organ.tolerance_mm, *pixel_mm) + TOLERANCE_SLACK_MM
    for z in np.flatnonzero(disputed.any((1, 2))):
        to_true, to_positive = (_distance_mm(mask[z], pixel_mm) for mask in (true, positive))
        disputed[z] &= np.where(true[z], to_positive, to_true) > tolerance_mm


def rank(disputes: Sequence[Dispute]) -> list[Suspect]:
    """Ranks all disputes, the most suspicious contour first."""
    shares: dict[str, list[float]] = {}
    for one in disputes:
        shares.setdefault(one.organ, []).append(one.share)
    suspects = [Suspect(one, float(np.median(shares[one.organ]))) for one in disputes]
    return sorted(suspects, key=lambda s: (-s.score, s.dispute.patient, s.dispute.organ))


def group_runs(slices: Sequence[int]) -> list[tuple[int, int]]:
    """Groups ascending numbers into runs of consecutive ones; returns first and last of each."""
    runs: list[tuple[int, int]] = []
    for number in slices:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return runs


def _distance_mm(mask: np.ndarray, pixel_mm) -> np.ndarray:
    """Distance of each pixel of a slice from the mask; infinite if the mask is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return ndimage.distance_transform_edt(~mask, sampling=pixel_mm)


def _other_organ(labels: np.ndarray, organs: Organs) -> str:
    """Name of the organ that most of these labels belong to; '' if there is none."""
    counts = {organ.name: np.count_nonzero(labels == organ.label) for organ in organs}
    most = max(counts, key=counts.get)
    return most if len(labels) and counts[most] >= _CALLED_SHARE * len(labels) else ""
