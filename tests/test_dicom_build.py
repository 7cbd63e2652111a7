"""The data job on DICOM, as a process: the datasets of NIfTI, and nothing of who the patients are.

One tree serves most tests: A, B and C are healthy, D has no structure set, E lacks a slice. Every
text and every date in it is a marker, which no output may hold.
"""

import json
import shutil

import programs
import pydicom
import pytest
from cases import TINY_RECIPE, save, tiny_patient
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from structure_cases import write_patient

from segthor import records
from segthor.manifest import Dataset as Manifest
from segthor.organs import SEGTHOR
from tests import dicom_damage, dicom_phantoms

HEALTHY = ("A", "B", "C")
MARKER, MARKED_DATE = "XSECRETX", "19010203"
_VALUES = dict.fromkeys(("LO", "SH", "PN", "LT", "ST", "UT", "UC"), MARKER)
_VALUES |= {"DA": MARKED_DATE, "DT": MARKED_DATE + "040506"}
_GROUPS = (0x0008, 0x0010, 0x0018, 0x0020, 0x0032, 0x0038, 0x0040, 0x3006, 0x4000)
MARKED = [
    (tag, dictionary_VR(tag))
    for tag in DicomDictionary
    if tag >> 16 in _GROUPS and DicomDictionary[tag][0] in _VALUES
    if keyword_for_tag(tag) not in ("", "PatientID")
]


def made(name):
    return tiny_patient(40 + "ABCDE".index(name))


def marked(name):
    """Fills a data set with the marker, as far as it has room for text."""

    def change(dataset, k=0):
        for tag, vr in MARKED:
            dataset.add_new(tag, vr, _VALUES[vr])
        dataset.PatientID = f"{MARKER}{name}"

    return change


def write(folder, name, **options) -> None:
    names = dict.fromkeys(("patient", "study", "series", "frame"), name)
    write_patient(folder / name, made(name), **names, change=marked(name), **options)

    def change(dataset):
        marked(name)(dataset)
        other = Dataset()
        other.ROINumber, other.ROIName, other.ROIDescription = 777, f"{MARKER}_ROI", MARKER
        dataset.StructureSetROISequence.append(other)

    edit(folder / name / "rs.dcm", change)


def edit(path, change) -> None:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def run(module, *arguments):
    return programs.run(["-m", module, *arguments])


def build(source, output, *arguments, status=0):
    flags = [f"--{name}={value}" for name, value in TINY_RECIPE.items()]
    done = run("beam_jobs.build", f"--input={source}", f"--output={output}", *flags, *arguments)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def slices(output, patients=None):
    """(image, labels, contoured) of every record, in an order that no name has a part in."""
    found = [one for path in (output / "shards").iterdir() for one in records.slices(str(path))]
    return sorted(
        (one.image.tobytes(), one.labels.tobytes(), one.contoured)
        for one in found
        if patients is None or one.patient in patients
    )


def times(output):
    """When each shard was written."""
    return {path: path.stat().st_mtime_ns for path in (output / "shards").iterdir()}


def shard_files(output):
    return {path.name: path.read_bytes() for path in (output / "shards").iterdir()}


def flattened(tree, folder):
    """All files of a tree side by side in one folder."""
    folder.mkdir()
    for path in tree.rglob("*.dcm"):
        shutil.copy(path, folder / path.relative_to(tree).as_posix().replace("/", "-"))
    return folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    for name in HEALTHY:
        write(folder, name)
    write(folder, "D")
    (folder / "D" / "rs.dcm").unlink()
    write(folder, "E", missing=[7])
    return folder


@pytest.fixture(scope="module")
def built(tree, tmp_path_factory):
    """(output, what was printed)."""
    output = tmp_path_factory.mktemp("built") / "out"
    done = build(tree, output, "--direct_num_workers=1", status=3)
    return output, done.stdout + done.stderr


@pytest.fixture(scope="module")
def as_nifti(tmp_path_factory):
    """A, B and C as a planning system's slices would be in NIfTI, in SegTHOR's layout."""
    folder = tmp_path_factory.mktemp("nifti")
    for name in HEALTHY:
        one = made(name)
        hu, affine = dicom_phantoms.posed(one.hu, one.affine)
        labels, _ = dicom_phantoms.posed(one.labels, one.affine)
        (folder / name).mkdir()
        save(folder / name / f"{name}.nii.gz", hu, affine)
        save(folder / name / "GT.nii.gz", labels, affine)
    return folder


def test_a_tree_gives_the_records_of_the_same_patients_as_nifti(built, as_nifti, tmp_path):
    output, _ = built
    build(as_nifti, tmp_path / "out")
    assert shard_files(output) == shard_files(tmp_path / "out")
    assert len(slices(output)) == 3 * 16


def test_who_has_no_structure_set_is_listed_and_a_gap_keeps_one_out(built):
    output, said = built
    dataset = Manifest.load(str(output))
    assert [one.patient for one in dataset.patients] == list(HEALTHY)
    assert [one.patient for one in dataset.unlabelled] == ["D"]
    (rejected,) = dataset.rejected
    assert rejected.patient == "E" and rejected.findings[0].code == "series_gap"
    assert "1 of 5 patients were rejected" in said and "rejected E: " in said


def test_two_workers_write_the_same_bytes(built, tree, tmp_path):
    build(tree, tmp_path / "out", "--direct_num_workers=2", status=3)
    assert shard_files(tmp_path / "out") == shard_files(built[0])


def test_a_flat_folder_of_all_patients_gives_the_same_records(built, tree, tmp_path):
    flat = flattened(tree, tmp_path / "flat")
    done = build(flat, tmp_path / "out", status=3)
    assert slices(tmp_path / "out") == slices(built[0])
    names = [one.patient for one in Manifest.load(str(tmp_path / "out")).patients]
    assert all(name.startswith("patient-") for name in names)
    check_private(tmp_path / "out", done.stdout + done.stderr, tree)


def test_in_a_flat_folder_a_changed_slice_rebuilds_its_patient_alone(tree, tmp_path):
    flat = flattened(tree, tmp_path / "flat")
    build(flat, tmp_path / "out", "--shards=3", status=3)
    before = times(tmp_path / "out")

    def lighter(dataset):
        dataset.RescaleIntercept = 20

    edit(flat / "B-ct-B-005.dcm", lighter)
    done = build(flat, tmp_path / "out", "--shards=3", status=3)
    after = times(tmp_path / "out")
    assert f"{len(before)} shards, {len(before) - 1} of them up to date" in done.stdout
    ((changed, _),) = after.items() - before.items()
    assert (
        len(after) == len(before) > 1
        and len({one.patient for one in records.slices(str(changed))}) == 1
    )


def test_our_own_drafts_are_left_aside_until_somebody_approves_them(
    built, tree, as_nifti, tmp_path
):
    shutil.copytree(tree / "A", tmp_path / "tree/A")
    (tmp_path / "corrected").mkdir()
    shutil.copy(as_nifti / "A/GT.nii.gz", tmp_path / "corrected/A.nii.gz")
    flags = [f"--predictions={tmp_path / 'corrected'}", f"--scans={tmp_path / 'tree'}"]
    drafts = tmp_path / "tree/A/drafts"
    done = run("serving.convert", *flags, f"--output={drafts}", "--formats=rtstruct,seg")
    assert done.returncode == 0, done.stderr
    assert len(list(drafts.iterdir())) == 2
    said = run("beam_jobs.build", f"--input={tmp_path / 'tree'}", "--list").stdout
    assert "1 draft of this software's, not approved: A/drafts/A_rtstruct.dcm" in said
    build(tmp_path / "tree", tmp_path / "out")
    assert slices(tmp_path / "out") == slices(built[0], "A")

    def approve(dataset):
        dataset.ApprovalStatus = "APPROVED"

    edit(drafts / "A_rtstruct.dcm", approve)
    said = run("beam_jobs.build", f"--input={tmp_path / 'tree'}", "--list").stdout
    assert "refused, structures_ambiguous" in said


def test_a_second_run_builds_nothing_and_a_changed_slice_its_patient(tree, tmp_path):
    shutil.copytree(tree, tmp_path / "tree")
    build(tmp_path / "tree", tmp_path / "out", "--shards=3", status=3)
    before = times(tmp_path / "out")
    done = build(tmp_path / "tree", tmp_path / "out", "--shards=3", status=3)
    # E, of which a slice is missing, is read before it is rejected: a shard that stays empty.
    assert "4 patients in 4 shards, 4 of them up to date" in done.stdout
    assert before == times(tmp_path / "out")

    def lighter(dataset):
        dataset.RescaleIntercept = 20

    edit(tmp_path / "tree/B/ct/B-005.dcm", lighter)
    build(tmp_path / "tree", tmp_path / "out", "--shards=3", status=3)
    after = times(tmp_path / "out")
    (changed,) = after.items() - before.items()
    assert len(after) == 3 and {one.patient for one in records.slices(str(changed[0]))} == {"B"}


def test_a_table_names_one_series_of_several_and_a_structure_set(built, tree, tmp_path):
    shutil.copytree(tree / "A", tmp_path / "A")
    one = made("A")
    hu, affine = dicom_phantoms.posed(one.hu, one.affine)
    again = dict(patient="A", study="A", series="second", frame="A", change=marked("A"))
    dicom_phantoms.write_series(tmp_path / "A/ct", hu + 20, affine, **again)
    (tmp_path / "A/rs.dcm").rename(tmp_path / "contours.dcm")
    done = run("beam_jobs.build", f"--input={tmp_path / 'A'}", "--list")
    names = [line.split()[1].strip(":") for line in done.stdout.splitlines() if "voxels" in line]
    assert len(names) == 2 and "series_several_volumes" in done.stdout
    found = []
    for name in names:
        table = tmp_path / f"{name}.csv"
        table.write_text(f"patient,ct,labels\nA,A/ct#{name},contours.dcm\n")
        build(table, tmp_path / name)
        found.append(slices(tmp_path / name))
    assert found[0] != found[1] and slices(built[0], "A") in found


def test_the_list_shows_what_a_tree_holds_and_builds_nothing(tree, tmp_path):
    output = tmp_path / "out"
    done = run("beam_jobs.build", f"--input={tree}", f"--output={output}", "--list")
    assert done.returncode == 0 and not output.exists()
    lines = done.stdout.splitlines()
    assert lines[0] == f"5 patients in {tree}"
    assert [line for line in lines if line in "ABCDE"] == list("ABCDE")
    assert any("refused, series_gap" in line for line in lines)
    drawn = "esophagus (Esophagus), heart (Heart), trachea (Trachea), aorta (A_Aorta); 1 other ROIs"
    assert [f"organs of {name}: {drawn}" in lines for name in "ABCDE"] == [True] * 3 + [False, True]
    assert MARKER not in done.stdout + done.stderr


def test_the_list_shows_voxels_that_lie_in_two_organs(tree, tmp_path):
    for name in "AB":
        shutil.copytree(tree / name, tmp_path / "tree" / name)
    dicom_damage.DAMAGES["a_contour_of_the_heart_is_the_aortas_too"][1](tmp_path / "tree/A")
    done = run("beam_jobs.build", f"--input={tmp_path / 'tree'}", "--list")
    warnings = [line for line in done.stdout.splitlines() if ": warned, organs_overlap" in line]
    assert done.returncode == 0 and len(warnings) == 1, done.stderr
    assert warnings[0].startswith("organs of A: warned, organs_overlap: "), warnings
    assert warnings[0].endswith("voxels lie in two organs; the table's first keeps them")


def test_a_table_says_what_rois_are_called(built, tree, tmp_path):
    shutil.copytree(tree / "A", tmp_path / "A")

    def rename(dataset):
        for roi in dataset.StructureSetROISequence:
            roi.ROIName = "Herz 2" if roi.ROIName == "Heart" else roi.ROIName

    edit(tmp_path / "A/rs.dcm", rename)
    (tmp_path / "names.csv").write_text("organ,name\nheart,Herz 2\n")
    build(tmp_path / "A", tmp_path / "without")
    build(tmp_path / "A", tmp_path / "out", f"--roi_names={tmp_path / 'names.csv'}")
    assert {one[2] for one in slices(tmp_path / "without")} == {(1, 0, 1, 1)}
    assert slices(tmp_path / "out") == slices(built[0], "A")


def test_one_scan_as_dicom_and_as_nifti_is_the_same_scan(tree, as_nifti, tmp_path):
    lines = [f"One,{tree}/A/ct,{tree}/A/rs.dcm", f"Two,{as_nifti}/A/A.nii.gz,"]
    (tmp_path / "both.csv").write_text("\n".join(["patient,ct,labels", *lines]))
    build(tmp_path / "both.csv", tmp_path / "out", status=3)
    dataset = Manifest.load(str(tmp_path / "out"))
    assert [one.patient for one in dataset.patients] == ["One"]
    assert [one.findings[0].code for one in dataset.rejected] == ["same_scan"]


def test_evaluation_takes_structure_sets_for_contours(tree, as_nifti, tmp_path):
    (tmp_path / "predictions").mkdir()
    for name in HEALTHY:
        shutil.copy(as_nifti / name / "GT.nii.gz", tmp_path / f"predictions/{name}.nii.gz")
    flags = [f"--predictions={tmp_path / 'predictions'}", f"--output={tmp_path / 'out'}"]
    done = run("serving.evaluate", f"--labels={tree}", *flags)
    assert "Traceback" not in done.stderr
    found = json.loads((tmp_path / "out/scores.json").read_text())
    assert list(found["patients"]) == list(HEALTHY)
    for scores in found["patients"].values():
        assert {organ: scores[organ]["dice"] for organ in scores} == dict.fromkeys(SEGTHOR.names, 1)
    check_private(tmp_path / "out", done.stdout + done.stderr, tree)


def test_nothing_of_who_the_patients_are_comes_out(built, tree):
    output, said = built
    assert len(MARKED) > 350
    check_private(output, said, tree)


def check_private(output, said, tree):
    """No text, date, number or UID of a header is in what was printed or written."""
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in tree.rglob("*.dcm")]
    assert all(MARKER in str(header.PatientID) for header in headers)
    uids = {
        str(element.value)
        for header in headers
        for element in header
        if element.VR == "UI" and element.keyword != "SOPClassUID"
    }
    secrets = [MARKER, MARKED_DATE, *uids]
    paths = sorted(output.rglob("*"))
    written = [path.read_bytes() for path in paths if path.is_file()]
    assert len(uids) > 50 and len(written) > 1
    whole = b"\n".join([said.encode(), *written, *(path.name.encode() for path in paths)])
    assert not [secret for secret in secrets if secret.encode() in whole]
