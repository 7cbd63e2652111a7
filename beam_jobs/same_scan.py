"""Whether two patients are one scan under two names, which could lie on both sides of the split.

A digest of three planes identifies a scan. Workers compute it when they read the scan and write it
into the part file of the shard. The driver trusts it as long as the stamps of the patient's files,
which cost no reading, are unchanged.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from segthor import scans
from segthor.findings import IGNORE, Finding
from segthor.patients import Patient
from segthor.volume import Volume


@dataclass(frozen=True)
class ScanReport:
    """What a worker reports about one patient's scan.

    stamps: Stamps of the patient's files; see `stamp_files`.
    scan_digest: Digest of the scan; see `digest_planes`.
    accepted: Whether no other finding rejects the patient.
    """

    stamps: tuple[str, ...]
    scan_digest: str
    accepted: bool


def stamp_files(source: Patient) -> tuple[str, ...]:
    """Stamps of a patient's CT, contours and masks; each changes when the file does.

    '' for a file that does not exist; reading it reports the error.
    """
    return (_stamp(source.ct, source.ct_files), _stamp(source.labels), _stamp(source.masks))


def _stamp(path: str, among=()) -> str:
    try:
        return scans.stamp(path, among) if path else ""
    except OSError:
        return ""


def digest_planes(ct: Volume) -> str:
    """Digest of a scan: equal however the scan is compressed, stored or oriented.

    The three middle planes are enough: noise makes those of two scans differ.
    """
    digest = hashlib.sha256(repr(ct.zyx.shape).encode())
    z, y, x = (length // 2 for length in ct.zyx.shape)
    for plane in (ct.zyx[z], ct.zyx[:, y], ct.zyx[:, :, x]):
        digest.update(np.ascontiguousarray(plane, np.float32).tobytes())
    return digest.hexdigest()[:32]


def assign_same_scan(
    patients, reports: Iterable[dict[str, ScanReport]], severities
) -> list[Patient]:
    """Sets `same_scan_as` of every patient that repeats the scan of another.

    Of several patients with one scan, the original is the first one by name; accepted patients come
    before rejected ones, and patients with contours before those without.

    Args:
      patients: All patients.
      reports: Patient's name to report, for each shard that was written.
      severities: (code, severity) that the user chose.

    Returns:
      The patients, in their order.
    """
    by_name, by_digest = {patient.name: patient for patient in patients}, defaultdict(list)
    for of_shard in reports if dict(severities).get("same_scan") != IGNORE else ():
        for name, report in of_shard.items():
            if name in by_name and report.stamps == stamp_files(by_name[name]):
                rank = (not report.accepted, not by_name[name].labels, name)
                by_digest[report.scan_digest].append(rank)
    ranked = [[name for *_, name in sorted(group)] for group in by_digest.values()]
    originals = {name: original for original, *repeats in ranked for name in repeats}
    return [
        replace(one, same_scan_as=originals[one.name]) if one.name in originals else one
        for one in patients
    ]


def describe_repeat(source: Patient) -> Finding:
    """The finding that names the patient whose scan this one repeats."""
    return Finding.of("same_scan", f"the same scan as that of {source.same_scan_as}")
