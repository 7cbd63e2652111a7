"""Discovery: every layout that SegTHOR and nnU-Net come in, and nothing guessed."""

import json
import os

import pytest
from cases import touch

from segthor.errors import InputError
from segthor.inputs import add_masks, find, find_contours, find_predictions
from segthor.organs import SEGTHOR, Organ, Organs
from segthor.patients import Patient


def found(root):
    """{patient: (CT, contours)} relative to the root."""
    strip = len(str(root)) + 1
    return {s.name: (s.ct[strip:], s.labels[strip:]) for s in find(str(root), organs=SEGTHOR)}


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
    assert [s.name for s in find(str(tmp_path), organs=SEGTHOR)] == sorted(found(tmp_path))
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
    everything = find(str(tmp_path), organs=SEGTHOR)
    assert {s.label_values for s in everything} == {(("heart", 7), ("aorta", 1))}
    assert {s.organs for s in everything} == {("heart", "aorta")}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "expected at least one scan, found none; looked for train/"),
        (["notes.txt"], "expected at least one scan"),
        (["train/P/a.nii", "train/P/b.nii", "train/P/GT.nii"], "whose contours GT.nii"),
        (["train/P/ct.nii", "train/P/labels.nii"], "name the CT and the contours in a CSV"),
        (["GT.nii.gz"], "whose contours GT.nii.gz"),
        (["Patient_01.nii", "GT_02.nii"], "GT_02.nii has no CT with its number"),
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
        find(str(tmp_path), organs=SEGTHOR)


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
        find(str(tmp_path), organs=SEGTHOR)


def test_nnunets_labels_and_any_folders_contours_are_those_of_the_table(tmp_path):
    table = Organs((Organ("lung", 9, (1, 2, 3)), Organ("gut", 4, (4, 5, 6))))
    for name in ("nnunet/imagesTr/a_0000", "nnunet/labelsTr/a", "flat/Patient_01", "flat/GT_01"):
        touch(tmp_path / f"{name}.nii.gz")
    (tmp_path / "nnunet/dataset.json").write_text('{"labels": {"background": 0, "Lung": 1}}')
    (one,) = find(str(tmp_path / "nnunet"), organs=table)
    assert (one.organs, one.label_values) == (("lung",), (("lung", 1),))
    (one,) = find(str(tmp_path / "nnunet"), organs=None)
    assert (one.organs, one.label_values) == ((), ())
    for found in (find(str(tmp_path / "flat"), organs=table),
                  find_contours(str(tmp_path / "flat"), table)):  # fmt: skip
        assert [one.organs for one in found] == [("lung", "gut")]


def test_masks_are_matched_by_patient_or_scan(tmp_path):
    sources = [
        Patient("A", "x/ct_a.nii.gz", organs=SEGTHOR.names),
        Patient("B", "x/ct_b.nii.gz", organs=SEGTHOR.names),
        Patient("C", "c.nii", organs=SEGTHOR.names),
    ]
    for name in ("A.nii.gz", "ct_b.nii"):
        touch(tmp_path / name)
    masks = [source.masks for source in add_masks(sources, str(tmp_path))]
    assert masks == [str(tmp_path / "A.nii.gz"), str(tmp_path / "ct_b.nii"), ""]
    with pytest.raises(InputError, match="found none"):
        add_masks(sources[2:], str(tmp_path))


def names_in(root):
    return [one.name for one in find(str(root), organs=SEGTHOR)]


def test_what_systems_leave_in_a_folder_is_no_patient(tmp_path):
    for name in ("._Patient_01.nii.gz", ".DS_Store", "Patient_01.nii.gz", ".Trash/a.nii.gz",
                 ".partial-0-x.nii.gz"):  # fmt: skip
        touch(tmp_path / "flat" / name)
    assert names_in(tmp_path / "flat") == ["Patient_01"]
    assert find_predictions(str(tmp_path / "flat")).keys() == {"Patient_01"}
    for name in ("Patient_01.nii.gz", "GT.nii.gz", "._Patient_01.nii.gz", "._GT.nii.gz"):
        touch(tmp_path / "train" / "Patient_01" / name)
    assert names_in(tmp_path) == ["Patient_01"]
    for name in ("imagesTr/a_0000", "imagesTr/._a_0000", "labelsTr/a", "labelsTr/._a"):
        touch(tmp_path / "nnunet" / f"{name}.nii.gz")
    (tmp_path / "nnunet" / "dataset.json").write_text('{"labels": {"heart": 1}}')
    assert names_in(tmp_path / "nnunet") == ["a"]


def test_a_folder_that_is_rename_to_volumes_a_file_is_a_patients_folder(tmp_path):
    touch(tmp_path / "train" / "Patient_01.nii.gz" / "Patient_01.nii.gz")
    touch(tmp_path / "train" / "Patient_01.nii.gz" / "GT.nii.gz")
    touch(tmp_path / "train" / "Patient_02.nii" / "ct.nii")
    assert found(tmp_path) == {
        "Patient_01": ("train/Patient_01.nii.gz/Patient_01.nii.gz",
                       "train/Patient_01.nii.gz/GT.nii.gz"),
        "Patient_02": ("train/Patient_02.nii/ct.nii", ""),
    }  # fmt: skip
    touch(tmp_path / "Patient_03.nii.gz" / "Patient_03.nii.gz")
    (alone,) = find(str(tmp_path / "Patient_03.nii.gz"), organs=SEGTHOR)
    assert (alone.name, alone.ct) == (
        "Patient_03",
        str(tmp_path / "Patient_03.nii.gz/Patient_03.nii.gz"),
    )
    touch(tmp_path / "maps" / "A.nii.gz")
    touch(tmp_path / "maps" / "B.nii.gz" / "B.nii.gz")
    assert find_predictions(str(tmp_path / "maps")).keys() == {"A"}


def test_nnunets_names_of_scans_alone(tmp_path):
    for name in ("case_41", "case_42"):
        touch(tmp_path / "imagesTs" / f"{name}_0000.nii.gz")
        touch(tmp_path / "labelsTs" / f"{name}.nii.gz")
    for root in (tmp_path, tmp_path / "imagesTs"):
        maps = [(one.name, one.label_map) for one in find(str(root), organs=SEGTHOR)]
        assert maps == [("case_41", "case_41.nii.gz"), ("case_42", "case_42.nii.gz")]
    (one,) = find(str(tmp_path / "imagesTs" / "case_41_0000.nii.gz"), organs=SEGTHOR)
    assert one.label_map == "case_41.nii.gz"
    contoured = [one.name for one in find_contours(str(tmp_path / "labelsTs"), organs=SEGTHOR)]
    assert contoured == ["case_41", "case_42"]


def test_numbers_at_the_end_of_other_names_stay(tmp_path):
    for name in ("scan_0000", "scan_0001"):  # two scans, or two channels of nnU-Net's
        touch(tmp_path / "a" / f"{name}.nii.gz")
        touch(tmp_path / "b" / name / f"{name}.nii.gz")
    touch(tmp_path / "c" / "case_0000" / "case_0000.nii.gz")
    touch(tmp_path / "labels" / "case_0000.nii.gz")
    assert names_in(tmp_path / "a") == names_in(tmp_path / "b") == ["scan_0000", "scan_0001"]
    assert names_in(tmp_path / "c") == ["case_0000"]
    assert [one.name for one in find_contours(str(tmp_path / "labels"), organs=SEGTHOR)] == [
        "case_0000"
    ]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("where", ["predictions", "test", "train", "Patient_01_out"])
def test_predictions_inside_the_input_are_no_scans(tmp_path, count, where):
    for number in range(count):
        touch(tmp_path / f"scan{number}.nii.gz")
        touch(tmp_path / where / f"scan{number}.nii.gz")
        touch(tmp_path / where / "probabilities" / f"scan{number}_heart.nii.gz")
        touch(tmp_path / where / "cases" / f"scan{number}.json")
    (tmp_path / where / "predictions.json").write_text("{}")
    assert names_in(tmp_path) == [f"scan{number}" for number in range(count)]
    with pytest.raises(InputError, match="expected scans, found label maps of serving.predict"):
        find(str(tmp_path / where), organs=SEGTHOR)
    maps = [f"scan{number}" for number in range(count)]
    assert list(find_predictions(str(tmp_path / where))) == maps
    assert [one.name for one in find_contours(str(tmp_path / where), organs=SEGTHOR)] == maps


def test_predictions_beside_patients_folders_are_no_patient(tmp_path):
    touch(tmp_path / "train" / "Patient_01" / "Patient_01.nii.gz")
    for folder in (tmp_path / "out", tmp_path / "train" / "out"):
        touch(folder / "Patient_01.nii.gz")
        touch(folder / "predictions.json")
        touch(folder / "cases" / "Patient_01.json")
    assert found(tmp_path) == {"Patient_01": ("train/Patient_01/Patient_01.nii.gz", "")}


@pytest.mark.parametrize("where", ["", "train", "train/Patient_01"])
@pytest.mark.parametrize("mask", [True, False])
def test_a_stray_predictions_json_hides_no_scan(tmp_path, where, mask):
    for name in ("Patient_01", "Patient_02"):
        touch(tmp_path / "train" / name / f"{name}.nii.gz")
        if mask:
            touch(tmp_path / "train" / name / "GT.nii.gz")
    expected = found(tmp_path)
    assert len(expected) == 2
    touch(tmp_path / where / "predictions.json")
    assert found(tmp_path) == expected


@pytest.mark.parametrize("where", ["", "train"])
def test_predictions_among_patients_folders_hide_none(tmp_path, where):
    for name in ("Patient_01", "Patient_02"):
        touch(tmp_path / "train" / name / f"{name}.nii.gz")
        touch(tmp_path / "train" / name / "GT.nii.gz")
    expected = found(tmp_path)
    for file in ("Patient_01.nii.gz", "predictions.json", "cases/Patient_01.json"):
        touch(tmp_path / where / file)
    touch(tmp_path / where / "probabilities" / "Patient_01_heart.nii.gz")
    assert found(tmp_path) == expected


def test_a_closed_folder_is_one_patients_trouble(tmp_path, monkeypatch):
    for name in ("Patient_01", "Patient_02"):
        touch(tmp_path / "train" / name / f"{name}.nii.gz")
        touch(tmp_path / "train" / name / "GT.nii.gz")
    closed, scandir = str(tmp_path / "train" / "Patient_02"), os.scandir

    def refuse(path):
        if path == closed:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    healthy, broken = find(str(tmp_path), organs=SEGTHOR)
    assert (healthy.name, healthy.fault) == ("Patient_01", "")
    assert (broken.name, broken.fault_code) == ("Patient_02", "file_missing")
    assert broken.fault == f"{closed}: cannot be opened (Permission denied)"
    assert [one.name for one in find_contours(str(tmp_path), organs=SEGTHOR)] == [
        "Patient_01", "Patient_02"]  # fmt: skip


@pytest.mark.parametrize("count", [1, 2])
def test_a_stray_predictions_json_beside_contours_hides_no_patient(tmp_path, count):
    names = [f"Patient_0{number + 1}" for number in range(count)]
    for number, name in enumerate(names, 1):
        for folder, mask in (
            (tmp_path / "train" / name, "GT"),
            (tmp_path / "flat", f"GT_{number}"),
        ):
            touch(folder / f"{name}.nii.gz")
            touch(folder / f"{mask}.nii.gz")
    (tmp_path / "train" / "Patient_01" / "predictions.json").write_text("[]")
    (tmp_path / "flat" / "predictions.json").write_text("[]")
    for folder in (tmp_path, tmp_path / "train", tmp_path / "flat"):
        found = find(str(folder), organs=SEGTHOR)
        assert [one.name for one in found] == names and all(one.labels for one in found)


def test_two_label_maps_of_one_name_are_refused(tmp_path):
    for name in ("A.nii", "A.nii.gz", "B.nii"):
        touch(tmp_path / name)
    for finder in (find_predictions, lambda folder: add_masks([], folder)):
        with pytest.raises(InputError, match="A.nii and A.nii.gz have one name; remove one"):
            finder(str(tmp_path))


@pytest.mark.parametrize("content", ["{}", "[]", '{"labels": {}, "numTest": 3}'])
def test_somebody_elses_dataset_json_makes_no_dataset(tmp_path, content):
    touch(tmp_path / "A.nii.gz")
    (tmp_path / "dataset.json").write_text(content)
    assert names_in(tmp_path) == ["A"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("none", "expected a folder.* or a .csv, found nothing"),
        ("none.nii.gz", "found nothing"),
        ("none.csv", "found nothing"),
        ("notes.txt", "found a file of another kind"),
    ],
)
def test_what_is_no_input_is_said(tmp_path, path, said):
    touch(tmp_path / "notes.txt")
    for finder in (find, find_contours):
        with pytest.raises(InputError, match=said):
            finder(str(tmp_path / path), organs=SEGTHOR)
        with pytest.raises(InputError, match="found an empty name"):
            finder("", organs=SEGTHOR)
    with pytest.raises(InputError, match="found a file|found nothing"):
        find_predictions(str(tmp_path / path))


def test_digits_that_are_no_number_are_no_label_value(tmp_path):
    for name in ("imagesTr/a_0000", "labelsTr/a"):
        touch(tmp_path / f"{name}.nii.gz")
    (tmp_path / "dataset.json").write_text('{"labels": {"heart": "²", "aorta": 1}}')
    assert find(str(tmp_path), organs=SEGTHOR)[0].label_values == (("aorta", 1),)


def test_label_values_of_the_user_stand_before_the_inputs(tmp_path):
    for name in ("imagesTr/a_0000", "labelsTr/a"):
        touch(tmp_path / f"{name}.nii.gz")
    (tmp_path / "dataset.json").write_text('{"labels": {"heart": 5, "aorta": 1}}')
    (one,) = find(str(tmp_path), label_values=(("heart", 9),), organs=SEGTHOR)
    assert (one.organs, one.label_values) == (("heart",), (("heart", 9),))


@pytest.mark.parametrize(
    ("ct", "label_map"),
    [
        ("x/a.nii", "P.nii"),
        ("x/a.nii.gz", "P.nii.gz"),
        ("x/A.NII.GZ", "P.NII.GZ"),
        ("x/series", "P.nii.gz"),
        ("s3://bucket/a.nii.gz", "P.nii.gz"),
    ],
)
def test_a_label_map_is_named_after_its_patient(ct, label_map):
    assert Patient("P", ct, organs=SEGTHOR.names).label_map == label_map
