"""A label map on the CT's voxels counts whatever order of axes its file has."""

import itertools

import nibabel
import numpy as np
import pytest
from damage import healthy_phantom
from dicom_damage import healthy

from segthor import scans
from segthor.organs import SEGTHOR

ORDERS = list(itertools.permutations(range(3)))


@pytest.mark.parametrize("flips", [(), (0,), (0, 1, 2)])
@pytest.mark.parametrize("order", ORDERS)
def test_a_label_map_in_another_order_of_axes_is_turned(tmp_path, order, flips):
    healthy(tmp_path)
    made = healthy_phantom()
    plain = nibabel.Nifti1Image(made.labels.astype(np.uint8), made.affine)
    flipped = [[axis, -1 if axis in flips else 1] for axis in range(3)]
    turned = plain.as_reoriented(np.array([flipped[axis] for axis in order]))
    turned.to_filename(tmp_path / "labels.nii.gz")
    place = str(tmp_path / "ct")
    like = place, scans.read_grid(place)
    found = scans.read_labels(str(tmp_path / "labels.nii.gz"), like, organs=SEGTHOR)
    truth = scans.read_labels(str(tmp_path / "rs.dcm"), like, ct=place, organs=SEGTHOR)
    np.testing.assert_array_equal(found.zyx, truth.zyx)
