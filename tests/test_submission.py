"""The challenge's zip."""

import io
import zipfile

import nibabel
import numpy as np
import pytest
from programs import run_entry
from tiny_models import at_work_in, killed_while_writing

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


def submit(folder, output="entry.zip"):
    return run_entry(
        "serving.submission",
        predictions=folder / "predictions",
        scans=folder / "scans",
        output=folder / output,
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


@pytest.mark.parametrize(
    "output", ["predictions", "scans/Patient_41.nii.gz", "list.csv", "folder.zip", "new"]
)
def test_the_zip_is_never_written_over_anything_else(folders, output):
    (folders / "folder.zip").mkdir()
    (folders / "list.csv").write_text("patient,ct")
    before = {p: p.read_bytes() for p in folders.rglob("*") if p.is_file()}
    done = submit(folders, output)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "expected the name of a file that ends in .zip" in line
    assert {p: p.read_bytes() for p in folders.rglob("*") if p.is_file()} == before


def test_the_next_run_clears_what_a_killed_one_left_and_a_living_one_is_left_alone(folders):
    for name in ("entry.zip", "other.zip"):
        killed_while_writing(folders / name)
    with at_work_in(folders):
        done = submit(folders)
        assert done.returncode == 2 and "another process is writing there" in done.stderr
        assert len(list(folders.glob(".partial-*"))) == 2
    assert submit(folders).returncode == 0
    (left,) = folders.glob(".partial-*")
    assert left.name.endswith("-other.zip")


def test_rounded_labels_are_submitted_with_a_warning(folders):
    path = folders / "predictions" / "Patient_42.nii.gz"
    array = np.asarray(nibabel.load(path).dataobj)
    nibabel.save(nibabel.Nifti1Image(array * 1.0000001, AFFINE), path)
    done = submit(folders)
    assert done.returncode == 0, done.stderr
    assert f"warning: {path}: label values up to 4e-07 off" in done.stdout
    with zipfile.ZipFile(folders / "entry.zip") as archive:
        image = nibabel.Nifti1Image.from_stream(io.BytesIO(archive.read("Patient_42.nii")))
        assert image.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(np.asarray(image.dataobj), array)


def test_why_a_case_failed_and_whose_scan_is_absent_are_said(folders):
    (folders / "predictions" / "Patient_42.nii.gz").rename(folders / "predictions" / "X.nii.gz")
    (folders / "predictions" / "cases").mkdir()
    (folders / "predictions" / "cases" / "Patient_42.json").write_text('{"failed": "truncated"}')
    done = submit(folders)
    assert done.returncode == 2
    assert "Patient_42: failed in prediction: truncated" in done.stderr
    (folders / "scans" / "Patient_42.nii.gz").unlink()
    assert "label maps without a scan are left out: X" in submit(folders).stdout


def test_a_name_that_leads_out_of_the_zip_makes_no_entry(folders):
    (folders / "list.csv").write_text("patient,ct\n../x,scans/Patient_41.nii.gz\n")
    (folders / "x.nii.gz").write_bytes((folders / "predictions/Patient_41.nii.gz").read_bytes())
    done = run_entry(
        "serving.submission",
        predictions=folders / "predictions",
        scans=folders / "list.csv",
        output=folders / "entry.zip",
    )
    assert done.returncode == 2
    assert not (folders / "entry.zip").exists()
