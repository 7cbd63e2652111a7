"""Inspection: numbers that match the manifest, pictures that can be opened."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from cases import TINY_RECIPE, save, save_patients
from PIL import Image
from programs import run_entry

from beam_jobs import inspection
from beam_jobs.driver import Settings, build
from segthor import plots
from segthor.manifest import Dataset
from segthor.organs import SEGTHOR
from segthor.recipe import Recipe


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    source = save_patients(folder / "in", 5)
    build(Settings(source, str(folder / "out"), Recipe(**TINY_RECIPE), organs=SEGTHOR))
    return folder / "out"


def test_pictures_are_written_and_numbers_printed(built):
    done = run_entry("beam_jobs.inspect", data=built, patients=3)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "train          3 patients      48 slices" in said
    assert "validation     2 patients      32 slices" in said
    for name in ("slices.png", "normalization.png", "histograms.png"):
        picture = np.asarray(Image.open(built / "inspect" / name).convert("RGB"))
        assert min(picture.shape[:2]) > 100 and picture.std() > 10
    assert Dataset.load(str(built))  # the pictures' folder does not make the dataset a stranger
    build(Settings(str(built.parent / "in"), str(built), Recipe(**TINY_RECIPE), organs=SEGTHOR))


def test_the_slice_shown_is_the_one_with_most_organs(built):
    dataset = Dataset.load(str(built))
    record = inspection.find_fullest_slice(dataset.patients[0].patient, dataset, str(built))
    assert record.patient == dataset.patients[0].patient
    assert sum(record.present) >= 3


def test_a_ct_that_is_gone_is_left_out_and_said(built, tmp_path, capsys):
    dataset = Dataset.load(str(built))
    shown = [
        (one, inspection.find_fullest_slice(one.patient, dataset, str(built)))
        for one in dataset.patients[:2]
    ]
    (tmp_path / "moved").mkdir()
    gone = [(replace(shown[0][0], ct=str(tmp_path / "gone.nii")), shown[0][1]), shown[1]]
    assert (
        inspection.draw_normalization(gone, organs=SEGTHOR).shape[0]
        == inspection.draw_normalization(shown, organs=SEGTHOR).shape[0]
    )
    assert "gone.nii: cannot be read any more" in capsys.readouterr().err


def test_a_damaged_shard_or_another_scan_is_one_patients_trouble(built, tmp_path):
    shutil.copytree(built, tmp_path / "data")
    dataset = Dataset.load(str(built))
    first, second, *_ = dataset.patients
    path = tmp_path / "data" / dataset.shard_of(first.patient).file
    lost = dataset.shard_of(first.patient).patients
    path.write_bytes(path.read_bytes()[:1000])
    done = run_entry("beam_jobs.inspect", data=tmp_path / "data", output=tmp_path / "out")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.count("FAILED: ") == len(lost) and path.name in done.stderr
    cut = save(tmp_path / "cut.nii", np.zeros((48, 48, 3), np.int16), np.diag([9, 9, 9, 1.0]))
    record = inspection.find_fullest_slice(second.patient, dataset, str(built))
    shown = [(replace(second, ct=cut), record), (first, record)]
    healthy = inspection.draw_normalization(shown[1:], organs=SEGTHOR)
    np.testing.assert_array_equal(inspection.draw_normalization(shown, organs=SEGTHOR), healthy)


def test_an_organ_that_nobody_has_contours_of_has_an_empty_histogram(built, tmp_path):
    dataset = Dataset.load(str(built))
    heartless = []
    for one in dataset.patients:
        organs = {name: one.audit.organs[name] for name in one.audit.organs if name != "heart"}
        heartless.append(replace(one, audit=replace(one.audit, organs=organs)))
    shown = []
    for number, one in enumerate((replace(dataset, patients=tuple(heartless)), dataset)):
        plots.save(inspection.draw_histograms(one), str(tmp_path / f"{number}.png"))
        shown.append((tmp_path / f"{number}.png").read_bytes())
    assert shown[0] != shown[1] and shown[0].startswith(b"\x89PNG")
