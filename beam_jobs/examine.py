"""One patient: read, audited, prepared."""

import hashlib
from dataclasses import asdict, dataclass, field, replace

from beam_jobs import same_scan
from beam_jobs.job import Job
from segthor import audit, figures, guard, manifest, scans
from segthor.errors import InputError, ReadError
from segthor.findings import FATAL, Finding, is_rejected, judge
from segthor.patients import Patient
from segthor.recipe import Prepared, prepare
from segthor.volume import LabelMap, Volume


@dataclass(frozen=True)
class Scans:
    """What was read of one patient.

    ct: The scan.
    contours: None for a patient without contours.
    fingerprint: SHA-256 over the files.
    stamps: Of the files, see `same_scan.stamps`.
    """

    ct: Volume
    contours: LabelMap | None
    fingerprint: str
    stamps: tuple[str, ...]


@dataclass(frozen=True)
class Examined:
    """One patient, as far as it could be examined; the rest is None or empty.

    source: The patient, with the organs that its contours hold.
    findings: All findings, those that reject first.
    scans: What was read.
    scan_digest: Equal for one scan under two names.
    organs: Organ name to figures.
    prepared: What the records are made of.
    """

    source: Patient
    findings: tuple[Finding, ...]
    scans: Scans | None = None
    scan_digest: str = ""
    organs: dict[str, figures.OrganFigures] = field(default_factory=dict)
    prepared: Prepared | None = None

    @property
    def rejected(self) -> bool:
        """Whether this patient stays out of the dataset."""
        return is_rejected(self.findings)

    def audit(self) -> manifest.Audit:
        """Findings and figures for the manifest."""
        return manifest.Audit(
            self.findings, {name: asdict(figure) for name, figure in self.organs.items()}
        )


def examine(source: Patient, job: Job) -> Examined:
    """Reads, audits and prepares one patient; whatever is wrong with it ends in findings."""
    if source.fault:
        return Examined(source, (Finding.of(source.fault_code, source.fault),))
    try:
        examined = _examine(source, job)
    except MemoryError:
        message = f"{source.ct}: no memory left; fewer workers at once have more each"
        return Examined(source, _judged([Finding.of("file_too_large", message)], job))
    except Exception as error:  # whatever it is, the other patients must not suffer
        error = guard.read_error(source.ct, error)
        return Examined(source, _judged([Finding.of(error.code, str(error))], job))
    if not source.same_scan_as or examined.scans is None:
        return examined
    # Last: which of two names is kept depends on all else that is wrong with either.
    same = _judged([same_scan.finding(source)], job)
    return replace(examined, findings=same + examined.findings)


def _examine(source: Patient, job: Job) -> Examined:
    both, findings = _read(source, job)
    if both is None:
        return Examined(source, _judged(findings, job))
    ct, contours = both.ct, both.contours
    findings = [*ct.findings, *_grid_findings(both), *audit.finite_findings(ct.zyx)]
    if contours:
        findings += contours.findings
        if contours.contoured is not None:  # an organ without contours is not contoured
            named = (name for name in source.organs if name in contours.contoured)
            source = replace(source, organs=tuple(named))
    scan_digest = same_scan.digest_of(ct)
    if any(finding.code in FATAL for finding in findings):
        return Examined(source, _judged(findings, job), both, scan_digest)
    findings += audit.image_findings(figures.of_image(ct.zyx))
    measured = {}
    if contours:
        measured = figures.of_organs(ct, contours)
        cut = figures.cut_organs(contours)
        findings += audit.organ_findings(measured, source.organs, job.organs, cut)
    examined = Examined(source, _judged(findings, job), both, scan_digest, measured)
    unknown = job.recipe.needs_masks and not (source.labels or source.masks)
    return examined if examined.rejected or unknown else _prepared(examined, job)


def _prepared(examined: Examined, job: Job) -> Examined:
    """Cuts out the box."""
    source, both, findings = examined.source, examined.scans, list(examined.findings)
    prepared = None
    try:
        masks = _masks(source, both.ct, job)
        findings += masks.findings if masks else ()
        prepared = prepare(both.ct, job.recipe, both.contours, masks)
    except InputError as error:
        findings.append(Finding.of("cannot_prepare", str(error)))
    else:
        beyond_share = 1 - prepared.placement.share_inside
        findings += audit.box_findings(prepared.labels_outside, beyond_share)
    return replace(examined, findings=_judged(findings, job), prepared=prepared)


def _read(source: Patient, job: Job) -> tuple[Scans | None, list[Finding]]:
    """CT and contours, if any, and their digest from the same reading; else why there are none."""
    digest, errors = hashlib.sha256(), {}
    before, ct, contours = same_scan.stamps(source), None, None
    rest = (digest, job.most_scan_bytes, source.ct_files)
    try:
        ct = scans.read(source.ct, *rest)
    except ReadError as error:
        errors[str(error)] = error.code
    try:
        if source.labels:
            names, grid = (job.roi_names, job.label_values), ct and ct.grid
            contours = scans.read_contours(
                source.labels, source.ct, job.organs, *names, *rest, grid
            )
    except ReadError as error:  # of a structure set, maybe what is wrong with its CT
        errors[str(error)] = error.code
    if same_scan.stamps(source) != before:
        errors["CT or contours changed while they were read"] = "file_changed"
    if errors:
        return None, [Finding.of(code, message) for message, code in errors.items()]
    return Scans(ct, contours, digest.hexdigest(), before), []


def _grid_findings(both: Scans) -> list[Finding]:
    grid, contours = both.ct.grid, both.contours
    findings = audit.grid_findings(grid) + audit.size_findings(both.ct.zyx.shape)
    return findings + (audit.pair_findings(grid, contours.grid) if contours else [])


def _masks(source: Patient, ct: Volume, job: Job) -> LabelMap | None:
    """An earlier model's label map, where the contours lack an organ that the recipe asks for."""
    if not source.masks or (source.labels and job.recipe.mask_organs <= set(source.organs)):
        return None
    like = (source.ct, ct.grid)
    return scans.read_labels(
        source.masks, like=like, most_bytes=job.most_scan_bytes, organs=job.organs
    )


def _judged(findings, job: Job) -> tuple[Finding, ...]:
    return judge(findings, dict(job.severities))
