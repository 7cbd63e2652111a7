"""Label maps to DICOM by a person's command: audited, of the right table, all formats or none."""

import json
import resource
import shutil
import subprocess
import sys

import dicom_phantoms as phantoms
import file_order
import numpy as np
import pydicom
import pytest
from cases import tiny_patient
from programs import run, run_entry

from segthor.dicom import places
from segthor.organs import SEGTHOR


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Two DICOM series of one phantom; label maps: as drawn, and upside down."""
    folder = tmp_path_factory.mktemp("given")
    made = tiny_patient(40)
    for name, turn in (("good", slice(None)), ("upside_down", slice(None, None, -1))):
        stored, drawn = file_order.of(made.volume), file_order.of(made.label_map)
        affine = stored.grid.affine
        hu, turned = phantoms.posed(stored.array, affine)
        names = dict.fromkeys(("patient", "study", "series", "frame"), name)
        phantoms.write_series(folder / "in" / name, hu, turned, **names)
        labels = phantoms.posed(drawn.array, affine)[0]
        grid = places.stack(str(folder / "in" / name)).grid
        file_order.write(folder / "maps" / f"{name}.nii.gz", labels[..., turn], grid)
    return folder


def convert(given, output, **flags):
    flags = {"predictions": given / "maps", "scans": given / "in", "output": output} | flags
    return run_entry("serving.convert", **flags)


def test_an_upside_down_label_map_is_named_and_its_drafts_say_so(given, tmp_path):
    done = convert(given, tmp_path, formats="rtstruct,seg")
    assert done.returncode == 0, done.stderr
    good, bad = (line for line in done.stdout.splitlines() if line.startswith("["))
    assert "look at it" not in good and "upside_down  " in bad and "look at it: " in bad
    doubt = bad.partition("look at it: ")[2].rpartition("  (")[0]
    for name, label, code in (
        ("good", "DRAFT segthor", "DRAFT"),
        ("upside_down", "DRAFT SUSPECT", "DRAFT SUSPECT"),
    ):
        drawn = pydicom.dcmread(tmp_path / f"{name}_rtstruct.dcm")
        assert (drawn.StructureSetLabel, drawn.StructureSetName) == (label, label)
        assert (doubt in drawn.StructureSetDescription) is (name == "upside_down")
        assert pydicom.dcmread(tmp_path / f"{name}_seg.dcm").ContentLabel == code
    assert "is there already" in convert(given, tmp_path, formats="rtstruct,seg").stdout


def test_what_is_there_of_another_label_map_or_program_is_no_result(given, tmp_path):
    maps = shutil.copytree(given / "maps", tmp_path / "maps")
    assert convert(given, tmp_path / "out", predictions=maps).returncode == 0
    stored = file_order.read(maps / "good.nii.gz")
    file_order.write(maps / "good.nii.gz", np.roll(stored.array, 1, 0), stored.grid)
    (tmp_path / "out" / "upside_down_rtstruct.dcm").write_bytes(b"")
    before = (tmp_path / "out" / "good_rtstruct.dcm").read_bytes()
    done = convert(given, tmp_path / "out", predictions=maps)
    assert done.returncode == 1
    assert done.stdout.count("not made of this label map; --overwrite it") == 2
    assert (tmp_path / "out" / "good_rtstruct.dcm").read_bytes() == before
    done = convert(given, tmp_path / "out", predictions=maps, overwrite=True)
    assert done.returncode == 0
    assert (tmp_path / "out" / "good_rtstruct.dcm").read_bytes() != before


def test_a_table_beside_that_of_the_predictions_is_refused_as_by_evaluate(given, tmp_path):
    maps = shutil.copytree(given / "maps", tmp_path / "maps")
    noted = {"format": 1, "models": ["0"], "organs": SEGTHOR.to_json()}
    (maps / "predictions.json").write_text(json.dumps(noted))
    swapped = {"esophagus": 2, "heart": 1, "trachea": 3, "aorta": 4}
    lines = ["name,label", *(f"{name},{label}" for name, label in swapped.items())]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    flags = {"predictions": maps, "organ_table": tmp_path / "table.csv"}
    done = convert(given, tmp_path / "out", **flags)
    said = f"error: --organ_table: {maps} holds its own table; leave the flag out\n"
    assert (done.returncode, done.stderr) == (2, said)
    assert not (tmp_path / "out").exists()
    done = run_entry("serving.evaluate", labels=maps, output=tmp_path / "scores", **flags)
    assert (done.returncode, done.stderr) == (2, said)


def test_a_disk_that_is_full_after_the_first_format_leaves_none(given, tmp_path):
    whole = tmp_path / "whole"
    assert convert(given, whole, formats="rtstruct,seg").returncode == 0
    sizes = [(whole / f"good_{kind}.dcm").stat().st_size for kind in ("rtstruct", "seg")]
    limit = (min(sizes) + max(sizes)) // 2
    command = [sys.executable, "-m", "serving.convert", "--formats=rtstruct,seg"]
    command += [f"--predictions={given / 'maps'}", f"--scans={given / 'in'}"]
    done = subprocess.run(
        [*command, f"--output={tmp_path / 'out'}"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode in (1, 2) and "File too large" in done.stdout + done.stderr
    assert list((tmp_path / "out").iterdir()) == []


ORIGIN = """
import os, sys
from serving import convert  # in a process of its own: it defines flags
os.path.getmtime = lambda _: float(sys.argv[2])
origin = convert._origin(sys.argv[1])
print(origin["date"], origin["time"])
"""


@pytest.mark.parametrize(
    "seconds, expected",
    [
        (-1e11, "19700101 000000"),
        (0, "19700101 000000"),
        (1e9, "20010909 014640"),
        (253402300800, "99991231 235959"),
        (1e18, "99991231 235959"),
    ],
)
def test_whatever_a_disks_clock_says_is_a_date_of_dicom(tmp_path, seconds, expected):
    (tmp_path / "map.nii").write_bytes(b"")
    done = run(["-c", ORIGIN, tmp_path / "map.nii", seconds])
    assert done.stdout.strip() == expected, done.stderr
