"""Verification finds whatever differs from the manifest, and names it."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from cases import TINY_RECIPE, save_patients
from programs import run_entry

from beam_jobs.checks import verify
from beam_jobs.driver import Settings, build
from segthor import files, json_files, records
from segthor.errors import InputError
from segthor.manifest import Dataset
from segthor.organs import SEGTHOR
from segthor.recipe import Recipe


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    source = save_patients(folder / "in", 3)
    build(Settings(source, str(folder / "out"), Recipe(**TINY_RECIPE), organs=SEGTHOR))
    return folder / "out"


@pytest.fixture
def dataset(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "dataset"))


def first_shard(folder):
    shard = Dataset.load(str(folder)).shards[0]
    return shard, folder / shard.file


def rewrite(folder, change):
    """Replaces the first shard's records by change(records), the manifest's sums with them."""
    shard, path = first_shard(folder)
    found = list(records.slices(str(path)))
    with open(path, "wb") as stream:
        for record in change(found):
            stream.writelines(records.frame(records.encode(record)))
    facts = {"bytes": path.stat().st_size, "sha256": files.sha256(str(path))}
    change_manifest(folder, "shards", 0, facts)
    return shard


def change_manifest(folder, kind, index, facts):
    path = str(folder / "dataset.json")
    value = json_files.read(path)
    value[kind][index].update(facts)
    json_files.write(path, value)


def test_what_was_built_is_right(dataset, capsys):
    assert verify(str(dataset)) == Dataset.load(str(dataset))
    assert "problem" not in capsys.readouterr().err


def test_the_program_says_so_in_one_line(dataset):
    done = run_entry("beam_jobs.verify", data=dataset)
    assert done.returncode == 0
    assert done.stdout.endswith("48 slices of 3 patients agree with the manifest\n")
    first_shard(dataset)[1].unlink()
    done = run_entry("beam_jobs.verify", data=dataset)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {dataset}: 1 problems")


@pytest.mark.parametrize("where", [3, 500, -1])
def test_one_flipped_bit_anywhere_is_found(dataset, where, capsys):
    shard, path = first_shard(dataset)
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="problems"):
        verify(str(dataset))
    assert f"{shard.file}: the SHA-256" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [1, 16, 5000])
def test_a_shard_that_was_cut_off_is_found(dataset, cut, capsys):
    shard, path = first_shard(dataset)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(InputError):
        verify(str(dataset))
    said = capsys.readouterr().err
    assert f"expected {shard.bytes} bytes, found {shard.bytes - cut}" in said
    assert "damaged or cut off" in said


def test_a_missing_and_an_extra_file_are_found(dataset, capsys):
    shard, path = first_shard(dataset)
    path.rename(path.with_name("train-fold9-00000000.tfrecord"))
    with pytest.raises(InputError, match="2 problems"):
        verify(str(dataset))
    said = capsys.readouterr().err
    assert f"{shard.file}: missing" in said and "fold9-00000000.tfrecord: not in the manif" in said


def turned(record, by=1):
    """As a scan that lies the other way round, or of other voxels."""
    affine = record.affine @ np.diag([-by, -by, 1, 1]).astype(np.float32)
    return dataclasses.replace(record, affine=affine)


def of_first(**values):
    return lambda found: [dataclasses.replace(found[0], **values), *found[1:]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found[1:], "1 slices missing"),
        (lambda found: [*found, found[0]], "1 slices too many"),
        (of_first(patient="stranger"), "not listed for this shard"),
        (of_first(level_hu=60.0), "window level: expected 50 HU, found 60 HU"),
        (of_first(width_hu=400.0), "window width: expected 350 HU"),
        (of_first(contoured=(1, 0, 1, 1)), "contoured organs"),
        (of_first(present=(2, 0, 0, 0)), "present organs"),
        (of_first(scan_shape=(1, 2, 3)), "scan shape"),
        (of_first(box_px=(1.0, 2.0, 0.5, 0.5)), "box: expected"),
        (of_first(affine=np.eye(4, dtype=np.float32)), "affine: not that of the patient's other"),
        (lambda found: [turned(one) for one in found], "affine: expected another orientation"),
        (lambda found: [turned(one, 2) for one in found], "affine: expected voxels of"),
        (lambda found: [dataclasses.replace(found[0], labels=found[0].labels + 9), *found[1:]],
         "label value"),
        (lambda found: [dataclasses.replace(found[0], image=found[0].image[..., :1]), *found[1:]],
         "image shape"),
    ],
)  # fmt: skip
def test_records_that_differ_from_the_manifest_are_found(dataset, change, said, capsys):
    rewrite(dataset, change)
    with pytest.raises(InputError):
        verify(str(dataset))
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "facts", "said"),
    [
        ("shards", {"records": 7}, "expected 7 records"),
        ("patients", {"slices": 17}, "1 slices missing"),
        ("patients", {"placement": {"size_px": 7}}, "placement.first_px: missing"),
    ],
)
def test_a_manifest_that_differs_from_the_records_is_found(dataset, kind, facts, said, capsys):
    change_manifest(dataset, kind, 0, facts)
    with pytest.raises(InputError) as error:
        verify(str(dataset))
    assert said in capsys.readouterr().err + str(error.value)


def test_only_files_of_the_datasets_own_are_ever_to_be_removed(dataset, tmp_path, capsys):
    """A shard that is a link to elsewhere is named, and left to its owner."""
    dataset_of = Dataset.load(str(dataset))
    first, second = (dataset / shard.file for shard in dataset_of.shards[:2])
    (tmp_path / "elsewhere").write_bytes(b"somebody's")
    first.unlink()
    first.symlink_to(tmp_path / "elsewhere")
    second.write_bytes(b"")
    (dataset / "shards" / "notes.txt").write_text("somebody's")
    with pytest.raises(InputError) as caught:
        verify(str(dataset))
    advice = str(caught.value).split("remove ")[1]
    assert dataset_of.shards[1].file in advice
    assert dataset_of.shards[0].file not in advice and "notes.txt" not in advice
    said = capsys.readouterr().err
    assert dataset_of.shards[0].file in said and "notes.txt: not in the manifest" in said


def test_a_record_of_another_schema_is_found(dataset, capsys):
    _, path = first_shard(dataset)
    with open(path, "wb") as stream:
        stream.writelines(records.frame(b"\x0a\x03abc"))
    with pytest.raises(InputError):
        verify(str(dataset))
    assert "cannot be decoded" in capsys.readouterr().err
