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
from beam_jobs.examine import Examined, examine
from beam_jobs.job import Job
from beam_jobs.plan import ShardPlan
from beam_jobs.same_scan import ScanMark, stamps
from beam_jobs.thumbnail import png_base64
from segthor import fields, files, json_files, manifest, records, reference, underway
from segthor.errors import InputError
from segthor.findings import REJECT
from segthor.geometry import Placement
from segthor.patients import Patient
from segthor.recipe import with_context

SHARDS, PARTS = "shards", "parts"
STATISTICS = "statistics.json"  # lies among the parts: counts over all of them
VERSION = 5  # raised whenever the same input gives another shard or part


def part_path(output: str, name: str) -> str:
    """Where the worker reports on the shard of this name."""
    return files.join(output, PARTS, f"{name}.json")


def key_of(plan: ShardPlan, job: Job) -> str:
    """Changes whenever the shard has to be written again; reads no file, only their stamps."""
    recipe, organs = job.recipe.digest(), job.organs.digest()
    rules = [VERSION, recipe, job.seed, job.severities, job.label_values, job.roi_names, organs]
    marks = [stamps(source) for source in plan.patients]
    return hashlib.sha256(json.dumps([rules, asdict(plan), marks]).encode()).hexdigest()


@dataclass(frozen=True)
class Part:
    """A worker's report on one shard, as it lies beside it. shard: None where nobody was built.

    key: see `key_of`. scans: by patient, of all that could be read. thumbnails: PNG in base64, of
    patients with findings. statistics: see `beam_jobs.counts`.
    """

    key: str
    shard: manifest.Shard | None
    patients: tuple[manifest.Built, ...]
    rejected: tuple[manifest.Rejected, ...]
    unlabelled: tuple[manifest.Unlabelled, ...]
    scans: dict[str, ScanMark]
    thumbnails: dict[str, str]
    statistics: dict[str, dict]

    def save(self, output: str, name: str) -> None:
        """Writes the report on the shard of this name."""
        json_files.write(part_path(output, name), vars(self), durable=False)

    @classmethod
    def load(cls, output: str, name: str) -> "Part":
        """The way back of `save`; raises InputError where there is none that can be read."""
        path = part_path(output, name)
        return fields.from_json(cls, json_files.read(path), path)


def finished(plan: ShardPlan, job: Job) -> Part | None:
    """The report where an earlier run wrote the shard of these very files and rules, or None."""
    try:
        part = Part.load(job.output, plan.name)
    except InputError:  # not there, of another version, or cut off by a loss of power
        return None
    return part if part.key == key_of(plan, job) else None


@dataclass(frozen=True)
class _Kept:
    """What the shard needs of a patient; small enough to keep while the others are read.

    source: The patient.
    affine: [4, 4], as `records.AFFINE`.
    placement: Where the slices lie in the scan.
    level_hu: The window level.
    images: uint8 [Z, H, W].
    labels: uint8 [Z, H, W].
    """

    source: Patient
    affine: np.ndarray
    placement: Placement
    level_hu: float
    images: np.ndarray
    labels: np.ndarray


def write(plan: ShardPlan, job: Job) -> Part:
    """Writes the shard, then its part; returns the part."""
    key = key_of(plan, job)  # before reading: a file that changes meanwhile is read again next time
    built, rejected, unlabelled, kept = [], [], [], []
    scans, thumbnails, statistics = {}, {}, {}
    for source in plan.patients:
        # A note: where the system ends this process, the next run says whose scan it was.
        with underway.noted(files.join(job.output, PARTS), f"{source.name} ({source.ct})"):
            patient = examine(source, job)
        if patient.scan_digest:
            scans[source.name] = _scan_mark(patient)
        if patient.findings:
            thumbnails[source.name] = png_base64(patient, job.organs)
        if patient.rejected:
            rejected.append(_rejected_row(patient))
        elif not source.labels:
            unlabelled.append(_unlabelled_row(patient))
        else:
            built.append(_built_row(patient, plan))
            counts.add(statistics, counts.of_patient(patient, job.organs))
            kept.append(_kept(patient))
        del patient  # its scan, before the next one is read
    shard = _write_records(plan, kept, job) if kept else None
    rows = map(tuple, (built, rejected, unlabelled))
    part = Part(key, shard, *rows, scans, thumbnails, statistics)
    part.save(job.output, plan.name)
    return part


def _kept(patient: Examined) -> _Kept:
    prepared = patient.prepared
    return _Kept(
        patient.source,
        patient.scans.ct.grid.lps_affine(),
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
            for piece in records.frame(records.encode(_record(patient, z, job))):
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


def _record(patient: _Kept, z: int, job: Job) -> records.Slice:
    placement, labels = patient.placement, patient.labels[z]
    return records.Slice(
        patient=patient.source.name,
        z=z,
        image=with_context(patient.images, z, job.recipe.context),
        labels=labels,
        present=records.present_in(labels, job.organs),
        contoured=tuple(int(name in patient.source.organs) for name in job.organs.names),
        scan_shape=placement.shape_zyx[::-1],
        affine=patient.affine,
        box_px=(*placement.first_px, *placement.step_px),
        level_hu=patient.level_hu,
        width_hu=job.recipe.window_width_hu,
    )


def _built_row(patient: Examined, plan: ShardPlan) -> manifest.Built:
    return manifest.Built(
        patient=patient.source.name,
        ct=patient.source.ct,
        labels=patient.source.labels,
        fingerprint=patient.scans.fingerprint,
        split=plan.split,
        fold=plan.fold,
        slices=len(patient.prepared.images),
        organs=patient.source.organs,
        level_hu=patient.prepared.level_hu,
        placement=patient.prepared.placement.to_json(),
        audit=patient.audit(),
        grey_shares=reference.grey_shares(patient.prepared.images),
        acquisition=dict(patient.scans.ct.acquisition),
    )


def _unlabelled_row(patient: Examined) -> manifest.Unlabelled:
    level_hu = patient.prepared.level_hu if patient.prepared else None
    source = patient.source
    return manifest.Unlabelled(source.name, source.ct, level_hu, patient.audit())


def _rejected_row(patient: Examined) -> manifest.Rejected:
    source = patient.source
    return manifest.Rejected(source.name, source.ct, source.labels, patient.findings)


def _scan_mark(patient: Examined) -> ScanMark:
    rejects = {one.code for one in patient.findings if one.severity == REJECT}
    return ScanMark(patient.scans.stamps, patient.scan_digest, rejects <= {"same_scan"})


def _shuffled(seed: int, patient: str, z: int) -> bytes:
    text = f"{seed}/{patient}/{z}".encode(errors="surrogatepass")  # of any file's name
    return hashlib.blake2b(text, digest_size=8).digest()
