"""One shard, the unit of work: its patients are read, audited, cut and written by one worker.

Beside each shard lies a small part file, the worker's report to the driver: it works alike on every
runner, and tells the next run what is already done. Shards are named after their content, so a
new one never takes the place of one that a manifest names.
"""

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np

from beam_jobs import counts
from beam_jobs.examine import Examined, examine, stamps
from beam_jobs.job import Job
from beam_jobs.plan import ShardPlan
from beam_jobs.thumbnail import png_base64
from segthor import audit, files, manifest, organs, records
from segthor.geometry import Placement
from segthor.patients import Patient
from segthor.recipe import Recipe, with_context

SHARDS, PARTS = "shards", "parts"
VERSION = 2  # raised whenever the same input gives another shard or part


def part_path(output: str, name: str) -> str:
    """Where the worker reports on the shard of this name."""
    return files.join(output, PARTS, f"{name}.json")


def key_of(plan: ShardPlan, job: Job) -> str:
    """Changes whenever the shard has to be written again; reads no file, only their stamps."""
    rules = [VERSION, job.recipe.digest(), job.seed, job.severities, job.label_values]
    marks = [stamps(source) for source in plan.patients]
    return hashlib.sha256(json.dumps([rules, asdict(plan), marks]).encode()).hexdigest()


def load_part(output: str, name: str) -> dict | None:
    """The worker's report, or None where there is none."""
    path = part_path(output, name)
    return files.read_json(path) if files.exists(path) else None


@dataclass(frozen=True)
class _Kept:
    """What the shard needs of a patient; small enough to keep while the others are read.

    images, labels: uint8 [Z, H, W]. affine: [4, 4], the scan's.
    """

    source: Patient
    affine: np.ndarray
    placement: Placement
    level_hu: float
    images: np.ndarray
    labels: np.ndarray


def write(plan: ShardPlan, job: Job) -> dict:
    """Writes the shard, then its part; returns the part."""
    key = key_of(plan, job)  # before reading: a file that changes meanwhile is read again next time
    part = {"key": key, "shard": None, "patients": [], "rejected": [], "unlabelled": []}
    part |= {"likeness": {}, "thumbnails": {}, "statistics": {}}
    kept = []
    for source in plan.patients:
        patient = examine(source, job)
        if patient.likeness:
            part["likeness"][source.name] = _likeness_row(patient)
        if patient.findings:
            part["thumbnails"][source.name] = png_base64(patient)
        if patient.rejected:
            part["rejected"].append(asdict(_rejected_row(patient)))
            continue
        if not source.labels:
            part["unlabelled"].append(asdict(_unlabelled_row(patient)))
            continue
        part["patients"].append(_patient_row(patient, plan))
        counts.add(part["statistics"], counts.of_patient(patient))
        kept.append(_kept(patient))
        del patient  # its scan, before the next one is read
    if kept:
        shard = _write_records(plan, kept, job)
        part["shard"] = asdict(shard)
        for row in part["patients"]:
            row["shard"] = shard.file
    files.write_json(part_path(job.output, plan.name), part, durable=False)
    return part


def _kept(patient: Examined) -> _Kept:
    prepared = patient.prepared
    return _Kept(
        patient.source,
        patient.scans.ct.grid.affine,
        prepared.placement,
        prepared.level_hu,
        prepared.images,
        prepared.labels,
    )


def _write_records(plan: ShardPlan, kept: list[_Kept], job: Job) -> manifest.Shard:
    folder = files.join(job.output, SHARDS)
    slices = [(patient, z) for patient in kept for z in range(len(patient.images))]
    slices.sort(key=lambda one: _shuffled(job.seed, one[0].source.name, one[1]))
    digest, size = hashlib.sha256(), 0

    def path():
        return files.join(folder, f"{plan.name}-{digest.hexdigest()[:8]}.tfrecord")

    # The driver waits for the disk, once for all shards, before a manifest names them.
    place = files.join(folder, plan.name)
    with files.atomic_write(place, final=path, durable=False) as stream:
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
        patients=tuple(patient.source.name for patient in kept),
    )


def _record(patient: _Kept, z: int, recipe: Recipe) -> records.Slice:
    placement = patient.placement
    return records.Slice(
        patient=patient.source.name,
        z=z,
        image=with_context(patient.images, z, recipe.context),
        labels=patient.labels[z],
        contoured=tuple(int(name in patient.source.organs) for name in organs.NAMES),
        scan_shape=placement.scan_shape,
        affine=patient.affine,
        box_px=(*placement.first_px, *placement.step_px),
        level_hu=patient.level_hu,
        width_hu=recipe.window_width_hu,
    )


def _patient_row(patient: Examined, plan: ShardPlan) -> dict:
    """A `manifest.Built` as a dictionary; its shard is not known yet."""
    row = manifest.Built(
        patient=patient.source.name,
        ct=patient.source.ct,
        labels=patient.source.labels,
        fingerprint=patient.scans.fingerprint,
        split=plan.split,
        fold=plan.fold,
        shard="",
        slices=len(patient.prepared.images),
        organs=patient.source.organs,
        level_hu=patient.prepared.level_hu,
        placement=patient.prepared.placement.to_json(),
        audit=patient.audit_json(),
    )
    return asdict(row)


def _unlabelled_row(patient: Examined) -> manifest.Unlabelled:
    level_hu = patient.prepared.level_hu if patient.prepared else None
    source = patient.source
    return manifest.Unlabelled(source.name, source.ct, level_hu, patient.audit_json())


def _rejected_row(patient: Examined) -> manifest.Rejected:
    source = patient.source
    findings = tuple(finding.to_json() for finding in patient.findings)
    return manifest.Rejected(source.name, source.ct, source.labels, findings)


def _likeness_row(patient: Examined) -> dict:
    """What tells one scan under two names. sound: whether it is to be rejected for nothing else."""
    rejects = {one.code for one in patient.findings if one.severity == audit.REJECT}
    return {
        "stamps": patient.scans.stamps,
        "likeness": patient.likeness,
        "sound": rejects <= {"same_scan"},
    }


def _shuffled(seed: int, patient: str, z: int) -> bytes:
    return hashlib.blake2b(f"{seed}/{patient}/{z}".encode(), digest_size=8).digest()
