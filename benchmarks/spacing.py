"""Measures how Dice changes when one scan is resampled to other slice spacings.

Run from the project's root:
  python -m benchmarks.spacing --model=MODEL --scan=CT.nii.gz --labels=LABELS.nii.gz

The scan is interpolated linearly along z, its labels by the nearest slice, to each spacing of
--spacings_mm. The model predicts every copy, and the prediction is compared with the labels of the
copy. Organs without labels are left out.
"""

import sys
import tempfile

import nibabel
import numpy as np
from absl import app, flags

import serving
from segthor.organs import SEGTHOR

MODEL = flags.DEFINE_string("model", None, "Folder of an exported model.", required=True)
SCAN = flags.DEFINE_string("scan", None, "The scan, NIfTI.", required=True)
LABELS = flags.DEFINE_string("labels", None, "Its labels, NIfTI.", required=True)
SPACINGS_MM = flags.DEFINE_list("spacings_mm", ["1", "1.5", "2", "3", "5"], "Slice spacings.")
LARGE_CM3, MOST_LARGE, MOST_SMALL = 100, 0.01, 0.02  # the movement of Dice that is allowed


def main(_) -> int:
    """Prints a row per spacing; 1 where Dice moves by more than allowed."""
    segmenter = serving.Segmenter(MODEL.value)
    scan, labels = (
        nibabel.as_closest_canonical(nibabel.load(path)) for path in (SCAN.value, LABELS.value)
    )
    truth = np.asarray(labels.dataobj)
    names = [name for name in SEGTHOR.names if (truth == SEGTHOR.labels([name])[0]).any()]
    voxel_cm3 = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
    own_mm = float(np.linalg.norm(scan.affine[:3, 2]))
    print(f"{'spacing mm':>12}" + "".join(f"{name:>12}" for name in names))
    rows = {}
    for spacing_mm in [own_mm, *map(float, SPACINGS_MM.value)]:
        rows[spacing_mm] = score(segmenter, *copies(scan, labels, spacing_mm), names)
        print(f"{spacing_mm:12g}" + "".join(f"{dice:12.4f}" for dice in rows[spacing_mm]))
    missed = 0
    for name, dice in zip(names, zip(*rows.values(), strict=True), strict=True):
        volume_cm3 = (truth == SEGTHOR.labels([name])[0]).sum() * voxel_cm3
        most = MOST_LARGE if volume_cm3 >= LARGE_CM3 else MOST_SMALL
        moved = max(abs(value - dice[0]) for value in dice)
        missed += moved > most
        print(f"{name}: {volume_cm3:.0f} cm3, Dice moves by at most {moved:.4f}; allowed {most}")
    return int(missed > 0)


def copies(scan, labels, spacing_mm: float):
    """The scan and its labels with another slice spacing, as nibabel images."""
    slices, own_mm = scan.shape[2], float(np.linalg.norm(scan.affine[:3, 2]))
    count = int(np.floor((slices - 1) * own_mm / spacing_mm + 1e-6)) + 1
    positions = np.minimum(np.arange(count) * spacing_mm / own_mm, slices - 1)
    lower = np.minimum(positions.astype(int), slices - 2)
    upper_share = (positions - lower).astype(np.float32)
    hu, voxels = np.asarray(scan.dataobj), np.asarray(labels.dataobj)
    copy = np.empty((*hu.shape[:2], count), np.int16)
    for index, (first, share) in enumerate(zip(lower, upper_share, strict=True)):
        copy[..., index] = np.rint(hu[..., first] * (1 - share) + hu[..., first + 1] * share)
    affine = scan.affine.copy()
    affine[:3, 2] *= spacing_mm / own_mm
    nearest = voxels[..., np.rint(positions).astype(int)]
    return nibabel.Nifti1Image(copy, affine), nibabel.Nifti1Image(nearest, affine)


def score(segmenter, scan, labels, names) -> list[float]:
    """Dice of each organ."""
    with tempfile.TemporaryDirectory() as folder:
        nibabel.save(scan, f"{folder}/scan.nii.gz")
        segmenter(f"{folder}/scan.nii.gz").write(f"{folder}/out")
        predicted = np.asarray(nibabel.load(f"{folder}/out/scan.nii.gz").dataobj)
    truth, dice = np.asarray(labels.dataobj), []
    for name in names:
        ours, true = (volume == SEGTHOR.labels([name])[0] for volume in (predicted, truth))
        dice.append(2 * (ours & true).sum() / (ours.sum() + true.sum()))
    return dice


if __name__ == "__main__":
    app.run(lambda argv: sys.exit(main(argv)))
