"""Whether two patients are one scan under two names, which could lie on both sides of the split.

Two marks answer it. Stamps change when a file does, and cost no reading. A digest of three planes
of the scan is known once a worker has read it; workers leave it beside the shards, for the driver.
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
class ScanMark:
    """What a worker found out about one patient's scan.

    stamps: Of the patient's files, see `stamps`.
    scan_digest: Of the scan, see `digest_of`.
    accepted: Whether nothing else speaks against the patient.
    """

    stamps: tuple[str, ...]
    scan_digest: str
    accepted: bool


def stamps(source: Patient) -> tuple[str, ...]:
    """Changes when one of the patient's files does; '' for a file that is not there."""
    return (
        _stamp(source.ct, source.ct_files),
        _stamp(source.labels),
        _stamp(source.masks),
    )


def _stamp(path: str, among=()) -> str:
    try:
        return scans.stamp(path, among) if path else ""
    except OSError:  # reported when the file is read
        return ""


def digest_of(ct: Volume) -> str:
    """Equal for the same scan, however it is compressed, stored or oriented.

    Noise makes the three middle planes of a scan unlike those of any other.
    """
    digest = hashlib.sha256(repr(ct.zyx.shape).encode())
    z, y, x = (length // 2 for length in ct.zyx.shape)
    for plane in (ct.zyx[z], ct.zyx[:, y], ct.zyx[:, :, x]):
        digest.update(np.ascontiguousarray(plane, np.float32).tobytes())
    return digest.hexdigest()[:32]


def mark_repeated(patients, marks: Iterable[dict[str, ScanMark]], severities) -> list[Patient]:
    """The patients, with `same_scan_as` where one repeats the scan of another.

    Of several patients with one scan, the first by name is kept that nothing else speaks against;
    one with contours before one without.

    marks: Patient -> mark, of each shard that was written.
    severities: (code, severity) that the user chose.
    """
    by_name, alike = {patient.name: patient for patient in patients}, defaultdict(list)
    for of_shard in marks if dict(severities).get("same_scan") != IGNORE else ():
        for name, mark in of_shard.items():
            if name in by_name and mark.stamps == stamps(by_name[name]):
                rank = (not mark.accepted, not by_name[name].labels, name)
                alike[mark.scan_digest].append(rank)
    ranked = [[name for *_, name in sorted(group)] for group in alike.values()]
    repeated = {name: kept for kept, *others in ranked for name in others}
    return [
        replace(one, same_scan_as=repeated[one.name]) if one.name in repeated else one
        for one in patients
    ]


def finding(source: Patient) -> Finding:
    """Says whose scan it is."""
    return Finding.of("same_scan", f"the same scan as that of {source.same_scan_as}")
