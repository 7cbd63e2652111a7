"""Discovery: every layout that SegTHOR and nnU-Net come in, and nothing guessed."""

import json

import pytest
from cases import touch

from segthor.errors import InputError
from segthor.inputs import Patient, in_folder, with_masks
from segthor.table import in_csv


def found(root):
    """{patient: (CT, contours)} relative to the root."""
    strip = len(str(root)) + 1
    return {s.patient: (s.ct[strip:], s.labels[strip:]) for s in in_folder(str(root)).sources}


def test_segthors_layout(tmp_path):
    for name in ("Patient_02", "Patient_01"):
        touch(tmp_path / "train" / name / f"{name}.nii.gz")
        touch(tmp_path / "train" / name / "GT.nii.gz")
    touch(tmp_path / "test" / "Patient_41.nii.gz")
    touch(tmp_path / "test_labels" / "Patient_41.nii.gz")
    touch(tmp_path / "phantoms.json")
    assert found(tmp_path) == {
        "Patient_01": ("train/Patient_01/Patient_01.nii.gz", "train/Patient_01/GT.nii.gz"),
        "Patient_02": ("train/Patient_02/Patient_02.nii.gz", "train/Patient_02/GT.nii.gz"),
        "Patient_41": ("test/Patient_41.nii.gz", ""),
    }
    assert [s.patient for s in in_folder(str(tmp_path)).sources] == sorted(found(tmp_path))
    assert set(found(tmp_path / "train")) == {"Patient_01", "Patient_02"}
    assert found(tmp_path / "test") == {"Patient_41": ("Patient_41.nii.gz", "")}


@pytest.mark.parametrize(
    ("ct", "gt"),
    [
        ("Patient_01.nii", "GT.nii"),
        ("Patient_01.nii.gz", "gt.nii.gz"),
        ("PATIENT_01.NII.GZ", "Gt.Nii.gz"),
        ("Patient_01.nii.gz", "GT_01.nii.gz"),
    ],
)
def test_suffix_and_case_do_not_matter(tmp_path, ct, gt):
    touch(tmp_path / "Train" / "Patient_01" / ct)
    touch(tmp_path / "Train" / "Patient_01" / gt)
    assert found(tmp_path) == {"Patient_01": (f"Train/Patient_01/{ct}", f"Train/Patient_01/{gt}")}


def test_numbered_contours_beside_flat_scans(tmp_path):
    for name in ("Patient_01", "GT_01", "Patient_10", "gt10", "Patient_03"):
        touch(tmp_path / f"{name}.nii.gz")
    assert found(tmp_path) == {
        "Patient_01": ("Patient_01.nii.gz", "GT_01.nii.gz"),
        "Patient_10": ("Patient_10.nii.gz", "gt10.nii.gz"),
        "Patient_03": ("Patient_03.nii.gz", ""),
    }


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "Aorta": 1, "heart": 7, "lung": 2},
        {"0": "background", "1": "aorta", "7": "Heart", "2": "lung"},
    ],
)
def test_nnunets_layout_and_its_label_values(tmp_path, labels):
    for name in ("imagesTr/a_0000", "labelsTr/a", "imagesTr/b_b_0000", "labelsTr/b_b",
                 "imagesTs/c_0000"):  # fmt: skip
        touch(tmp_path / f"{name}.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert found(tmp_path) == {
        "a": ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"),
        "b_b": ("imagesTr/b_b_0000.nii.gz", "labelsTr/b_b.nii.gz"),
        "c": ("imagesTs/c_0000.nii.gz", ""),
    }
    everything = in_folder(str(tmp_path))
    assert everything.label_values == (("heart", 7), ("aorta", 1))
    assert {s.organs for s in everything.sources} == {("heart", "aorta")}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "expected at least one scan, found none; looked for train/"),
        (["notes.txt"], "expected at least one scan"),
        (["train/P/a.nii", "train/P/b.nii", "train/P/GT.nii"], "whose contours GT.nii"),
        (["train/P/ct.nii", "train/P/labels.nii"], "a CSV can say which is which"),
        (["GT.nii.gz"], "whose contours GT.nii.gz"),
        (["Patient_01.nii", "GT_02.nii"], "GT_02.nii has no CT of its number"),
        (["Patient_01.nii", "Scan_01.nii", "GT_01.nii"], "contours of Patient_01.nii or of Scan"),
        (["train/P/P.nii", "train/P/GT.nii", "test/P.nii"], "two patients are named P"),
        (["imagesTr/a_0000.nii", "labelsTr/a.nii"], "labelsTr and dataset.json"),
        (["imagesTr/a_0000.nii", "train/P/P.nii"], "name one of them"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_said_not_guessed(tmp_path, names, said):
    for name in names:
        touch(tmp_path / name)
    with pytest.raises(InputError, match=said):
        in_folder(str(tmp_path))


@pytest.mark.parametrize(
    ("image", "labels", "said"),
    [
        ("a_0001", {"heart": 1}, "NAME_0000"),
        ("a", {"heart": 1}, "NAME_0000"),
        ("a_0000", {"lung": 1}, "esophagus, heart"),
        ("a_0000", ["heart"], "esophagus, heart"),
    ],
)
def test_an_nnunet_folder_of_another_kind_is_refused(tmp_path, image, labels, said):
    touch(tmp_path / "imagesTr" / f"{image}.nii.gz")
    touch(tmp_path / "labelsTr" / "a.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(InputError, match=said):
        in_folder(str(tmp_path))


def test_masks_are_matched_by_patient_or_scan(tmp_path):
    sources = [Patient("A", "x/ct_a.nii.gz"), Patient("B", "x/ct_b.nii.gz"), Patient("C", "c.nii")]
    for name in ("A.nii.gz", "ct_b.nii"):
        touch(tmp_path / name)
    masks = [source.masks for source in with_masks(sources, str(tmp_path))]
    assert masks == [str(tmp_path / "A.nii.gz"), str(tmp_path / "ct_b.nii"), ""]
    with pytest.raises(InputError, match="found none"):
        with_masks(sources[2:], str(tmp_path))


def test_hidden_files_and_folders_of_ours_are_no_patients(tmp_path):
    for name in ("A.nii.gz", "._A.nii.gz", ".DS_Store", "out/A.nii.gz", "out/predictions.json"):
        touch(tmp_path / name)
    assert [one.patient for one in in_folder(str(tmp_path)).sources] == ["A"]


def test_a_folder_of_nnunets_test_scans_alone_gives_the_cases_names(tmp_path):
    touch(tmp_path / "case_41_0000.nii.gz")
    assert [one.patient for one in in_folder(str(tmp_path)).sources] == ["case_41"]


@pytest.mark.parametrize("names", [("a", "A"), ("\u00e9", "e\u0301")])
def test_names_that_are_one_on_many_disks_are_refused(tmp_path, names):
    (tmp_path / "list.csv").write_text("patient,ct\n" + "".join(f"{n},{n}.nii\n" for n in names))
    with pytest.raises(InputError, match="one name on many disks"):
        in_csv(str(tmp_path / "list.csv"))
