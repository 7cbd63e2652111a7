"""The manifest: what is saved is loaded, and readers refuse what they do not know."""

import pytest

from segthor import files
from segthor.errors import InputError
from segthor.manifest import TRAIN, VALIDATION, Built, Dataset, Rejected, Shard, Unlabelled
from segthor.recipe import Recipe


def a_dataset():
    shards = tuple(
        Shard(f"{split}-{fold}.tfrecord", split, fold, 10, 1000, "ab" * 32, (f"P{fold}",))
        for split, fold in ((TRAIN, 0), (TRAIN, 1), (VALIDATION, 0), (VALIDATION, 2))
    )
    placement = {"size_px": 96}
    patient = Built(
        "P0", "ct.nii.gz", "gt.nii.gz", "cd" * 32, TRAIN, 0, shards[0].file, 10,
        ("heart", "aorta"), 50.0, placement, {"findings": []},
    )  # fmt: skip
    rejected = Rejected("P9", "bad.nii.gz", "", ({"code": "truncated", "severity": "reject"},))
    return Dataset(
        Recipe(window_level="median:heart"), 3, shards, (patient,), (rejected,),
        (Unlabelled("P8", "x.nii"),), {"slices": 10}, {"segthor": "1"},
    )  # fmt: skip


def test_what_is_saved_is_loaded(tmp_path):
    a_dataset().save(str(tmp_path))
    assert Dataset.load(str(tmp_path)) == a_dataset()


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        a_dataset().save(str(tmp_path / name))
    paths = [tmp_path / name / "dataset.json" for name in ("a", "b")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_split_or_fold_picks_every_shard_once():
    dataset = a_dataset()
    assert [s.file for s in dataset.shards_of(VALIDATION)] == [
        "validation-0.tfrecord",
        "validation-2.tfrecord",
    ]
    for fold in (None, 0, 1, 2):
        both = dataset.shards_of(TRAIN, fold) + dataset.shards_of(VALIDATION, fold)
        assert sorted(both, key=str) == sorted(dataset.shards, key=str)
    assert {s.fold for s in dataset.shards_of(VALIDATION, 0)} == {0}
    assert {s.fold for s in dataset.shards_of(TRAIN, 0)} == {1, 2}


def test_what_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match="beam_jobs.build"):
        Dataset.load(str(tmp_path))
    a_dataset().save(str(tmp_path))
    path = str(tmp_path / "dataset.json")
    files.write_json(path, {**files.read_json(path), "format": 99})
    with pytest.raises(InputError, match="expected format 1.*found format 99"):
        Dataset.load(str(tmp_path))
