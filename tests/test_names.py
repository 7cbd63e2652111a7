"""Names of patients: whatever a CSV or a manifest says, no file is written elsewhere.

The real programs run on them; what lies in their input must be the same bytes afterwards.
"""

import csv
import io
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from cases import TINY_RECIPE, save, save_patient, tiny_patient, touch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import run_entry
from tiny_models import coded_scan, save_coded

from segthor import files, manifest, organs
from segthor.errors import InputError
from segthor.inputs import find, find_contours, find_predictions
from segthor.organs import SEGTHOR
from segthor.patients import MOST_NAME_BYTES, Patient, check_names, name_fault
from segthor.recipe import Recipe

PARTIAL_BYTES = len(".partial-") + 32 + len("-")  # before the name of a file that is being written
HOSTILE = [
    "/etc/passwd", "../up", "a/../b", "a/b", "a\\b", "..", ".", "", "/", ".hidden", ".partial-x",
    "._a", "a\0b", "a\nb", "a\tb", "\x1b[2J", "\x9b1m", "a\u202egnp", "\u2066a", "a\u200bb",
    "\udcff", "\ud800", "x" * 181, "x" * 300, "\U0001fac0" * 46, " a", "a ", "\u00a0",
]  # fmt: skip
HARMLESS = [
    "Patient_01", "predictions", "predictions.json", "cases", "probabilities", "dataset", "CON",
    "=cmd|' C calc'!A0", "-rf", "~", "$(reboot)", "<!--<script>", "a..b", "trailing.", "*",
    "[a-z]*", "?", "Müller", "心", "\U0001fac0", "x" * 180, "a.nii.gz", "a,b;c", "'\"", "#",
    "%2e%2e%2f", "{}",
]  # fmt: skip
NAMES = st.one_of(
    st.text(max_size=20),
    st.text(st.sampled_from(list("aA.=-/\\ *[]~é\x1b\u202e\0\n,\"'$<&")), max_size=12),
    st.text(st.characters(), min_size=40, max_size=250),
)


def files_named_after(name):
    """Every file that a program makes of a patient's name."""
    yield name + ".nii.gz"
    yield name + ".json"
    yield name + ".gif"
    yield from (f"{name}_{organ}.nii.gz" for organ in organs.SEGTHOR.names)


def tree(root, without=()):
    """Path to bytes of all that lies under a folder."""
    return {
        path: path.read_bytes()
        for path in Path(os.fsencode(root).decode(errors="surrogateescape")).rglob("*")
        if path.is_file() and not any(path.is_relative_to(one) for one in without)
    }


def write_csv(path, rows, columns=("patient", "ct", "labels")):
    text = io.StringIO()
    csv.writer(text).writerows([columns, *rows])
    Path(path).write_bytes(text.getvalue().encode(errors="surrogatepass"))
    return str(path)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_could_do_harm_has_a_fault(name):
    assert name_fault(name)


@pytest.mark.parametrize("name", HARMLESS)
def test_any_other_name_may_be_used(name):
    assert not name_fault(name)


@given(st.text(st.characters()) | NAMES)
def test_what_is_made_of_a_usable_name_stays_in_its_folder_and_fits_every_disk(name):
    (patient,) = check_names([Patient(name, "/in/ct.nii.gz", organs=SEGTHOR.names)], "here")
    assert bool(patient.fault) == (patient.name != name)
    assert not name_fault(patient.name)
    if patient.fault:
        assert patient.fault.isprintable() and "rename" in patient.fault
    for file in files_named_after(patient.name):
        path = os.path.join("/out", file)
        assert os.path.normpath(path) == path and os.path.dirname(path) == "/out"
        assert files.inside("/out", file) == path
        assert not file.startswith(".") and "\0" not in file
        assert PARTIAL_BYTES + len(file.encode()) <= 255


@given(st.lists(NAMES, min_size=2, max_size=2, unique=True))
def test_two_bad_names_never_become_one(pair):
    try:
        found = check_names(
            [Patient(name, f"{n}.nii", organs=SEGTHOR.names) for n, name in enumerate(pair)], "here"
        )
    except InputError as error:
        assert "two patients are named" in str(error)
        assert not any(map(name_fault, pair))
    else:
        assert len({patient.name for patient in found}) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Patient_01", "PATIENT_01"),
        (unicodedata.normalize("NFC", "Müller"), unicodedata.normalize("NFD", "Müller")),
        (unicodedata.normalize("NFC", "É"), unicodedata.normalize("NFD", "é")),
        ("ſt", "ST"),
    ],
)
def test_names_that_are_one_file_on_some_disks_are_refused(tmp_path, one, other):
    table = write_csv(
        tmp_path / "p.csv", [(one, "a.nii", ""), ("x", "b.nii", ""), (other, "c.nii", "")]
    )
    with pytest.raises(InputError, match="two patients are named .* on many disks.*rename one"):
        find(table, organs=SEGTHOR)
    for name in (one, other):
        touch(tmp_path / "scans" / f"{name}.nii.gz")
    with pytest.raises(InputError, match="two patients are named"):
        find(str(tmp_path / "scans"), organs=SEGTHOR)


@pytest.mark.parametrize("name", [name for name in HOSTILE if name == name.strip() and name])
def test_a_csv_with_such_a_name_gives_a_patient_with_a_fault(tmp_path, name):
    table = write_csv(tmp_path / "p.csv", [("good", "a.nii", "b.nii"), (name, "c.nii", "d.nii")])
    for finder in (find, find_contours):
        if name in ("a\0b", "\udcff", "\ud800"):
            with pytest.raises(InputError, match="not a CSV") as raised:
                finder(table, organs=SEGTHOR)
            assert str(raised.value).isprintable()
            continue
        found = {Path(patient.ct).name: patient for patient in finder(table, organs=SEGTHOR)}
        assert found["a.nii"] == Patient(
            "good", str(tmp_path / "a.nii"), str(tmp_path / "b.nii"), organs=SEGTHOR.names
        )
        assert "c.nii: the name" in found["c.nii"].fault and not name_fault(found["c.nii"].name)


def test_a_manifest_with_such_a_name_gives_a_patient_with_a_fault(tmp_path):
    rows = [manifest.Unlabelled(name, f"/in/{n}.nii") for n, name in enumerate(HOSTILE)]
    manifest.Dataset(
        Recipe(), 1, (), (), unlabelled=(*rows, manifest.Unlabelled("A", "/a.nii")), organs=SEGTHOR
    ).save(str(tmp_path))
    found = {patient.ct: patient for patient in find(str(tmp_path), organs=SEGTHOR)}
    assert len(found) == len(HOSTILE) + 1 and not found["/a.nii"].fault
    for row in rows:
        assert found[row.ct].fault and not name_fault(found[row.ct].name)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_coded(folder)
    return str(folder)


def planted():
    labels = np.zeros((64, 64, 6), np.uint8)
    for value in range(1, 1 + organs.SEGTHOR.highest_label):
        labels[12 * value : 12 * value + 6, 20:40, 1:5] = value
    return labels


AFFINE = np.diag([-1.0, -1.0, 3.0, 1.0])


@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(NAMES, min_size=25, max_size=25))
def test_the_real_programs_write_into_their_output_alone(model, tmp_path_factory, drawn):
    """Names of a CSV that the finder lets pass, all in one job of each program."""
    root = tmp_path_factory.mktemp("root")
    made = tiny_patient(1)
    save(root / "in" / "ct.nii.gz", made.hu, made.affine)
    save(root / "in" / "gt.nii.gz", made.labels, made.affine)
    save(root / "in" / "coded.nii.gz", coded_scan(planted()), AFFINE)
    names = []
    for name in [*HARMLESS, *drawn]:
        try:
            table = [(one, "coded.nii.gz", "gt.nii.gz") for one in [*names, name]]
            found = find(write_csv(root / "in" / "p.csv", table), organs=SEGTHOR)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            names += [] if any(one.fault for one in found) else [name.strip()]
    before = tree(root)
    out = root / "out"
    table = [(name, "ct.nii.gz", "gt.nii.gz") for name in names]
    data, predictions = out / "data", out / "predictions"
    write_csv(root / "in" / "p.csv", table)
    before = tree(root)
    done = run_entry("beam_jobs.build", input=root / "in" / "p.csv", output=data, folds=1,
                     severity="same_scan=ignore", **TINY_RECIPE)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert tree(root, [out]) == before
    dataset = manifest.Dataset.load(str(data))
    assert sorted(row.patient for row in dataset.patients) == sorted(names)
    assert set(os.listdir(data)) == {"audit.csv", "audit.html", "dataset.json", "parts", "shards"}

    write_csv(root / "in" / "p.csv", [(name, "coded.nii.gz", "") for name in names])
    before = tree(root, [out])
    done = run_entry("serving.predict", model=model, input=root / "in" / "p.csv",
                     output=predictions, probabilities=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert tree(root, [out]) == before
    assert set(os.listdir(predictions / "cases")) == {f"{name}.json" for name in names}
    assert set(find_predictions(str(predictions))) == set(names)
    assert set(os.listdir(predictions / "probabilities")) == {
        f"{name}_{organ}.nii.gz" for name in names for organ in organs.SEGTHOR.names
    }
    assert len(os.listdir(predictions)) == len(names) + 4  # cases, probabilities, predictions.*
    assert set(os.listdir(out)) == {"data", "predictions"}


BAD_FILES = [b"x" * 225, b"Pat\xff", b"\x1b[2JPat", "\u202eP".encode()]


def test_one_bad_file_name_is_refused_by_name_and_the_others_go_on(model, tmp_path):
    scan = save(tmp_path / "scans" / "Patient_41.nii.gz", coded_scan(planted()), AFFINE)
    folder = os.fsencode(tmp_path / "scans")
    for name in BAD_FILES:
        shutil.copy(os.fsencode(scan), os.path.join(folder, name + b".nii.gz"))
    before = tree(tmp_path / "scans")
    flags = {"model": model, "input": tmp_path / "scans", "output": tmp_path / "out"}
    done = run_entry("serving.predict", **flags)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "1 label maps written" in done.stdout and "4 failed" in done.stdout
    assert done.stdout.count("rename it") == 2 * len(BAD_FILES)
    assert "\x1b" not in done.stdout + done.stderr and "\u202e" not in done.stdout
    assert tree(tmp_path / "scans") == before
    assert [name for name in os.listdir(tmp_path / "out") if name.endswith(".nii.gz")] == [
        "Patient_41.nii.gz"
    ]
    assert len(os.listdir(tmp_path / "out" / "cases")) == 1 + len(BAD_FILES)


def test_a_bad_folder_name_is_a_rejected_patient_of_the_dataset(tmp_path):
    for number in (1, 2, 3):
        save_patient(tmp_path / "in", f"Patient_{number:02d}", tiny_patient(number))
    train = os.fsencode(tmp_path / "in" / "train")
    for name in BAD_FILES:
        shutil.copytree(os.path.join(train, b"Patient_03"), os.path.join(train, name))
    done = run_entry("beam_jobs.build", input=tmp_path / "in", output=tmp_path / "out", folds=1,
                     **TINY_RECIPE)  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr and "\x1b" not in done.stderr + done.stdout
    dataset = manifest.Dataset.load(str(tmp_path / "out"))
    assert [row.patient for row in dataset.patients] == ["Patient_01", "Patient_02", "Patient_03"]
    assert len(dataset.rejected) == len(BAD_FILES)
    assert {row.findings[0].code for row in dataset.rejected} == {"bad_name"}
    with open(tmp_path / "out" / "audit.csv", newline="", encoding="utf-8") as stream:
        codes = [row["codes"] for row in csv.DictReader(stream)]
    assert codes.count("bad_name") == len(BAD_FILES)
    done = run_entry("beam_jobs.build", input=tmp_path / "in", output=tmp_path / "out2",
                     severity="bad_name=warn")  # fmt: skip
    assert done.returncode == 2 and "expected reject, since" in done.stderr


def test_a_name_that_is_a_formula_is_text_in_every_table(tmp_path):
    names = ["=HYPERLINK(1)", "@x", "-2+3", "+1"]
    made = tiny_patient(1)
    save(tmp_path / "ct.nii.gz", made.hu, made.affine)
    save(tmp_path / "gt.nii.gz", made.labels, made.affine)
    rows = [(name, "ct.nii.gz", "gt.nii.gz") for name in names]
    table = write_csv(tmp_path / "p.csv", rows)
    done = run_entry("beam_jobs.build", input=table, output=tmp_path / "data", folds=1,
                     severity="same_scan=ignore", **TINY_RECIPE)  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in names:
        save(tmp_path / "predictions" / f"{name}.nii.gz", made.labels, made.affine)
    done = run_entry("serving.evaluate", predictions=tmp_path / "predictions", labels=table,
                     output=tmp_path / "evaluation")  # fmt: skip
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "data" / "audit.csv", tmp_path / "evaluation" / "scores.csv"):
        with open(path, newline="") as stream:
            found = {row["patient"] for row in csv.DictReader(stream)}
        assert found == {"'=HYPERLINK(1)", "'@x", "'-2+3", "+1"}  # the last one is a number


def test_names_are_no_patterns_on_an_object_store():
    """fsspec's `rm` and `mv` take * and [ for patterns, and removed other patients' files."""
    folder = "memory://names/out"
    for name in ("a.nii.gz", "b.nii.gz", "*.nii.gz", "[ab].nii.gz", "ct[1].nii.gz", "?.nii.gz"):
        with files.atomic_write(files.join(folder, name)) as stream:
            stream.write(name.encode())
    for name in ("*.nii.gz", "[ab].nii.gz", "?.nii.gz"):
        files.remove(files.join(folder, name))
    assert files.listdir(folder) == ["a.nii.gz", "b.nii.gz", "ct[1].nii.gz"]
    assert files.read_bytes(files.join(folder, "ct[1].nii.gz")) == b"ct[1].nii.gz"


def test_a_path_that_no_system_can_open_ends_in_a_line(tmp_path):
    save_patient(tmp_path, "Patient_01", tiny_patient(1))
    place = f"{tmp_path}/train/Patient_01"
    rows = [("A", f"{place}/Patient_01.nii.gz", f"{place}/GT.nii.gz"), ("B", "x" * 300, "gt.nii")]
    done = run_entry("beam_jobs.build", input=write_csv(tmp_path / "p.csv", rows),
                     output=tmp_path / "out", **TINY_RECIPE)  # fmt: skip
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert "rejected B" in done.stderr and "too long" in done.stderr
    rows[1] = ("B", "nowhere://x/ct.nii", "")
    done = run_entry("beam_jobs.build", input=write_csv(tmp_path / "p.csv", rows),
                     output=tmp_path / "out2", **TINY_RECIPE)  # fmt: skip
    assert done.returncode == 2 and "nowhere://x/ct.nii: no file system" in done.stderr
    assert "Traceback" not in done.stderr and "Traceback" not in done.stdout


def test_a_repeated_prediction_into_a_folder_within_its_input_finds_the_same_scans(model, tmp_path):
    scan = save(tmp_path / "scans" / "Patient_41.nii.gz", coded_scan(planted()), AFFINE)
    before = files.read_bytes(scan)
    for name in ("out", "test"):
        flags = {"model": model, "input": tmp_path / "scans", "output": tmp_path / "scans" / name}
        assert run_entry("serving.predict", **flags).returncode == 0
        again = run_entry("serving.predict", **flags)
        assert again.returncode == 0 and "1 scans in" in again.stdout
        assert "1 of them done before" in again.stdout
    assert sorted(os.listdir(tmp_path / "scans")) == ["Patient_41.nii.gz", "out", "test"]
    assert files.read_bytes(scan) == before
    done = run_entry("serving.predict", model=model, input=tmp_path / "scans" / "out",
                     output=tmp_path / "third")  # fmt: skip
    assert done.returncode == 2 and "found label maps of serving.predict" in done.stderr


def test_the_longest_name_leaves_room_for_what_is_made_of_it():
    longest = max(len(file) for file in files_named_after("")) + PARTIAL_BYTES
    assert MOST_NAME_BYTES + longest <= 255
