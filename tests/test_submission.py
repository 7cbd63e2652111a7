"""The challenge's zip."""

import io
import zipfile

import nibabel
import numpy as np
import pytest
from tiny_models import run_entry

AFFINE = np.array([[-0.98, 0, 0, 250], [0, -0.98, 0, 250], [0, 0, 2.5, -500], [0, 0, 0, 1]])


@pytest.fixture
def folders(tmp_path):
    rng = np.random.default_rng(0)
    for number in (41, 42):
        for folder, array, name in (
            ("scans", rng.integers(-1000, 400, (12, 11, 10)).astype(np.int16), ".nii.gz"),
            ("predictions", rng.integers(0, 5, (12, 11, 10)).astype(np.uint8), ".nii.gz"),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            image = nibabel.Nifti1Image(array, AFFINE)
            image.set_qform(AFFINE, 2)
            nibabel.save(image, tmp_path / folder / f"Patient_{number}{name}")
    return tmp_path


def submit(folder):
    return run_entry(
        "serving.submission",
        predictions=folder / "predictions",
        scans=folder / "scans",
        output=folder / "entry.zip",
    )


def test_the_zip_holds_uncompressed_label_maps_on_the_scans_grids_at_its_root(folders):
    done = submit(folders)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(folders / "entry.zip") as archive:
        assert archive.namelist() == ["Patient_41.nii", "Patient_42.nii"]
        for name in archive.namelist():
            image = nibabel.Nifti1Image.from_stream(io.BytesIO(archive.read(name)))
            scan = nibabel.load(folders / "scans" / f"{name}.gz")
            predicted = nibabel.load(folders / "predictions" / f"{name}.gz")
            assert image.get_data_dtype() == np.uint8
            np.testing.assert_array_equal(image.affine, scan.affine)
            assert image.header["qform_code"] == scan.header["qform_code"]
            np.testing.assert_array_equal(np.asarray(image.dataobj), np.asarray(predicted.dataobj))
    assert "without Patient_43" in done.stdout
    before = (folders / "entry.zip").read_bytes()
    submit(folders)
    assert (folders / "entry.zip").read_bytes() == before


def test_what_cannot_be_submitted_is_one_line_and_no_zip(folders):
    good = nibabel.load(folders / "predictions" / "Patient_42.nii.gz")
    array = np.asarray(good.dataobj)
    for image, words in (
        (nibabel.Nifti1Image(array[:-1], AFFINE), "11x11x10"),
        (nibabel.Nifti1Image(array, np.diag([-0.98, -0.98, 2.5, 1])), "mm off"),
        (nibabel.Nifti1Image(array + np.uint8(9), AFFINE), "stand for no organ"),
        (None, "no label map for Patient_42"),
    ):
        (folders / "predictions" / "Patient_42.nii.gz").unlink()
        if image:
            nibabel.save(image, folders / "predictions" / "Patient_42.nii.gz")
        done = submit(folders)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert words in line and "Patient_42" in line
        assert sorted(path.name for path in folders.iterdir()) == ["predictions", "scans"]


def test_an_empty_organ_is_said_aloud(folders):
    path = folders / "predictions" / "Patient_41.nii.gz"
    array = np.asarray(nibabel.load(path).dataobj).copy()
    array[array == 3] = 0
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)
    assert "trachea EMPTY" in submit(folders).stdout
