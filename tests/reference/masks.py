"""Draws the reference masks: boxes whose scores can be worked out by hand (docs/reference.md).

  python -m tests.reference.masks FOLDER

writes FOLDER/truth/*.nii.gz and FOLDER/prediction/*.nii.gz. answers.csv, beside this module, holds
the exact score of each organ. It was worked out on paper, not computed by this project.
"""

import sys
from pathlib import Path

import nibabel
import numpy as np

SHAPE_XYZ = (24, 20, 12)
# Distances along diagonals are whole numbers: 3, 4, 5 in plane and 5, 12, 13 across planes.
SPACING_MM = (3.0, 4.0, 12.0)
LABELS = {"esophagus": 1, "heart": 2, "trachea": 3, "aorta": 4}


def _box(x, y, z) -> np.ndarray:
    """bool [X, Y, Z]; each argument is (first, end) of the voxels along one axis."""
    mask = np.zeros(SHAPE_XYZ, bool)
    mask[slice(*x), slice(*y), slice(*z)] = True
    return mask


_NONE = np.zeros(SHAPE_XYZ, bool)
_ROW, _STRAY = _box((2, 21), (15, 16), (1, 2)), _box((20, 21), (15, 16), (2, 3))
_CUBE, _CENTRE = _box((5, 8), (5, 8), (3, 6)), _box((6, 7), (6, 7), (4, 5))
_COLUMN, _THIRD = _box((15, 16), (10, 11), (1, 6)), _box((15, 16), (10, 11), (3, 4))
# Patient -> organ -> (truth, prediction).
CASES = {
    "first": {
        "esophagus": (_box((2, 6), (2, 6), (2, 5)), _box((2, 6), (2, 6), (2, 5))),
        "heart": (_box((11, 12), (11, 12), (6, 7)), _box((10, 11), (10, 11), (5, 6))),
        "trachea": (_box((2, 6), (12, 13), (1, 2)), _box((3, 7), (12, 13), (1, 2))),
        "aorta": (_box((15, 16), (2, 6), (1, 2)), _box((15, 16), (3, 7), (1, 2))),
    },
    "second": {
        "esophagus": (_box((5, 10), (5, 10), (3, 8)), _box((6, 9), (6, 9), (4, 7))),
        "heart": (_ROW, _ROW | _STRAY),
        "trachea": (_box((14, 16), (2, 3), (8, 9)), _NONE),
        "aorta": (_NONE, _box((14, 16), (4, 5), (8, 9))),
    },
    "third": {
        "esophagus": (_CUBE, _CUBE & ~_CENTRE),
        "heart": (_NONE, _NONE),
        "trachea": (_COLUMN, _COLUMN & ~_THIRD),
        "aorta": (_box((15, 17), (15, 17), (8, 10)), _box((16, 18), (16, 18), (8, 10))),
    },
}


def label_map(patient: str, which: int) -> np.ndarray:
    """uint8 [X, Y, Z]; which: 0 for the truth, 1 for the prediction."""
    labels = np.zeros(SHAPE_XYZ, np.uint8)
    for organ, masks in CASES[patient].items():
        labels[masks[which]] = LABELS[organ]
    return labels


def write(folder) -> None:
    """Writes truth/ and prediction/, one NIfTI label map for each patient."""
    # NIfTI's axes point right, anterior and superior; the masks' to the left, back and up.
    affine = np.diag([*SPACING_MM, 1.0]) * [-1, -1, 1, 1]
    for which, name in enumerate(("truth", "prediction")):
        (Path(folder) / name).mkdir(parents=True, exist_ok=True)
        for patient in CASES:
            image = nibabel.Nifti1Image(label_map(patient, which), affine)
            nibabel.save(image, Path(folder) / name / f"{patient}.nii.gz")


if __name__ == "__main__":
    write(sys.argv[1])
