"""One patient: read, audited, prepared."""

import hashlib
from dataclasses import asdict, dataclass

import numpy as np

from beam_jobs.patients import Source
from segthor import audit, files, nifti
from segthor.audit import Finding
from segthor.errors import InputError
from segthor.geometry import Orientation
from segthor.recipe import Prepared, Recipe, prepare


@dataclass(frozen=True)
class Examined:
    """findings: all of them. The other fields are empty where reading or preparing failed.

    images: uint8 [Z, H, W], windowed. figures: organ name to `segthor.audit.OrganFigures`.
    """

    source: Source
    findings: tuple[Finding, ...]
    fingerprint: str = ""
    grid: nifti.Grid | None = None
    figures: dict | None = None
    prepared: Prepared | None = None
    images: np.ndarray | None = None

    @property
    def rejected(self) -> bool:
        """Whether this patient stays out of the dataset."""
        return audit.is_rejected(self.findings)

    def audit_json(self) -> dict:
        """Findings and figures for the manifest."""
        figures = {name: asdict(figure) for name, figure in (self.figures or {}).items()}
        findings = [finding.to_json() for finding in self.findings]
        return {"findings": findings, "organs": figures}


def examine(source: Source, recipe: Recipe) -> Examined:
    """Reads, audits and prepares one patient; whatever is wrong with it ends in findings."""
    try:
        ct, contours = nifti.read(source.ct), nifti.read(source.labels)
    except InputError as error:
        return Examined(source, (Finding.of("unreadable", str(error)),))
    fingerprint = hashlib.sha256(
        (files.sha256(source.ct) + files.sha256(source.labels)).encode()
    ).hexdigest()
    findings = audit.pair_findings(ct.grid, contours.grid) + audit.image_findings(ct.array)
    labels, label_findings = audit.to_labels(contours.array)
    findings += label_findings
    if audit.is_rejected(findings):
        return Examined(source, tuple(findings), fingerprint, ct.grid)
    z_axis = Orientation.of(ct.grid.affine).axes[2]
    figures = audit.organ_figures(ct.array, labels, ct.grid.spacing_mm, z_axis)
    findings += audit.organ_findings(figures, source.organs)
    if audit.is_rejected(findings):
        return Examined(source, tuple(findings), fingerprint, ct.grid, figures)
    try:
        prepared = prepare(ct.array, ct.grid.affine, recipe, labels)
    except InputError as error:
        findings.append(Finding.of("cannot_prepare", str(error)))
        return Examined(source, tuple(findings), fingerprint, ct.grid, figures)
    if prepared.labels_outside:
        message = f"{prepared.labels_outside} labelled voxels lie outside the box that is cut out"
        findings.append(Finding.of("labels_outside_box", message))
    images = prepared.images(recipe)
    return Examined(source, tuple(findings), fingerprint, ct.grid, figures, prepared, images)
