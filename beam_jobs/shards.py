"""One shard, the unit of work: one worker reads, audits and prepares its patients and writes it.

For each shard the worker also writes a small part file, its report to the driver. Files work on
every runner, and the next build reads them to skip shards that are complete. The name of a shard
contains a digest of its content, so a new shard never replaces one that a manifest names.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace

import numpy as np

from beam_jobs import counts
from beam_jobs.examine import Examined, examine
from beam_jobs.job import Job
from beam_jobs.plan import ShardPlan
from beam_jobs.same_scan import ScanReport, stamp_files
from beam_jobs.thumbnail import encode_png
from segthor import fields, files, json_files, manifest, records, reference, underway
from segthor.errors import InputError
from segthor.findings import REJECT

SHARDS, PARTS = "shards", "parts"
STATISTICS = "statistics.json"  # in the folder of the parts: the sum of their counts
VERSION = 6  # increase it when the same input gives another shard or part


def part_path(output: str, name: str) -> str:
    """The path of the part file of a shard."""
    return files.join(output, PARTS, f"{name}.json")


def digest_plan(plan: ShardPlan, job: Job) -> str:
    """Digest of all that decides a shard's content. Opens no file: their stamps stand for them."""
    recipe, organs = job.recipe.digest(), job.organs.digest()
    rules = [VERSION, recipe, job.seed, job.severities, job.label_values, job.roi_names, organs]
    stamps = [stamp_files(source) for source in plan.patients]
    return hashlib.sha256(json.dumps([rules, asdict(plan), stamps]).encode()).hexdigest()


@dataclass(frozen=True)
class Part:
    """A worker's report on one shard; the content of its part file.

    key: Digest of the plan; see `digest_plan`.
    shard: Row of the manifest; None where no patient could be built.
    patients: Rows of the patients that were built.
    rejected: Rows of the patients that were rejected.
    unlabelled: Rows of the patients without contours.
    scans: Patient's name to report, of every scan that could be read.
    thumbnails: Patient's name to PNG in base64, of patients with findings.
    statistics: Counts; see `beam_jobs.counts`.
    """

    key: str
    shard: manifest.Shard | None
    patients: tuple[manifest.Built, ...]
    rejected: tuple[manifest.Rejected, ...]
    unlabelled: tuple[manifest.Unlabelled, ...]
    scans: dict[str, ScanReport]
    thumbnails: dict[str, str]
    statistics: dict[str, dict]

    def save(self, output: str, name: str) -> None:
        """Writes the part file of the shard of this name."""
        json_files.write(part_path(output, name), vars(self), durable=False)

    @classmethod
    def load(cls, output: str, name: str) -> "Part":
        """Reads what `save` wrote; raises InputError where no part file can be read."""
        path = part_path(output, name)
        return fields.from_json(cls, json_files.read(path), path)


def load_finished(plan: ShardPlan, job: Job) -> Part | None:
    """The part of a shard that an earlier run wrote from the same files and rules, or None."""
    try:
        part = Part.load(job.output, plan.name)
    except InputError:  # missing, of another version, or cut off by a loss of power
        return None
    return part if part.key == digest_plan(plan, job) else None


def write(plan: ShardPlan, job: Job) -> Part:
    """Writes the shard, then its part; returns the part."""
    key = digest_plan(plan, job)  # first, so that a file that changes now is read again next time
    built, rejected, unlabelled, prepared = [], [], [], []
    scans, thumbnails, statistics = {}, {}, {}
    for source in plan.patients:
        # If the system kills this process for lack of memory, the next run names this patient.
        with underway.keep_note(files.join(job.output, PARTS), f"{source.name} ({source.ct})"):
            patient = examine(source, job)
        if patient.scan_digest:
            scans[source.name] = _scan_report(patient)
        if patient.findings:
            thumbnails[source.name] = encode_png(patient, job.organs)
        if patient.rejected:
            rejected.append(_rejected_row(patient))
        elif not source.labels:
            unlabelled.append(_unlabelled_row(patient))
        else:
            built.append(_built_row(patient, plan))
            counts.add(statistics, counts.count_patient(patient, job.organs))
            affine = patient.scans.ct.grid.lps_affine()
            prepared.append((replace(patient, scans=None), affine))
        del patient  # frees its scan before the next one is read
    shard = _write_records(plan, prepared, job) if prepared else None
    rows = map(tuple, (built, rejected, unlabelled))
    part = Part(key, shard, *rows, scans, thumbnails, statistics)
    part.save(job.output, plan.name)
    return part


def _write_records(plan: ShardPlan, patients, job: Job) -> manifest.Shard:
    """Writes the shard. patients: (patient, affine of its scan) pairs."""
    folder, slices = files.join(job.output, SHARDS), _shuffle_slices(patients, job.seed)
    digest, size = hashlib.sha256(), 0

    def path():
        return files.join(folder, f"{plan.name}-{digest.hexdigest()[:8]}.tfrecord")

    # Not durable: the driver waits for the disk once for all shards, before the manifest.
    with files.atomic_write(files.join(folder, plan.name), final=path, durable=False) as stream:
        for one in slices:
            for piece in records.frame(records.encode(_record(*one, job))):
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
        patients=tuple(patient.source.name for patient, _ in patients),
    )


def _shuffle_slices(patients, seed: int) -> list[tuple[Examined, np.ndarray, int]]:
    """(patient, affine, z) of every slice."""
    slices = [
        (patient, affine, z)
        for patient, affine in patients
        for z in range(len(patient.prepared.images))
    ]
    # Sorted by a hash, so that neighbouring records are of different patients in training.
    return sorted(slices, key=lambda one: _hash_slice(seed, one[0].source.name, one[2]))


def _record(patient: Examined, affine: np.ndarray, z: int, job: Job) -> records.Slice:
    prepared = patient.prepared
    placement, labels = prepared.placement, prepared.labels[z]
    return records.Slice(
        patient=patient.source.name,
        z=z,
        image=prepared.image(z, job.recipe),
        labels=labels,
        present=records.present_in(labels, job.organs),
        contoured=tuple(int(name in patient.source.organs) for name in job.organs.names),
        scan_shape=placement.shape_zyx[::-1],
        affine=affine,
        box_px=(*placement.first_px, *placement.step_px),
        level_hu=prepared.level_hu,
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
        placement=patient.prepared.placement,
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


def _scan_report(patient: Examined) -> ScanReport:
    rejects = {one.code for one in patient.findings if one.severity == REJECT}
    return ScanReport(patient.scans.stamps, patient.scan_digest, rejects <= {"same_scan"})


def _hash_slice(seed: int, patient: str, z: int) -> bytes:
    text = f"{seed}/{patient}/{z}".encode(errors="surrogatepass")  # names that are not UTF-8
    return hashlib.blake2b(text, digest_size=8).digest()
