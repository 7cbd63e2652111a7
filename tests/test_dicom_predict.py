"""Prediction on DICOM: the label map lies on the CT's grid, however the patient lay."""

import nibabel
import numpy as np
import pytest
from test_predict import affine_of, planted, run_parts
from tiny_models import coded_scan, save_coded

from segthor import inputs
from serving.prediction.plan import Plan
from serving.prediction.worker import Worker
from tests import dicom_phantoms


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    model = save_coded(tmp_path_factory.mktemp("model"))
    output = str(tmp_path_factory.mktemp("out") / "predictions")
    return Worker(Plan(output=output, models=(str(model),)))


@pytest.mark.parametrize("pose", ["HFS", "FFP", "HFDR"])
@pytest.mark.parametrize("tilt", [0, 12])
def test_what_was_planted_comes_back_on_the_grid_of_the_slices(worker, tmp_path, pose, tilt):
    made = planted(seed=tilt)
    labels, affine = dicom_phantoms.posed(made, affine_of(), pose, tilt)
    hu, _ = dicom_phantoms.posed(coded_scan(made), affine_of(), pose, tilt)
    folder = tmp_path / f"{pose}{tilt}"
    dicom_phantoms.write_series(folder, hu, affine, patient_position=pose)
    (case,) = inputs.find(str(tmp_path), organs=None)
    run_parts(worker, case)
    found = nibabel.load(worker.results.path(case))
    assert case.name == folder.name and worker.results.path(case).endswith(".nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), labels)
    np.testing.assert_allclose(found.affine, affine, atol=1e-4)
