"""Trees of DICOM as departments export them: who is a patient, which series, which files.

Every tree also keeps the law of `dicom_law`: no CT file vanishes.
"""

import re
import shutil
import unicodedata
from pathlib import Path

import dicom_damage
import numpy as np
import pytest
from cases import save, tiny_patient
from damage import healthy_phantom
from dicom_law import check_law

from segthor import inputs, scans
from segthor.dicom import index, listing
from segthor.errors import InputError
from segthor.organs import SEGTHOR
from tests import dicom_phantoms, fuzz_trees
from tests.structure_cases import copy_patient, write_patient

KEYS = ("patient", "study", "series", "frame")


def write(folder, name, made=None, **options) -> None:
    """ct/*.dcm and rs.dcm of a phantom; UIDs and PatientID follow from the name or the options."""
    names = dict.fromkeys(KEYS, name) | options
    if made is None:
        copy_patient(Path(folder) / name, tiny_patient, ord(name[-1]), **names)
    else:
        write_patient(Path(folder) / name, made, **names)


def shown(found):
    """Name to whether it has contours, or the code of its fault."""
    return {one.name: one.fault_code if one.fault else bool(one.labels) for one in found}


def build_input(folder):
    return inputs.find(str(folder), organs=SEGTHOR)


def predict_input(folder):
    return inputs.find(str(folder), organs=None)


@pytest.fixture(params=[False, True], ids=["first contoured", "all contoured"])
def one_number(tmp_path, request):
    for name in "ABC":
        write(tmp_path, name, patient="ANON")
        if name != "A" and not request.param:
            (tmp_path / name / "rs.dcm").unlink()
    return tmp_path, request.param


def test_three_patients_of_one_number_are_three(one_number):
    folder, all_contoured = one_number
    check_law(folder)
    assert shown(build_input(folder)) == {"A": True, "B": all_contoured, "C": all_contoured}
    assert shown(predict_input(folder)) == dict.fromkeys("ABC", False)
    for one in build_input(folder):
        assert not one.labels or one.labels.startswith(f"{folder}/{one.name}/")
    said = listing.list_folder(str(folder), SEGTHOR)
    assert said.count("2 more with this PatientID, in other folders and studies") == 3


def test_one_number_and_one_frame_make_no_one_patient(tmp_path):
    for name in "ABC":
        write(tmp_path, name, patient="ANON", frame="ANON")
    check_law(tmp_path)
    for one in build_input(tmp_path):
        assert one.labels == f"{tmp_path}/{one.name}/rs.dcm"


def test_no_number_in_one_flat_folder_are_the_patients_of_the_studies(tmp_path):
    for name in "ABC":
        write(tmp_path / "tree", name, without=("PatientID",))
        for number, path in enumerate((tmp_path / "tree" / name).rglob("*.dcm")):
            (tmp_path / "flat").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "flat" / f"{name}{number}.dcm")
    check_law(tmp_path / "flat")
    found = build_input(tmp_path / "flat")
    assert len(found) == 3 and all(one.labels for one in found)


CHANGES = {
    "half-way": lambda k: "P1" if k < 12 else "P2",
    "alternating": lambda k: f"P{k % 2}",
    "in one slice": lambda k: "P1" if k == 23 else "P2",
    "lacking in some": lambda k: "" if k % 3 else "P2",
}


@pytest.mark.parametrize("number_of", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("by_folder", [False, True], ids=["one folder", "a folder for each"])
def test_a_series_whose_number_changes_is_one_patients(tmp_path, number_of, by_folder):
    def change(dataset, k):
        dataset.PatientID = number_of(k)

    write(tmp_path, "A", healthy_phantom(), change=change)
    write(tmp_path, "B")
    if by_folder:
        for path in (tmp_path / "A/ct").glob("*.dcm"):
            k = int(path.stem[-3:])
            (tmp_path / f"A/ct-{number_of(k)}").mkdir(exist_ok=True)
            path.rename(tmp_path / f"A/ct-{number_of(k)}" / path.name)
    check_law(tmp_path)
    one, other = build_input(tmp_path)
    assert (one.name, other.name, bool(one.labels), one.fault) == ("A", "B", True, "")
    assert scans.read(one.ct, among=one.ct_files).zyx.shape[0] == 24
    read = scans.read(one.ct, among=one.ct_files)
    assert [one.code for one in read.findings] == ["series_patient_ids"]
    assert [one.name for one in predict_input(tmp_path)] == ["A", "B"]


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "FrameOfReferenceUID"])
@pytest.mark.parametrize("changes", [lambda k: k % 2, lambda k: k < 12])
def test_a_series_of_two_studies_or_frames_is_one_refusal(tmp_path, keyword, changes):
    def change(dataset, k):
        if changes(k):
            setattr(dataset, keyword, "1.2.3.4")

    write(tmp_path, "A", healthy_phantom(), change=change)
    write(tmp_path, "B")
    check_law(tmp_path)
    for found in (build_input(tmp_path), predict_input(tmp_path)):
        assert shown(found)["A"] == "series_mixed" and not found[1].fault


def visits(folder, names=("P1", "P2", "P3"), person="P"):
    for number, name in enumerate(names):
        write(folder, name, patient="P", made=tiny_patient(number))
        if number:
            (folder / name / "rs.dcm").unlink()


def test_later_visits_are_predicted_too(tmp_path):
    visits(tmp_path / "P")
    write(tmp_path, "Q")
    check_law(tmp_path)
    assert shown(build_input(tmp_path)) == {"P": True, "Q": True}
    found = predict_input(tmp_path)
    assert [one.name.partition("_")[0] for one in found] == ["P", "P", "P", "Q"]
    assert len({one.ct for one in found}) == 4 and not any(one.fault for one in found)
    read = [scans.read(one.ct, among=one.ct_files).zyx for one in found]
    assert len({array.tobytes() for array in read}) == 4


def test_visits_in_one_flat_folder_are_cases_of_one_patient(tmp_path):
    visits(tmp_path / "tree")
    (tmp_path / "flat").mkdir()
    for number, path in enumerate((tmp_path / "tree").rglob("*.dcm")):
        shutil.copy(path, tmp_path / "flat" / f"IM{number}")
    check_law(tmp_path / "flat")
    assert shown(build_input(tmp_path / "flat")) == {"flat": True}
    assert len(predict_input(tmp_path / "flat")) == 3


def four_d(folder, phases=10, drawn="3", **options):
    """Phases of one scan as series of one folder; the structure set is of one of them."""
    made = healthy_phantom()
    for phase in range(phases):
        hu, affine = dicom_phantoms.posed(made.hu + phase, made.affine)

        def describe(dataset, k, phase=phase):
            dataset.SeriesDescription = f"Secret^Name {10 * phase}.0% Ex"

        names = dict.fromkeys(("patient", "study", "frame"), "P")
        given = names | dict(series=str(phase), change=describe) | options
        dicom_phantoms.write_series(folder, hu, affine, **given)
    shutil.rmtree(folder / "set", ignore_errors=True)
    write_patient(folder / "set", made, **names, series=drawn)
    (folder / "set" / "rs.dcm").rename(folder / "rs.dcm")
    shutil.rmtree(folder / "set")


def test_ten_phases_are_ten_cases_and_training_takes_the_one_that_was_drawn_on(tmp_path):
    four_d(tmp_path / "P")
    write(tmp_path, "Q")
    check_law(tmp_path)
    found = predict_input(tmp_path)
    assert len(found) == 11 and not any(one.fault for one in found)
    offsets = [int(scans.read(one.ct, among=one.ct_files).zyx.min()) for one in found[:10]]
    assert sorted(np.subtract(offsets, min(offsets))) == list(range(10))
    drawn = index.series_name(dicom_phantoms.uid("series", "3"))
    one, _ = build_input(tmp_path)
    assert (one.name, one.series, bool(one.labels)) == ("P", drawn, True)
    said = listing.list_folder(str(tmp_path), SEGTHOR)
    assert all(f"phase {10 * k} %" in said for k in range(10)) and "Secret" not in said
    said = listing.list_folder(str(tmp_path), SEGTHOR, descriptions=True)
    assert said.count("Secret^Name") == 10


def _cut(path):
    path.write_bytes(path.read_bytes()[:500])


def is_refused(one):
    """Whether a patient cannot be read, or is read with a finding that rejects it."""
    if one.fault:
        return True
    found = scans.read(one.ct, among=one.ct_files).findings
    return any(finding.severity == "reject" for finding in found)


BROKEN = {
    "a slice is missing": lambda path: path.unlink(),
    "a header is cut": _cut,
    "a file is empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 40),
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("layout", ["side by side", "folders"])
def test_one_broken_phase_fails_alone(tmp_path, spoil, layout):
    four_d(tmp_path / "P", 4)
    if layout == "folders":
        for path in (tmp_path / "P").glob("[0-9]-*.dcm"):
            (tmp_path / "P" / path.name[0]).mkdir(exist_ok=True)
            path.rename(tmp_path / "P" / path.name[0] / f"IM{path.stem[-3:]}.dcm")
        spoil(tmp_path / "P/2/IM007.dcm")
    else:
        spoil(tmp_path / "P/2-007.dcm")
    check_law(tmp_path)
    found = predict_input(tmp_path)
    broken = index.series_name(dicom_phantoms.uid("series", "2"))
    assert {one.series for one in found if is_refused(one)} == {broken}
    assert len(found) == 4
    (one,) = build_input(tmp_path)
    assert one.labels and not one.fault


def test_a_set_on_a_broken_phase_is_not_taken_for_one_of_the_others(tmp_path):
    four_d(tmp_path / "P", 4)
    (tmp_path / "P/3-007.dcm").unlink()
    (one,) = build_input(tmp_path)
    assert one.labels and is_refused(one)
    findings = scans.read(one.ct, among=one.ct_files).findings
    assert [finding.code for finding in findings] == ["series_gap"]
    assert one.series == index.series_name(dicom_phantoms.uid("series", "3"))


def test_every_volume_of_one_series_is_a_case(tmp_path):
    made = healthy_phantom()
    for number in (1, 2, 3):
        options = dict(copy=str(number), acquisition=number, patient="P")
        dicom_phantoms.write_series(tmp_path / "P", made.hu + number, made.affine, **options)
    check_law(tmp_path)
    found = predict_input(tmp_path)
    name = index.series_name(dicom_phantoms.uid("series", "1"))
    assert [one.series for one in found] == [f"{name}-{number}" for number in (1, 2, 3)]
    read = [scans.read(one.ct, among=one.ct_files).zyx.min() for one in found]
    assert len(set(read)) == 3
    assert [scans.read(f"{tmp_path}/P#{name}-2").zyx.min()] == [read[1]]


def test_projections_and_short_volumes_are_passed_over_beside_others(tmp_path):
    made = healthy_phantom()
    for number, options in enumerate(
        [{}, dict(image_type="DERIVED\\SECONDARY\\MIP"), dict(missing=range(7, 24))]
    ):
        options |= dict(series=str(number), patient="P")
        dicom_phantoms.write_series(tmp_path / "P", made.hu, made.affine, **options)
    check_law(tmp_path)
    (one,) = predict_input(tmp_path)
    assert one.name == "P" and one.series == index.series_name(dicom_phantoms.uid("series", "0"))
    for path in (tmp_path / "P").glob("[02]-*"):
        path.unlink()
    (one,) = predict_input(tmp_path)
    assert not one.fault


def test_a_table_chooses_series(tmp_path):
    four_d(tmp_path / "P", 3)
    names = [index.series_name(dicom_phantoms.uid("series", str(phase))) for phase in range(3)]
    pairs = ((("P", names[0]),), (("P", names[0]), ("P", names[2])))
    (one,) = inputs.find(str(tmp_path), organs=None, series=pairs[0])
    assert (one.name, one.series) == ("P", names[0])
    found = inputs.find(str(tmp_path), series=pairs[1], organs=SEGTHOR)
    assert {one.name for one in found} == {f"P_{names[0]}", f"P_{names[2]}"}
    with pytest.raises(InputError, match="found P, 01234567; --list names them"):
        inputs.find(str(tmp_path), series=(("P", "01234567"),), organs=SEGTHOR)
    found = inputs.find(str(tmp_path), series="each", organs=SEGTHOR)
    assert len(found) == 3 and sum(bool(one.labels) for one in found) <= 1


def test_damaged_files_of_another_folder_do_not_keep_a_patient_out(tmp_path):
    write(tmp_path, "A")
    write(tmp_path, "B")
    for path in (tmp_path / "B").rglob("*.dcm"):
        _cut(path)
    check_law(tmp_path)
    for found in (build_input(tmp_path), predict_input(tmp_path)):
        assert [one.name for one in found] == ["A", "B"]
        assert not found[0].fault and found[1].fault_code == "file_damaged"


def test_damaged_slices_without_an_ending_keep_their_patient_out(tmp_path):
    write(tmp_path, "A")
    for number, path in enumerate(sorted((tmp_path / "A/ct").iterdir())):
        path.rename(tmp_path / f"A/ct/IM{number:04d}")
    last = max((tmp_path / "A/ct").iterdir())
    for content in (b"", b"\0" * 4000, last.read_bytes()[:100], bytes(128) + b"DICM" + b"\7" * 99):
        last.write_bytes(content)
        check_law(tmp_path)
        (one,) = predict_input(tmp_path)
        assert one.fault_code == "file_damaged" and str(last) in one.fault


def test_a_uid_of_its_own_for_each_slice_is_one_volume(tmp_path):
    def change(dataset, k):
        dataset.SeriesInstanceUID = dicom_phantoms.uid("slice", k)

    write(tmp_path, "A", healthy_phantom(), change=change)
    check_law(tmp_path)
    for found in (build_input(tmp_path), predict_input(tmp_path)):
        assert [one.fault for one in found] == [""]
    read = scans.read(found[0].ct, among=found[0].ct_files)
    assert read.zyx.shape[0] == 24 and [one.code for one in read.findings] == ["series_uids"]
    assert build_input(tmp_path)[0].labels


@pytest.mark.parametrize("uid", ["ABC-{}", "1.2.3." + "4" * 66 + ".{}", "{}"])
def test_any_uid_is_compared(tmp_path, uid):
    def renamed(dataset, keyword):
        setattr(dataset, keyword, uid.format(getattr(dataset, keyword)[-6:]))

    write(tmp_path, "A", healthy_phantom())

    def change(dataset):
        for element in dataset.iterall():
            if element.VR == "UI" and "Class" not in element.keyword and element.tag.group != 2:
                if "TransferSyntax" not in element.keyword:
                    element.value = uid.format(str(element.value)[-9:])

    for path in (tmp_path / "A").rglob("*.dcm"):
        dicom_damage.edit(path, change)
    check_law(tmp_path)
    (one,) = build_input(tmp_path)
    assert one.labels and not one.fault


def test_a_frame_alone_gives_no_structure_set_to_another_patient(tmp_path):
    for name in "AB":
        write(tmp_path, name, frame="ANON")
    (tmp_path / "B/rs.dcm").unlink()
    assert shown(build_input(tmp_path)) == {"A": True, "B": False}
    shutil.rmtree(tmp_path / "A/ct")
    assert shown(build_input(tmp_path)) == {"A": "file_missing", "B": False}


def test_pictures_of_a_ct_say_what_to_export(tmp_path):
    write(tmp_path, "A")
    (tmp_path / "A/rs.dcm").unlink()

    def change(dataset):
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = (
            "1.2.840.10008.5.1.4.1.1.7"
        )

    for path in (tmp_path / "A").rglob("*.dcm"):
        dicom_damage.edit(path, change)
    with pytest.raises(InputError, match="export the original CT images"):
        predict_input(tmp_path)


@pytest.mark.parametrize("name", [*dicom_damage.DAMAGES, *dicom_damage.UNUSUAL])
def test_no_ct_file_vanishes_of_any_damage(tmp_path, name):
    dicom_damage.healthy(tmp_path / "in")
    change = (dicom_damage.DAMAGES | dicom_damage.UNUSUAL)[name][1]
    change(tmp_path / "in")
    check_law(tmp_path / "in")


def test_nothing_of_a_header_is_in_a_name(tmp_path):
    four_d(tmp_path / "P", 3)
    for one in predict_input(tmp_path):
        assert re.fullmatch(r"P_[0-9a-f]{8}", one.name)


def nifti(path, seed=1):
    made = tiny_patient(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, made.hu, made.affine)


@pytest.mark.parametrize("place", ["A/ct/A.nii.gz", "A/A.nii.gz", "A/GT.nii.gz", "C/ct/x/y.nii"])
def test_a_nifti_beside_slices_hides_no_patient(tmp_path, place):
    for name in "ABC":
        write(tmp_path, name)
    nifti(tmp_path / place)
    check_law(tmp_path)
    assert shown(build_input(tmp_path)) == dict.fromkeys("ABC", True)
    assert shown(predict_input(tmp_path)) == dict.fromkeys("ABC", False)
    assert f"NIfTI: {place}" in listing.list_folder(str(tmp_path), SEGTHOR)


@pytest.mark.parametrize("dicom", ["A", "BC", "C"])
def test_a_folder_may_hold_both_kinds(tmp_path, dicom):
    for name in "ABC":
        if name in dicom:
            write(tmp_path, name)
        else:
            nifti(tmp_path / name / f"{name}.nii.gz", ord(name))
            nifti(tmp_path / name / "GT.nii.gz", ord(name))
    nifti(tmp_path / "D.nii.gz")
    assert shown(predict_input(tmp_path)) == {"A": False, "B": False, "C": False, "D": False} | {
        name: True for name in "ABC" if name not in dicom
    }
    found = {one.name: one for one in build_input(tmp_path)}
    assert sorted(found) == [*"ABCD"] and not found["D"].labels
    assert all(found[name].labels for name in "ABC")
    assert {name for name in found if scans.is_dicom(found[name].ct)} == {*dicom}
    contoured = inputs.find_contours(str(tmp_path), organs=SEGTHOR)
    assert [one.name for one in contoured if one.labels] == [*"ABC"]


@pytest.mark.parametrize("output", ["", "out", "A", "A/out", "A/ct/out"])
def test_predictions_inside_the_input_hide_no_scan(tmp_path, output):
    write(tmp_path, "A")
    write(tmp_path, "B")
    before = {one.name: (one.ct, scans.stamp(one.ct, one.ct_files))
              for one in predict_input(tmp_path)}  # fmt: skip
    folder = tmp_path / output
    for name in "AB":
        nifti(folder / f"{name}.nii.gz")
        nifti(folder / f"probabilities/{name}_heart.nii.gz")
        for part in ("cases", "dicom"):
            (folder / part).mkdir(exist_ok=True)
        (folder / f"cases/{name}.json").write_text("{}")
        shutil.copy(tmp_path / "A/rs.dcm", folder / f"dicom/{name}_rtstruct.dcm")
    for name in ("predictions.json", "predictions.csv"):
        (folder / name).write_text("{}")
    found = predict_input(tmp_path)
    assert {one.name: (one.ct, scans.stamp(one.ct, one.ct_files)) for one in found} == before
    assert shown(build_input(tmp_path)) == {"A": True, "B": True}


def test_a_name_that_no_structure_set_has_is_named(tmp_path):
    write(tmp_path, "A", healthy_phantom())
    (one,) = build_input(tmp_path)
    rest = (one.labels, one.ct, SEGTHOR)
    found = scans.read_contours(*rest, roi_names=(("heart", "Hurz"),))
    (finding,) = found.findings
    assert finding.code == "roi_names_unmatched"
    assert finding.message == "heart: no ROI has the name 'Hurz' of --roi_names"
    assert "heart" not in found.contoured


def test_accents_are_one_however_they_are_stored(tmp_path):
    write(tmp_path, "A", healthy_phantom())

    def rename(dataset):
        dataset.SpecificCharacterSet = "ISO_IR 192"
        for roi in dataset.StructureSetROISequence:
            if roi.ROIName == "Heart":
                roi.ROIName = unicodedata.normalize("NFD", "C\u0153ur gauche\u0301")

    dicom_damage.edit(tmp_path / "A/rs.dcm", rename)
    (one,) = build_input(tmp_path)
    name = unicodedata.normalize("NFC", "C\u0153ur gauche\u0301")
    for spelling in (name, unicodedata.normalize("NFD", name), name.upper()):
        found = scans.read_contours(one.labels, one.ct, SEGTHOR, roi_names=(("heart", spelling),))
        assert "heart" in found.contoured and not found.findings


def test_headers_of_a_tree_are_read_once(tmp_path, monkeypatch):
    for name in "ABC":
        write(tmp_path, name)
    index._cache.clear()
    read, counts = index.read, {}

    def counted(path):
        counts[path] = counts.get(path, 0) + 1
        return read(path)

    monkeypatch.setattr(index, "read", counted)
    for one in build_input(tmp_path):
        scans.read(one.ct, among=one.ct_files)
        scans.read_contours(one.labels, one.ct, SEGTHOR, among=one.ct_files)
    files = [str(path) for path in tmp_path.rglob("*.dcm")]
    assert counts == dict.fromkeys(files, 1)


@pytest.mark.parametrize("seed", range(6))
def test_no_ct_file_vanishes_of_a_random_tree(tmp_path, seed):
    assert fuzz_trees.run_case(seed, tmp_path)
