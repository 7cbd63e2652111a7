"""Contours that a network which never saw them is sure to contradict. Numpy and scipy only.

A voxel is in dispute where one of contour and network holds it for the organ, the network is sure,
and what the other holds for it is, within the slice, farther away than the organ's tolerance and
than a pixel: nobody argues about an edge. An organ's share in dispute is that of the voxels
that either of them holds for it. Some organs are harder than others, so that the ranking goes by
the share above the usual one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segthor.boxes import nonzero_box
from segthor.metrics import TOLERANCE_SLACK_MM
from segthor.organs import Organ, Organs

_SLICE_SHARE = 0.1  # in dispute, from which on a slice is in question
_CALLED = 0.5  # of what is disputed inside the contour, from which on it is said what it is called


@dataclass(frozen=True)
class Dispute:
    """What speaks against one organ's contour in one patient.

    share: 0 to 1, of the organ in dispute. empty, superfluous, moved: numbers from 0 of the slices
    in question where there is no contour and the network is sure of one, the other way round, and
    where both have one. called: what the network calls most of it, '' for no other organ.
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
        """All slices in question, numbered from 0, ascending."""
        return tuple(sorted((*self.empty, *self.superfluous, *self.moved)))


@dataclass(frozen=True)
class Suspect:
    """A dispute beside others of the same organ. usual: their median share."""

    dispute: Dispute
    usual: float

    @property
    def score(self) -> float:
        """How much more of the organ is in dispute than usual: what the ranking goes by."""
        return self.dispute.share - self.usual

    @property
    def reason(self) -> str:
        """In words, for a person."""
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


def measure(
    patient: str,
    truth: np.ndarray,
    predicted: np.ndarray,
    sure: np.ndarray,
    spacing_mm: tuple[float, float, float],
    organ: Organ,
    organs: Organs,
) -> Dispute:
    """Compares an organ's contour with a prediction.

    Args:
      patient: The patient's name.
      truth, predicted: uint8 [Z, Y, X], labels.
      sure: bool [Z, Y, X], where the prediction is.
      spacing_mm: Of z, y, x.
      organ: The one to compare; it was contoured.
      organs: Those that the network knows, for what it calls the organ otherwise.
    """
    box = nonzero_box((truth == organ.label) | (predicted == organ.label))
    first, truth, predicted, sure = box[0].start, truth[box], predicted[box], sure[box]
    true, found = truth == organ.label, predicted == organ.label
    disputed = sure & (true != found)
    tolerance_mm = max(organ.tolerance_mm, *spacing_mm[1:]) + TOLERANCE_SLACK_MM
    for z in np.flatnonzero(disputed.any((1, 2))):
        to_true, to_found = (_distance_mm(mask[z], spacing_mm[1:]) for mask in (true, found))
        disputed[z] &= np.where(true[z], to_found, to_true) > tolerance_mm
    counts, total = disputed.sum((1, 2)), (true | found).sum((1, 2))
    questioned = counts >= _SLICE_SHARE * np.maximum(total, 1)
    has_true, has_found = true.any((1, 2)), found.any((1, 2))
    return Dispute(
        patient,
        organ.name,
        float(counts.sum() / max(total.sum(), 1)),
        *(
            tuple(int(first + z) for z in np.flatnonzero(questioned & kind))
            for kind in (~has_true, has_true & ~has_found, has_true & has_found)
        ),
        called=_called(predicted[disputed & true], organs),
    )


def rank(disputes: Sequence[Dispute]) -> list[Suspect]:
    """All of them, the most suspicious first."""
    shares: dict[str, list[float]] = {}
    for one in disputes:
        shares.setdefault(one.organ, []).append(one.share)
    suspects = [Suspect(one, float(np.median(shares[one.organ]))) for one in disputes]
    return sorted(suspects, key=lambda s: (-s.score, s.dispute.patient, s.dispute.organ))


def runs_of(slices: Sequence[int]) -> list[tuple[int, int]]:
    """(first, last) of each run of neighbours among ascending numbers."""
    runs: list[tuple[int, int]] = []
    for number in slices:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return runs


def _distance_mm(mask: np.ndarray, pixel_mm) -> np.ndarray:
    """How far each pixel of a slice is from the mask; infinite where that is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return ndimage.distance_transform_edt(~mask, sampling=pixel_mm)


def _called(labels: np.ndarray, organs: Organs) -> str:
    """The other organ that most of these labels are; '' where most are background, or none."""
    counts = {organ.name: np.count_nonzero(labels == organ.label) for organ in organs}
    most = max(counts, key=counts.get)
    return most if len(labels) and counts[most] >= _CALLED * len(labels) else ""
