"""The JSON files that the programs write, each with the function that reads it; for `fuzz_all`."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from beam_jobs import inspection
from segthor import fields, inputs, json_files, layouts, model_directory, organ_table, reference
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
from segthor.organs import SEGTHOR
from segthor.recipe import Recipe
from segthor.reference import Reference, Spread
from serving import card
from serving.prediction import facts, postprocess, results
from serving.review import cases, expectation
from serving.review.evidence import FEATURES, OF_ORGAN
from serving.review.judge import Judge
from serving.scoring import comparison
from tests.cases import MEASURED
from trainer import length, run
from trainer.config import Config

_STATISTICS = Statistics(
    {"all": 10, "heart": 3},
    {"heart": {"5": 1.0, "50": 2.0, "95": 3.0}},
    {"min": 0.9, "median": 1.0, "max": 1.1},
    {"min": 2.0, "median": 3.0, "max": 4.0},
)
_EVIDENCE = dict.fromkeys(OF_ORGAN, 0.5) | {
    "gaps": 0,
    "weak_slices": 1,
    "disagreeing_slices": 0,
    "disagreement": None,
    "slices": [3, 4],
}
_ROW = {
    "patient": "A",
    "kind": "as it is",
    "organ": "heart",
    "found": True,
    "drawn": True,
    "dice": 0.9,
    "surface_dice": 0.8,
    "scan": {"slice_mm": [3.0, 0.2]},
    "evidence": _EVIDENCE,
}
_ODD = (None, True, -1, 0, 1 << 70, 1e300, 0.5, "", "²", "heart", "../x", [], {}, [[]], [None])


@dataclass(frozen=True)
class Document:
    """One file. path: Where it lies. content: Its undamaged bytes. read: Reads it, or refuses."""

    path: Path
    content: bytes
    read: object


def odd_value(rng, content: bytes) -> bytes:
    """The same JSON with one value, anywhere in it, replaced, removed or doubled."""
    holder = {"": json.loads(content)}
    key, inner = "", holder
    while isinstance(inner[key], dict | list) and inner[key] and rng.random() < 0.9:
        inner = inner[key]
        keys = list(inner) if isinstance(inner, dict) else range(len(inner))
        key = keys[rng.integers(len(keys))]
    change = rng.random()
    if change < 0.7:
        inner[key] = _ODD[rng.integers(len(_ODD))]
    elif change < 0.85:
        del inner[key]
    elif isinstance(inner, dict):
        inner[f"{key}2"] = inner[key]
    else:
        inner.append(inner[key])
    return json.dumps(holder.get("")).encode()


def documents(folder: Path) -> list[Document]:
    """Writes one of every kind below `folder`, as the programs do."""
    data, model, workdir = (str(folder / name) for name in ("data", "model", "run"))
    predictions = str(folder / "predictions")
    _dataset().save(data)
    results.Results(predictions, {"models": ["0" * 16]}, SEGTHOR).claim(False)
    _facts().save(predictions, "A")
    record = _record(data).to_json()
    json_files.write(f"{workdir}/{run.RUN}", record)
    json_files.write(f"{workdir}/{run.SUMMARY}", {"best_dice": 0.9, "epochs": 2})
    _write_model(model, record)
    card.save(model, card.make(_record(data), workdir, "best", "", ""))
    scores = {"patients": {"A": {"heart": {"dice": 0.9, "hausdorff_mm": None}}}}
    json_files.write(str(folder / "scores.json"), scores)
    json_files.write(str(folder / "table.json"), SEGTHOR.to_json())
    json_files.write(f"{folder}/rows.json", {"key": ["4", "1"], "rows": [_ROW, _ROW]})
    json_files.write(f"{workdir}/length.json", {"steps": 20, "validate_every": 5})
    readers = {
        f"{data}/dataset.json": lambda: _use_dataset(data),
        facts.path(predictions, "A"): lambda: _judge(predictions),
        f"{folder}/rows.json": lambda: cases.read_cache(f"{folder}/rows.json"),
        f"{workdir}/length.json": lambda: fields.from_json(
            length.Length, json_files.read(f"{workdir}/length.json"), "length"
        ),
        f"{predictions}/{layouts.PREDICTIONS}": lambda: _read_settings(predictions),
        f"{workdir}/{run.RUN}": lambda: run.read(workdir),
        f"{workdir}/{run.SUMMARY}": lambda: run.read(workdir),
        model_directory.asset(model, card.JSON): lambda: card.read(model),
        str(folder / "scores.json"): lambda: comparison.load(str(folder)),
        str(folder / "table.json"): lambda: organ_table.read(str(folder / "table.json")),
    }
    readers |= {model_directory.asset(model, name): read for name, read in _assets(model).items()}
    return [Document(Path(path), Path(path).read_bytes(), read) for path, read in readers.items()]


def _use_dataset(data: str) -> None:
    """What trainer and beam_jobs.inspect make of a manifest, without its shards."""
    dataset = Dataset.load(data)
    "\n".join(inspection.describe(dataset))
    measured = reference.compute_reference(dataset.patients)
    json.dumps(measured and dataclasses.asdict(measured), allow_nan=False)


def _judge(predictions: str) -> None:
    """What a second run of serving.predict makes of a case's facts."""
    known = facts.read_of_table(predictions, "A", SEGTHOR)
    if known.evidence:
        scan = {name: Spread(1.0, 1.0, 1.0, 1.0) for name in ("slice_mm", "pixel_mm")}
        judge = Judge({}, Reference(5, (0.5, 0.5), scan, {}))
        judge.judge(**vars(known.evidence), findings=known.findings or ())


def _read_settings(predictions: str):
    results.settings_of(predictions)
    if inputs.read_predicted_organs(predictions) is not None:
        results.Results(predictions, {"models": ["0" * 16]}, SEGTHOR).claim(False)


def _assets(model: str) -> dict:
    """What reads each asset of a model's folder."""
    path = model_directory.asset(model, model_directory.RECIPE)
    return {
        model_directory.MODEL: lambda: model_directory.digest(model),
        model_directory.RECIPE: lambda: fields.from_json(Recipe, json_files.read(path), "recipe"),
        model_directory.TABLE: lambda: model_directory.table(model),
        model_directory.WEIGHTS: lambda: model_directory.weight_names(model),
        model_directory.RULES: lambda: postprocess.load(model, SEGTHOR),
        model_directory.REVIEW: lambda: expectation.load(model),
    }


def _write_model(model: str, record: dict) -> None:
    """The assets that are JSON, as `serving.export`, `serving.tune` and `serving.calibrate` do."""
    values = {
        model_directory.MODEL: {"format": model_directory.FORMAT, "digest": "0" * 16},
        model_directory.RECIPE: record["recipe"],
        model_directory.TABLE: SEGTHOR.to_json(),
        model_directory.WEIGHTS: ["a", "b"],
        model_directory.TRAINING: record,
    }
    for name, value in values.items():
        json_files.write(model_directory.asset(model, name), value)
    postprocess.save(model, {"heart": postprocess.Rule(largest=True, min_cm3=1.5)}, [])
    tree = expectation.Tree((0, 0, 0), (0.5, 0.0, 0.0), (1, 0, 0), (2, 0, 0), (0.0, 0.9, 0.4))
    fit = expectation.Fit((tree,), (0.5,), (0.1, 0.2))
    organs = {"heart": expectation.OrganFit(fit, fit, (0.3, 0.4))}
    seen = {"noise_hu": (-1.0, 1.0)}
    expectation.Calibration(
        expectation.FORMAT, FEATURES, 5, 30, seen, organs, ({"organ": "heart"},)
    ).save(model)


_PLACEMENT = Placement((10, 96, 96), (2.5, 0.9, 0.98), (0.0, 0.0), (1.0, 1.0), 96)


def _dataset() -> Dataset:
    places = ((TRAIN, 0), (TRAIN, 1), (VALIDATION, 0))
    shards = tuple(
        Shard(f"{split}-{fold}.tfrecord", split, fold, 10, 1000, "ab" * 32, (f"P{number}",))
        for number, (split, fold) in enumerate(places)
    )
    audit = Audit((Finding("metal", "warn", "metal"),), {"heart": MEASURED})
    contoured = "heart", "aorta"
    patients = tuple(
        Built(shard.patients[0], "ct.nii", "gt.nii", "cd" * 32, shard.split, shard.fold, 10,
              contoured, -50.0, _PLACEMENT, audit, (0.5, 0.5))
        for shard in shards
    )  # fmt: skip
    rejected = Rejected("P9", "bad.nii.gz", "", (Finding("file_truncated", "reject", "cut"),))
    return Dataset(
        Recipe(), 2, shards, patients, (rejected,), (Unlabelled("P8", "x.nii"),),
        _STATISTICS, {"segthor": "1"}, (("heart", 2),), organs=SEGTHOR
    )  # fmt: skip


def _facts() -> facts.Facts:
    judged = facts.OrganJudgement(
        expected_dice=0.9, lower_dice=0.8, review=True, reason="small", slices=(1, 2)
    )
    return facts.Facts(
        job="0" * 16,
        scan={"path": "a.nii", "stamp": "1"},
        label_map={"file": "A.nii.gz", "sha256": "ab" * 32},
        organs=("heart",),
        engine="tensorflow",
        level_hu=-50.0,
        width_hu=400.0,
        volumes_cm3={"heart": 600.0},
        findings=(Finding("metal", "warn", "metal"),),
        postprocess={"heart": facts.Change(1.0, 0.0, 1)},
        evidence=facts.Evidence({"slice_mm": (10.0, 9.5)}, {"heart": _EVIDENCE, "aorta": {}}),
        review=facts.Judgement(True, 0.9, True, "small", False, 0.9, {"heart": judged}),
        objects={"rtstruct": True},
    )


def _record(data: str) -> run.RunRecord:
    spread = {"noise_hu": Spread(*[1.0] * len(dataclasses.fields(Spread)))}
    return run.RunRecord(
        config=Config(organs=("heart",)),
        recipe=Recipe(),
        organs=("heart",),
        organ_table=SEGTHOR,
        data=run.Data(data, "0" * 16),
        replicas=1,
        reference=Reference(5, (0.5, 0.5), spread, {"heart": spread}),
        versions={"segthor": "1"},
    )
