"""`serving.Segmenter` gives what `serving.predict` writes, byte for byte, and its messages."""

import concurrent.futures
import inspect
import shutil

import dicom_phantoms as phantoms
import nibabel
import numpy as np
import programs
import pytest
from programs import run_entry
from test_predict import affine_of, planted, save_scan
from tiny_models import coded_scan, save_coded

import serving
from segthor import inputs
from segthor.errors import InputError
from serving.prediction.plan import Plan

PLANTED = {"Patient_01": ("RAS", planted(seed=1)), "Patient_02": ("LIP", planted(seed=2))}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_coded(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def segmenter(model):
    return serving.Segmenter(model)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """NIfTI scans in `scans`, a DICOM series in `series`, and the predictions of both."""
    folder = tmp_path_factory.mktemp("segmenter")
    for name, (axcodes, labels) in PLANTED.items():
        path = folder / "scans" / f"{name}.nii.gz"
        save_scan(path, coded_scan(labels), affine_of(axcodes, oblique_deg=4.0))
    (folder / "scans" / "Patient_03.nii.gz").write_bytes(b"not an image")
    hu, affine = phantoms.posed(coded_scan(planted(seed=3)), affine_of())
    phantoms.write_series(folder / "series" / "A", hu, affine)
    predict(model, folder / "scans", folder / "nifti", probabilities=True, status=1)
    predict(model, folder / "series", folder / "dicom", formats="nifti,rtstruct,seg")
    return folder


def predict(model, scans, output, status=0, **flags):
    done = run_entry("serving.predict", model=model, input=scans, output=output, **flags)
    assert done.returncode == status, done.stdout + done.stderr


def written(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("name", PLANTED)
def test_labels_are_the_planted_ones_in_the_order_of_the_file(segmenter, folder, name):
    path = folder / "scans" / f"{name}.nii.gz"
    result = segmenter(path)
    np.testing.assert_array_equal(result.labels, PLANTED[name][1])
    np.testing.assert_array_equal(result.affine, nibabel.load(path).affine)
    assert result.labels.dtype == np.uint8 and result.name == name
    assert result.organs == {"esophagus": 1, "heart": 2, "trachea": 3, "aorta": 4}
    voxel_cm3 = 1.0 * 1.1 * 2.5 / 1000
    expected = {n: np.sum(result.labels == v) * voxel_cm3 for n, v in result.organs.items()}
    assert result.volumes_cm3 == pytest.approx(expected, abs=0.0051)
    assert result.review.review in (True, False)


def test_files_are_those_of_predict_byte_for_byte(model, segmenter, folder, tmp_path):
    predict(model, folder / "scans", tmp_path / "program", status=1)
    for name in PLANTED:
        segmenter(folder / "scans" / f"{name}.nii.gz").write(tmp_path / "here")
    expected = written(tmp_path / "program")
    del expected["predictions.csv"], expected["cases/Patient_03.json"]  # the table; a failure
    assert written(tmp_path / "here") == expected


def test_dicom_objects_are_those_of_predict_byte_for_byte(segmenter, folder, tmp_path):
    result = segmenter(folder / "series")
    # The objects bear the time at which the folder of predictions was begun.
    (tmp_path / "here").mkdir()
    shutil.copy(folder / "dicom" / "predictions.json", tmp_path / "here")
    result.write(tmp_path / "here", ("nifti", "rtstruct", "seg"))
    expected = written(folder / "dicom")
    del expected["predictions.csv"]
    assert written(tmp_path / "here") == expected
    stored = nibabel.load(tmp_path / "here" / "A.nii.gz")
    np.testing.assert_array_equal(np.asarray(stored.dataobj), result.labels)
    np.testing.assert_allclose(stored.affine, result.affine)


@pytest.mark.parametrize("asked_first", [True, False])
def test_probabilities_are_those_of_predict(segmenter, folder, asked_first):
    result = segmenter(folder / "scans" / "Patient_01.nii.gz", probabilities=asked_first)
    for organ, values in result.probabilities().items():
        path = folder / "nifti" / "probabilities" / f"Patient_01_{organ}.nii.gz"
        np.testing.assert_array_equal(values, nibabel.load(path).dataobj.get_unscaled())


@pytest.mark.parametrize("dtype", [np.int16, np.float64, ">i2"])
def test_an_array_gives_the_labels_of_its_file(segmenter, folder, tmp_path, dtype):
    image = nibabel.load(folder / "scans" / "Patient_02.nii.gz")
    result = segmenter((np.asarray(image.dataobj).astype(dtype), image.affine), name="mine")
    np.testing.assert_array_equal(result.labels, PLANTED["Patient_02"][1])
    result.write(tmp_path / "out")
    stored = nibabel.load(tmp_path / "out" / "mine.nii.gz")
    np.testing.assert_array_equal(np.asarray(stored.dataobj), result.labels)
    np.testing.assert_allclose(stored.affine, image.affine, atol=1e-5)
    with pytest.raises(InputError, match="--formats=rtstruct needs DICOM images"):
        result.write(tmp_path / "out", ("nifti", "rtstruct"))


def test_several_threads_get_what_one_gets(segmenter, folder, tmp_path):
    paths = [folder / "scans" / f"{name}.nii.gz" for name in PLANTED] * 4

    def run(number):
        result = segmenter(paths[number], name=f"case_{number}")
        result.write(tmp_path / "out")
        return result.labels

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        results = list(threads.map(run, range(len(paths))))
    for path, labels in zip(paths, results, strict=True):
        np.testing.assert_array_equal(labels, PLANTED[path.name.split(".")[0]][1])
    assert len(list((tmp_path / "out").glob("case_*.nii.gz"))) == len(paths)


def test_an_unusable_scan_raises_the_line_of_predict(segmenter, folder):
    with pytest.raises(InputError) as raised:
        segmenter(str(folder / "scans" / "Patient_03.nii.gz"))
    facts = (folder / "nifti" / "cases" / "Patient_03.json").read_text()
    assert str(raised.value).partition("/scans/")[2] in facts
    array = np.zeros((8, 8, 8), np.int16)
    for scan, words in (
        ("nowhere.nii.gz", "nowhere.nii.gz: expected a folder"),
        (folder / "scans", r"expected one scan, found 3 \(Patient_01, Patient_02, Patient_03"),
        ((array[0], np.eye(4)), r"three axes, found int16 of shape \(8, 8\)"),
        ((array, np.zeros((4, 4))), "can be inverted"),
        ((array + 1j, np.eye(4)), "found complex128"),
        ((np.full((8, 8, 8), np.nan), np.eye(4)), "scan: 512 of the CT's voxels are not finite"),
    ):
        with pytest.raises(InputError, match=words):
            segmenter(scan)
    with pytest.raises(InputError, match="name: '../x' holds a /"):
        segmenter((array, np.eye(4)), name="../x")


def test_a_folder_of_other_results_is_refused_and_patients_are_taken(segmenter, folder, tmp_path):
    (tmp_path / "thesis.tex").touch()
    patients = inputs.find(str(folder / "scans"), organs=None)
    result = segmenter(patients[0])
    with pytest.raises(InputError, match="expected an empty folder"):
        result.write(tmp_path)
    with pytest.raises(InputError, match="expected an empty folder"):
        result.write(folder / "scans")
    with pytest.raises(InputError, match="formats: expected some of nifti"):
        result.write(tmp_path / "new", ("nrrd",))


def test_models_are_refused_as_by_predict(model):
    for arguments, words in (
        ({"model": "nowhere"}, "nowhere: expected a model directory"),
        ({"model": []}, "expected model directories, found nothing"),
        ({"model": model, "engine": "cuda"}, "engine: expected one of tensorflow, openvino"),
        ({"model": model, "level_model": [model]}, "leave it out"),
    ):
        with pytest.raises(InputError, match=words):
            serving.Segmenter(**arguments)


def test_the_choices_are_the_flags_of_predict_with_their_defaults():
    plan = Plan(output="", models=("model",))
    given = inspect.signature(serving.Segmenter).parameters
    renamed = {"level_model": "level_models"}
    for name, parameter in list(given.items())[1:]:
        assert parameter.default == getattr(plan, renamed.get(name, name)), name


def test_importing_the_package_loads_nothing_slow():
    code = (
        "import sys, serving, trainer\n"
        "print(*{'numpy', 'tensorflow', 'keras', 'tf_keras'} & set(sys.modules))\n"
        "assert 'Segmenter' in dir(serving)\n"
        "serving.Segmenter\n"
        "print('tensorflow' in sys.modules)\n"
    )
    done = programs.run(["-c", code], cold=True)
    assert done.stdout.split() == ["False"], done.stdout + done.stderr
