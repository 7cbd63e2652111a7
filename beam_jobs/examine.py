"""One patient: read, audited, prepared."""

import hashlib
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from beam_jobs.job import Job
from segthor import audit, figures, files, nifti
from segthor.audit import Finding
from segthor.errors import InputError
from segthor.geometry import Orientation
from segthor.patients import Patient
from segthor.recipe import Prepared, prepare


@dataclass(frozen=True)
class Scans:
    """What was read. fingerprint: SHA-256 over the files. stamps: as `stamps` gives them.

    contours: None for a patient without.
    """

    ct: nifti.Scan
    contours: nifti.Scan | None
    fingerprint: str
    stamps: list[str]


@dataclass(frozen=True)
class Examined:
    """One patient and all findings. What reading or preparing did not come to is None or empty.

    likeness: equal for one scan under two names.
    """

    source: Patient
    findings: tuple[Finding, ...]
    scans: Scans | None = None
    likeness: str = ""
    organs: dict[str, figures.OrganFigures] = field(default_factory=dict)
    prepared: Prepared | None = None

    @property
    def rejected(self) -> bool:
        """Whether this patient stays out of the dataset."""
        return audit.is_rejected(self.findings)

    def audit_json(self) -> dict:
        """Findings and figures for the manifest."""
        return {
            "findings": [finding.to_json() for finding in self.findings],
            "organs": {name: asdict(figure) for name, figure in self.organs.items()},
        }


def examine(source: Patient, job: Job) -> Examined:
    """Reads, audits and prepares one patient; whatever is wrong with it ends in findings."""
    if source.fault:
        return Examined(source, (Finding.of("bad_name", source.fault),))
    examined = _examine(source, job)
    if not source.same_scan_as or examined.scans is None:
        return examined
    # Last: which of two names is kept depends on all else that is wrong with either.
    same = Finding.of("same_scan", f"the same scan as that of {source.same_scan_as}")
    return replace(examined, findings=_judged([same], job) + examined.findings)


def _examine(source: Patient, job: Job) -> Examined:
    scans, findings = _read(source)
    if scans is None:
        return Examined(source, _judged(findings, job))
    findings += _grid_findings(scans) + audit.finite_findings(scans.ct.array)
    labels, measured = None, {}
    if scans.contours:
        labels, label_findings = audit.to_labels(scans.contours.array, job.label_values)
        findings += label_findings
    likeness = likeness_of(scans.ct)
    if any(finding.code in audit.FATAL for finding in findings):
        return Examined(source, _judged(findings, job), scans, likeness)
    findings += audit.image_findings(figures.of_image(scans.ct.array))
    if labels is not None:
        measured = figures.of_organs(scans.ct.array, labels, scans.ct.grid.affine)
        findings += audit.organ_findings(measured, source.organs)
    examined = Examined(source, _judged(findings, job), scans, likeness, measured)
    unknown = job.recipe.needs_masks and not (source.labels or source.masks)
    return examined if examined.rejected or unknown else _prepared(examined, labels, job)


def _prepared(examined: Examined, labels: np.ndarray | None, job: Job) -> Examined:
    """Cuts out the box; labels: as this project numbers them, where there are any."""
    source, ct, findings = examined.source, examined.scans.ct, list(examined.findings)
    prepared = None
    try:
        masks = _masks(source, ct, job.recipe.mask_organs)
        prepared = prepare(ct.array, ct.grid.affine, job.recipe, labels, masks)
    except InputError as error:
        findings.append(Finding.of("cannot_prepare", str(error)))
    else:
        beyond_share = 1 - prepared.placement.share_inside
        findings += audit.box_findings(prepared.labels_outside, beyond_share)
    return replace(examined, findings=_judged(findings, job), prepared=prepared)


def _read(source: Patient) -> tuple[Scans | None, list[Finding]]:
    """CT and contours, if any, and their digest from the same reading."""
    digest, findings, scans = hashlib.sha256(), [], []
    before = stamps(source)
    for path in filter(None, (source.ct, source.labels)):
        try:
            scans.append(nifti.read(path, digest))
        except nifti.NiftiError as error:
            findings.append(Finding.of(error.code, str(error)))
    if stamps(source) != before:
        findings.append(Finding.of("file_changed", "CT or contours changed while they were read"))
    if findings:
        return None, findings
    ct, contours = (*scans, None)[:2]
    return Scans(ct, contours, digest.hexdigest(), before), findings


def stamps(source: Patient) -> list[str]:
    """Marks that change when one of the patient's files does; '' for one that is not there."""
    return [_stamp(path) for path in (source.ct, source.labels, source.masks)]


def _stamp(path: str) -> str:
    try:
        return files.stamp(path) if path else ""
    except OSError:  # for the reading to report
        return ""


def likeness_of(ct: nifti.Scan) -> str:
    """Equal for the same scan, however it is compressed, stored or oriented.

    Noise makes the scan's three middle planes unlike those of any other.
    """
    zyx = Orientation.of(ct.grid.affine).to_zyx(ct.array)
    digest = hashlib.sha256(repr(zyx.shape).encode())
    z, y, x = (length // 2 for length in zyx.shape)
    for plane in (zyx[z], zyx[:, y], zyx[:, :, x]):
        digest.update(np.ascontiguousarray(plane, np.float32).tobytes())
    return digest.hexdigest()[:32]


def _grid_findings(scans: Scans) -> list[Finding]:
    grid = scans.ct.grid
    z, y, x = Orientation.of(grid.affine).to_zyx(scans.ct.array).shape
    found = audit.grid_findings(grid) + audit.size_findings(z, (y, x))
    return found + (audit.pair_findings(grid, scans.contours.grid) if scans.contours else [])


def _masks(source: Patient, ct: nifti.Scan, needed: frozenset[str]) -> np.ndarray | None:
    """An earlier model's label map, where the contours lack an organ that the recipe asks for."""
    if not source.masks or (source.labels and needed <= set(source.organs)):
        return None
    masks = nifti.read(source.masks)
    for finding in audit.pair_findings(ct.grid, masks.grid):
        raise InputError(f"{source.masks}: {finding.message}")
    labels, findings = audit.to_labels(masks.array)
    if labels is None:
        raise InputError(f"{source.masks}: {findings[0].message}")
    return labels


def _judged(findings, job: Job) -> tuple[Finding, ...]:
    return audit.judge(findings, dict(job.severities))
