"""One shard, the unit of work: its patients are read, audited, cut and written by one worker.

Beside each shard lies a small part file, the worker's report to the driver: it works alike on every
runner, and tells the next run what is already done. Shards are named after their content, so a
new one never takes the place of one that a manifest names.
"""

import hashlib
import json
from dataclasses import asdict

import numpy as np

from beam_jobs.examine import Examined, examine, stamps
from beam_jobs.job import Job
from beam_jobs.plan import ShardPlan
from beam_jobs.thumbnail import png_base64
from segthor import audit, files, manifest, organs, records
from segthor.recipe import Recipe, with_context
from segthor.resample import label_boxes

SHARDS, PARTS = "shards", "parts"
VERSION = 1  # raised whenever the same input gives other bytes
HU_BIN = 4


def part_path(output: str, plan: ShardPlan) -> str:
    """Where the worker reports on this shard."""
    return files.join(output, PARTS, f"{plan.name}.json")


def key_of(plan: ShardPlan, job: Job) -> str:
    """Changes whenever the shard has to be written again; reads no file, only their stamps."""
    rules = [VERSION, job.recipe.digest(), job.seed, job.severities, job.label_values]
    marks = [stamps(source) for source in plan.patients]
    return hashlib.sha256(json.dumps([rules, asdict(plan), marks]).encode()).hexdigest()


def load_part(output: str, plan: ShardPlan) -> dict | None:
    """The worker's report, or None where there is none."""
    path = part_path(output, plan)
    return files.read_json(path) if files.exists(path) else None


def write(plan: ShardPlan, job: Job) -> dict:
    """Writes the shard, then its part; returns the part."""
    key = key_of(plan, job)  # before reading: a file that changes meanwhile is read again next time
    examined = [examine(source, job) for source in plan.patients]
    kept = [patient for patient in examined if not patient.rejected]
    shard = _write_records(plan, kept, job) if kept else None
    part = {
        "key": key,
        "shard": shard and asdict(shard),
        "patients": [asdict(_patient_row(patient, plan, shard)) for patient in kept],
        "rejected": [asdict(_rejected_row(patient)) for patient in examined if patient.rejected],
        "likeness": {one.source.patient: _likeness_row(one) for one in examined if one.likeness},
        "thumbnails": {one.source.patient: png_base64(one) for one in examined if one.findings},
        "statistics": {name: dict(counts) for name, counts in _statistics(kept).items()},
    }
    files.write_json(part_path(job.output, plan), part)
    return part


def _write_records(plan: ShardPlan, kept: list[Examined], job: Job) -> manifest.Shard:
    folder = files.join(job.output, SHARDS)
    slices = [(patient, z) for patient in kept for z in range(len(patient.images))]
    slices.sort(key=lambda one: _shuffled(job.seed, one[0].source.patient, one[1]))
    digest, size = hashlib.sha256(), 0

    def path():
        return files.join(folder, f"{plan.name}-{digest.hexdigest()[:8]}.tfrecord")

    with files.atomic_write(files.join(folder, plan.name), final=path) as stream:
        for patient, z in slices:
            for piece in records.frame(records.encode(_record(patient, z, job.recipe))):
                stream.write(piece)
                digest.update(piece)
                size += len(piece)
    return manifest.Shard(
        file=f"{SHARDS}/{files.name(path())}",
        split=plan.split,
        fold=plan.fold,
        records=len(slices),
        bytes=size,
        sha256=digest.hexdigest(),
        patients=tuple(patient.source.patient for patient in kept),
    )


def _record(patient: Examined, z: int, recipe: Recipe) -> records.Slice:
    placement = patient.prepared.placement
    return records.Slice(
        patient=patient.source.patient,
        z=z,
        image=with_context(patient.images, z, recipe.context),
        labels=patient.prepared.labels[z],
        contoured=tuple(int(name in patient.source.organs) for name in organs.NAMES),
        scan_shape=placement.scan_shape,
        affine=patient.scans.ct.grid.affine,
        box_px=(*placement.first_px, *placement.step_px),
        level_hu=patient.prepared.level_hu,
        width_hu=recipe.window_width_hu,
    )


def _patient_row(patient: Examined, plan: ShardPlan, shard: manifest.Shard) -> manifest.Patient:
    return manifest.Patient(
        patient=patient.source.patient,
        ct=patient.source.ct,
        labels=patient.source.labels,
        fingerprint=patient.scans.fingerprint,
        split=plan.split,
        fold=plan.fold,
        shard=shard.file,
        slices=len(patient.images),
        organs=patient.source.organs,
        level_hu=patient.prepared.level_hu,
        placement=patient.prepared.placement.to_json(),
        audit=patient.audit_json(),
    )


def _rejected_row(patient: Examined) -> manifest.Rejected:
    source = patient.source
    findings = tuple(finding.to_json() for finding in patient.findings)
    return manifest.Rejected(source.patient, source.ct, source.labels, findings)


def _likeness_row(patient: Examined) -> dict:
    """What tells one scan under two names. sound: whether it is to be rejected for nothing else."""
    rejects = {one.code for one in patient.findings if one.severity == audit.REJECT}
    return {
        "stamps": stamps(patient.source),
        "likeness": patient.likeness,
        "sound": rejects <= {"same_scan"},
    }


def _statistics(kept: list[Examined]) -> dict[str, dict[str, int]]:
    """Counts that add up over shards; see `beam_jobs.statistics`."""
    counts = {}

    def add(name, value, number=1):
        of_name = counts.setdefault(name, {})
        of_name[str(value)] = of_name.get(str(value), 0) + int(number)

    for patient in kept:
        prepared = patient.prepared
        z_mm, y_mm, x_mm = prepared.placement.spacing_zyx_mm
        add("spacing_in_plane_mm", round(max(y_mm, x_mm), 3))
        add("spacing_between_slices_mm", round(z_mm, 3))
        add("slices", "all", len(prepared.labels))
        boxes = label_boxes(prepared.labels)
        for name in patient.source.organs:
            label = organs.BY_NAME[name].label
            box = boxes.get(label, (slice(0, 0),) * 3)
            mask = prepared.labels[box] == label
            add("slices", name, np.count_nonzero(mask.any((1, 2))))
            for low, number in _histogram(prepared.hu[box][mask]):
                add(f"hu/{name}", low, number)
    return counts


def _histogram(hu: np.ndarray):
    """Yields (lowest HU of a bin, values in it), bins of HU_BIN from -1024 to 4096."""
    bins = np.floor_divide(np.clip(hu, -1024, 4095), HU_BIN).astype(np.int64) + 1024 // HU_BIN
    numbers = np.bincount(bins)
    for index in np.flatnonzero(numbers):
        yield int(index) * HU_BIN - 1024, int(numbers[index])


def _shuffled(seed: int, patient: str, z: int) -> bytes:
    return hashlib.blake2b(f"{seed}/{patient}/{z}".encode(), digest_size=8).digest()
