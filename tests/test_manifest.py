"""The manifest: what is saved is loaded, and readers refuse what they do not know."""

import copy
import dataclasses
import itertools
import json

import pytest
from cases import MEASURED

from segthor import folds, json_files
from segthor.errors import InputError
from segthor.findings import Finding
from segthor.geometry import Placement
from segthor.manifest import (
    TRAIN,
    VALIDATION,
    Audit,
    Built,
    Dataset,
    Rejected,
    Shard,
    Statistics,
    Unlabelled,
)
from segthor.organs import SEGTHOR, Organ, Organs
from segthor.recipe import Recipe

PLACEMENT = Placement((10, 96, 96), (2.5, 0.9, 0.98), (0.0, 0.0), (1.0, 1.0), 96)


def a_dataset():
    places = ((TRAIN, 0), (TRAIN, 1), (VALIDATION, 0), (VALIDATION, 2))
    shards = tuple(
        Shard(f"{split}-{fold}.tfrecord", split, fold, 10, 1000, "ab" * 32, (f"P{number}",))
        for number, (split, fold) in enumerate(places)
    )
    audit = Audit((Finding("metal", "warn", "metal"),), {"heart": MEASURED})
    patients = tuple(
        Built(f"P{number}", "ct.nii.gz", "gt.nii.gz", "cd" * 32, split, fold, 10,
              ("heart", "aorta"), -50.0, PLACEMENT, audit)
        for number, (split, fold) in enumerate(places)
    )  # fmt: skip
    rejected = Rejected("P9", "bad.nii.gz", "", (Finding("file_truncated", "reject", "cut"),))
    return Dataset(
        Recipe(window_level="median:heart"), 3, shards, patients, (rejected,),
        (Unlabelled("P8", "x.nii"),), Statistics({"all": 10}), {"segthor": "1"}, (("heart", 2),),
        organs=SEGTHOR)  # fmt: skip


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


def changed(folder, change):
    """Loads what `change` made of the manifest's JSON."""
    a_dataset().save(str(folder))
    path = str(folder / "dataset.json")
    value = json_files.read(path)
    value = change(value) or value
    (folder / "dataset.json").write_text(json.dumps(value))
    return Dataset.load(str(folder))


@pytest.mark.parametrize("number", [1, 2, 99])
def test_what_is_no_dataset_is_refused(tmp_path, number):
    with pytest.raises(InputError, match="beam_jobs.build"):
        Dataset.load(str(tmp_path))
    with pytest.raises(InputError, match="expected format 3.*build the dataset again"):
        changed(tmp_path, lambda value: value.update(format=number))


def test_a_table_of_ones_own_is_saved_and_loaded(tmp_path):
    row = Organ("liver", 200, (1, 2, 3), volume_cm3=(500.0, 3000), side="right")
    own = dataclasses.replace(a_dataset(), organs=Organs((*SEGTHOR, row)))
    own.save(str(tmp_path))
    assert Dataset.load(str(tmp_path)) == own


def put(*way):
    """A change that puts the last of `way` where the others lead."""
    *outer, last, item = way

    def change(value):
        for key in outer:
            value = value[key]
        value[last] = item

    return change


def drop(kind, key):
    return lambda value: value[kind][0].pop(key) and None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: [1, 2], "expected format"),
        (lambda value: "text", "expected format"),
        (put("format", [2]), "expected format"),
        (put("organs", {}), "no table of organs: expected a list, found {}"),
        (put("organs", ["heart"]), "no table of organs"),
        (put("organs", 1, "label", 1), "label 1 belongs to esophagus and to heart; build"),
        (put("patients", 0, "organs", 0, "liver"), "the organ 'liver', which the table lacks"),
        (put("label_values", [["liver", 2]]), "label_values name 'liver'"),
        (put("recipe", "window_level", "mean:liver"), "window_level: expected organs of eso"),
        (lambda value: value.pop("shards") and None, "shards: missing"),
        (put("shards", {}), "shards: expected a list, found {}"),
        (put("shards", 0, []), r"shards\[0\]: expected an object"),
        (put("surprise", 1), "surprise: unknown"),
        (put("folds", "3"), "folds: expected a whole number"),
        (put("folds", True), "folds: expected a whole number"),
        (put("folds", 0), "folds: expected 1"),
        (put("recipe", None), "recipe: expected an object"),
        (put("recipe", "context", 2), "recipe: context: expected an odd number"),
        (put("recipe", "crop_mm", "256"), "recipe.crop_mm: expected a finite number"),
        (put("recipe", "crop_mm", float("nan")), "recipe.crop_mm: expected a finite number"),
        (put("recipe", "pixel_mm", float("inf")), "recipe.pixel_mm: expected a finite number"),
        (put("shards", 1, "records", -4), r"shards\[1\].records: .* from 0 on, found -4"),
        (put("shards", 1, "bytes", 1e3), r"shards\[1\].bytes: expected a whole number"),
        (put("shards", 1, "sha256", None), r"shards\[1\].sha256: expected a text"),
        (put("shards", 1, "patients", "P1"), r"shards\[1\].patients: expected a list"),
        (put("shards", 1, "patients", [["P1"]]), r"shards\[1\].patients\[0\]: expected a text"),
        (put("shards", 1, "more", 1), r"shards\[1\].more: unknown"),
        (drop("shards", "fold"), r"shards\[0\].fold: missing"),
        (drop("patients", "placement"), r"patients\[0\].placement: missing"),
        (put("patients", 0, "level_hu", float("nan")), "level_hu: expected a finite number"),
        (put("patients", 0, "audit", "findings", [{"code": "x"}]), "message: missing"),
        (put("patients", 0, "organs", 0, 5), r"organs\[0\]: expected a text"),
        (put("label_values", [["heart"]]), r"label_values\[0\]: expected 2 values"),
        (put("statistics", []), "statistics: expected an object"),
        (put("statistics", "slices", []), "statistics.slices: expected an object"),
        (put("statistics", {"hu_percentiles": {"heart": {"5": 1}}}), "heart: expected 5, 50 and"),
        (put("patients", 0, "placement", {}), r"patients\[0\].placement.*: missing"),
        (put("patients", 0, "placement", "step_px", 0, 0), "sizes above 0, found 0"),
        (put("patients", 0, "placement", "planes_mm", [0, 3]), "an ascending offset for each"),
        (put("patients", 0, "placement", "planes_mm", [0] * 10), "an ascending offset for each"),
        (put("patients", 0, "placement", "first_px", 0, 1e300), "found 1e.300"),
        (put("patients", 0, "level_hu", -1e12), "found -1e.12"),
        (put("patients", 0, "audit", "organs", "heart", {}), "heart.*: missing"),
        (put("patients", 0, "audit", "organs", "heart", "mean_hu", "x"), "mean_hu: expected a fin"),
        (
            lambda value: (
                put("patients", 0, "grey_shares", [1.0])(value)
                or put("patients", 1, "grey_shares", [0.5, 0.5])(value)
            ),
            "grey_shares: expected equally many",
        ),
        (put("shards", 0, "file", "/etc/passwd"), "inside the dataset's folder"),
        (put("shards", 0, "file", "../x.tfrecord"), "inside the dataset's folder"),
        (put("shards", 0, "file", "shards/../../x"), "inside the dataset's folder"),
        (put("shards", 0, "file", "s3://bucket/x"), "inside the dataset's folder"),
        (put("shards", 0, "file", ""), "inside the dataset's folder"),
        (put("shards", 1, "file", "train-0.tfrecord"), "'train-0.tfrecord' is listed 2 times"),
        (put("shards", 0, "split", "test"), "no split 'test'"),
        (put("shards", 0, "fold", 3), "no split 'train' with fold 3"),
        (put("shards", 0, "patients", ["P7"]), "lists 'P7', which has no row"),
        (put("shards", 0, "patients", ["P0", "P0"]), "lists 'P0', which has no row"),
        (put("shards", 0, "patients", ["P0", "P1"]), "'P1' and its shard .* differ"),
        (put("shards", 0, "patients", []), "'P0' is in no shard"),
        (put("patients", 1, "patient", "P0"), "patient 'P0' is listed 2 times"),
        (put("rejected", 0, "patient", "P0"), "patient 'P0' is listed 2 times"),
        (put("rejected", 0, "findings", []), "'P9' is rejected for no reason"),
    ],
)
def test_a_malformed_manifest_is_refused_in_one_line(tmp_path, change, said):
    with pytest.raises(InputError, match=said) as caught:
        changed(tmp_path, change)
    assert str(caught.value).startswith(str(tmp_path / "dataset.json"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


# All of them take 16 s.
@pytest.mark.parametrize("each", [5, pytest.param(1, marks=pytest.mark.thorough)])
def test_whatever_one_value_is_replaced_by_the_end_is_a_manifest_or_one_line(tmp_path, each):
    a_dataset().save(str(tmp_path))
    path = tmp_path / "dataset.json"
    whole = json.loads(path.read_text())
    strange = (None, True, -1, 1e400, float("nan"), "", "x", [], [[]], {}, {"a": 1}, 2**70)
    refused = 0
    for way, item in itertools.islice(itertools.product(_ways(whole), strange), 0, None, each):
        value = copy.deepcopy(whole)
        put(*way, item)(value)
        path.write_text(json.dumps(value))
        try:
            Dataset.load(str(tmp_path))
        except InputError:
            refused += 1
    assert refused > 1000 / each


def _ways(value):
    """The way to every value inside."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in pairs:
        yield (key,)
        if isinstance(item, dict | list):
            yield from ((key, *way) for way in _ways(item))


def test_a_fold_without_a_patient_is_refused_before_anything_is_trained(tmp_path):
    a_dataset().save(str(tmp_path))
    assert folds.load_dataset(str(tmp_path)).folds == 3
    dataclasses.replace(a_dataset(), folds=5).save(str(tmp_path))
    with pytest.raises(InputError, match="none in fold 3; build it again with fewer --folds"):
        folds.load_dataset(str(tmp_path))
