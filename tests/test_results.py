"""What may happen to a label map that a person corrected, to a scan's mark, and on a full disk."""

import json
import shutil
from unittest import mock

import dicom_phantoms as phantoms
import file_order
import numpy as np
import pytest
from test_predict import affine_of, planted, run_networks, run_parts
from tiny_models import coded_scan, save_coded

from segthor import files, inputs
from segthor.errors import InputError
from segthor.organs import SEGTHOR
from serving.prediction.case import predict_case
from serving.prediction.plan import Plan
from serving.prediction.results import stamp_of
from serving.prediction.worker import Worker

LABELS = planted()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_coded(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def predicted(model, tmp_path_factory):
    """A folder with a DICOM series `in/A` and its prediction `out`, with all DICOM objects."""
    folder = tmp_path_factory.mktemp("predicted")
    hu, affine = phantoms.posed(coded_scan(LABELS), affine_of())
    phantoms.write_series(folder / "in" / "A", hu, affine)
    run_all(model, folder)
    return folder


@pytest.fixture
def folder(predicted, tmp_path):
    return shutil.copytree(predicted, tmp_path / "copy", copy_function=shutil.copy2)


def worker_of(model, folder, **choices):
    formats = choices.pop("formats", ("nifti", "rtstruct", "seg"))
    worker = Worker(Plan(str(folder / "out"), (model,), formats=formats, **choices))
    worker.results.claim(worker.plan.overwrite, worker.plan.dicom_formats)
    return worker


def run_all(model, folder, **choices):
    worker, (case,) = (
        worker_of(model, folder, **choices),
        inputs.find(str(folder / "in"), organs=SEGTHOR),
    )
    run_parts(worker, case)


def case_of(model, folder, **choices):
    (case,) = inputs.find(str(folder / "in"), organs=SEGTHOR)
    return worker_of(model, folder, **choices), case


def retell(folder):
    """Has the facts of a copied folder name the scan's place in the copy."""
    path = folder / "out" / "cases" / "A.json"
    facts = json.loads(path.read_text())
    (case,) = inputs.find(str(folder / "in"), organs=SEGTHOR)
    path.write_text(json.dumps(facts | {"scan": stamp_of(case)}))


def correct(folder):
    """A person moves the organs by a voxel; returns the label map's bytes."""
    path = folder / "out" / "A.nii.gz"
    stored = file_order.read(str(path))
    file_order.write(str(path), np.roll(stored.array, 1, 0), stored.grid)
    return path.read_bytes()


def written(folder):
    root = folder / "out"
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["notes.txt", "A.nii.gz", "sub/drawn.dcm", ".DS_Store"])
def test_what_lands_beside_the_slices_changes_nothing_of_the_scan(model, folder, name):
    retell(folder)
    worker, case = case_of(model, folder)
    assert worker.is_finished(case)
    (folder / "in" / "A" / name).parent.mkdir(exist_ok=True)
    drawn = (folder / "out" / "dicom" / "A_rtstruct.dcm").read_bytes()
    (folder / "in" / "A" / name).write_bytes(drawn if name.endswith(".dcm") else b"notes")
    assert worker.is_finished(case)


def test_a_slice_that_changes_is_another_scan(model, folder):
    retell(folder)
    worker, case = case_of(model, folder)
    slices = sorted((folder / "in" / "A").iterdir())
    slices[3].write_bytes(slices[3].read_bytes() + b"\0\0")
    assert not worker.is_finished(case)


def test_a_correction_is_finished_and_outlives_every_repetition(model, folder):
    retell(folder)
    corrected = correct(folder)
    worker, case = case_of(model, folder)
    assert worker.is_finished(case)  # nothing about the scan is new
    before = written(folder)
    slices = sorted((folder / "in" / "A").iterdir())
    slices[3].write_bytes(slices[3].read_bytes() + b"\0\0")  # now it is
    more, _ = case_of(model, folder, formats=("nifti", "labelmap"))
    for one in (worker, more):
        assert not one.is_finished(case)
        with pytest.raises(InputError, match="A.nii.gz: was corrected .* --overwrite"):
            next(predict_case(one, case))
    assert (folder / "out" / "A.nii.gz").read_bytes() == corrected
    assert written(folder) == before
    run_all(model, folder, overwrite=True)
    assert (folder / "out" / "A.nii.gz").read_bytes() != corrected


def test_a_correction_made_while_the_case_is_predicted_stays(model, folder):
    worker, case = case_of(model, folder)
    parts = run_networks(worker, case)
    corrected = correct(folder)
    with pytest.raises(InputError, match="was corrected"):
        next(parts)
    assert (folder / "out" / "A.nii.gz").read_bytes() == corrected


@pytest.mark.parametrize("facts", [None, "{", '{"failed": "no memory"}'])
def test_a_label_map_without_facts_is_replaced_by_its_like_alone(model, folder, facts):
    noted = folder / "out" / "cases" / "A.json"
    noted.unlink() if facts is None else noted.write_text(facts)
    run_all(model, folder)  # gives the same bytes, so nothing is lost
    noted.unlink() if facts is None else noted.write_text(facts)
    corrected = correct(folder)
    with pytest.raises(InputError, match="put there by hand"):
        run_all(model, folder)
    assert (folder / "out" / "A.nii.gz").read_bytes() == corrected


@pytest.mark.parametrize("size", [0, 100])
def test_a_damaged_label_map_is_made_anew(model, folder, size):
    retell(folder)
    path = folder / "out" / "A.nii.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    worker, case = case_of(model, folder)
    assert not worker.is_finished(case)
    run_all(model, folder)
    assert path.read_bytes() == whole


def full_disk_at(name):
    """`files.move` and writes of a file whose final name ends so fail, as on a full disk."""
    whole = files.atomic_write

    def fails(path, *others, **options):
        if path.endswith(name):
            raise OSError(28, "No space left on device", path)
        return whole(path, *others, **options)

    return mock.patch("segthor.files.atomic_write", fails)


@pytest.mark.parametrize("name", ["_rtstruct.dcm", "_seg.dcm", "A.nii.gz", "A.json"])
@pytest.mark.parametrize("before", [False, True])
def test_a_full_disk_leaves_no_object_without_its_label_map(model, folder, name, before):
    if not before:
        shutil.rmtree(folder / "out")
    worker, case = case_of(model, folder)
    earlier = written(folder)
    parts = run_networks(worker, case)
    with full_disk_at(name), pytest.raises(OSError, match="No space left"):
        next(parts)
    assert written(folder) == earlier  # all of an earlier try, or nothing
    assert ("dicom/A_seg.dcm" in earlier) is before


def test_what_was_unusual_in_a_series_is_among_the_facts_of_its_prediction(model, tmp_path):
    """A doubt of the reader's reaches the facts, and with them the report."""
    hu, affine = phantoms.posed(coded_scan(LABELS), affine_of(), tilt_degrees=12.0)
    phantoms.write_series(tmp_path / "in" / "A", hu, affine)
    run_all(model, tmp_path, formats=("nifti",))
    facts = json.loads((tmp_path / "out" / "cases" / "A.json").read_text())
    assert "series_tilted" in [finding["code"] for finding in facts["findings"]]
