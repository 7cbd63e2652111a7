"""One patient: reads, audits and prepares it."""

import hashlib
from dataclasses import dataclass, field, replace

from beam_jobs import same_scan
from beam_jobs.job import Job
from segthor import audit, figures, guard, manifest, scans
from segthor.errors import InputError, ReadError
from segthor.findings import FATAL, Finding, is_rejected, judge
from segthor.patients import Patient
from segthor.recipe import Prepared, prepare
from segthor.volume import LabelMap, Volume

_STEP_CODES = "series_gap", "series_uneven"


@dataclass(frozen=True)
class Scans:
    """CT and contours of one patient in memory.

    ct: The scan.
    contours: The contours; None for a patient without.
    fingerprint: SHA-256 over the bytes of CT and contours.
    stamps: Stamps of the files; see `same_scan.stamp_files`.
    """

    ct: Volume
    contours: LabelMap | None
    fingerprint: str
    stamps: tuple[str, ...]


@dataclass(frozen=True)
class Examined:
    """The result of `examine`. What a rejected patient does not reach is None or empty.

    source: The patient; `organs` are those that its contours hold.
    findings: All findings, those that reject first.
    scans: CT and contours.
    scan_digest: Digest of the scan; see `same_scan.digest_planes`.
    organs: Organ's name to its figures.
    prepared: Images and labels for the records.
    """

    source: Patient
    findings: tuple[Finding, ...]
    scans: Scans | None = None
    scan_digest: str = ""
    organs: dict[str, figures.OrganFigures] = field(default_factory=dict)
    prepared: Prepared | None = None

    @property
    def rejected(self) -> bool:
        """Whether a finding keeps this patient out of the dataset."""
        return is_rejected(self.findings)

    def audit(self) -> manifest.Audit:
        """Findings and figures for the manifest."""
        return manifest.Audit(self.findings, self.organs)


def examine(source: Patient, job: Job) -> Examined:
    """Reads, audits and prepares one patient. Errors of its files become findings."""
    if source.fault:
        return Examined(source, (Finding.of(source.fault_code, source.fault),))
    try:
        examined = _examine(source, job)
    except MemoryError:
        message = f"{source.ct}: no memory left; use fewer workers, so that each has more"
        return Examined(source, _judge([Finding.of("file_too_large", message)], job))
    except Exception as error:  # a damaged patient must not stop the others
        error = guard.read_error(source.ct, error)
        return Examined(source, _judge([Finding.of(error.code, str(error))], job))
    if not source.same_scan_as or examined.scans is None:
        return examined
    # Added last, because the other findings decide which of two names keeps the scan.
    same = _judge([same_scan.describe_repeat(source)], job)
    return replace(examined, findings=same + examined.findings)


def _examine(source: Patient, job: Job) -> Examined:
    pair, findings = _read(source, job)
    if pair is None:
        return Examined(source, _judge(findings, job))
    ct, contours = pair.ct, pair.contours
    drawn = contours if contours and contours.zyx.shape == ct.zyx.shape else None
    findings = audit.name_organs_at_gaps(ct.findings, ct.grid, drawn)
    findings += audit.grid_findings(ct.grid) + audit.size_findings(ct.zyx.shape)
    findings += audit.pair_findings(ct.grid, contours.grid) if contours else ()
    findings += audit.finite_findings(ct.zyx)
    if contours:
        findings += contours.findings
        if contours.contoured is not None:  # a structure set says itself which organs it holds
            named = (name for name in source.organs if name in contours.contoured)
            source = replace(source, organs=tuple(named))
    scan_digest = same_scan.digest_planes(ct)
    # After a fatal finding CT and contours do not fit: figures would be wrong, or fail.
    if any(finding.code in FATAL for finding in findings):
        return Examined(source, _judge(findings, job), pair, scan_digest)
    findings += audit.image_findings(figures.measure_image(ct.zyx))
    measured = {}
    if contours:
        measured = figures.measure_organs(ct, contours)
        cut = figures.find_cut_organs(contours)
        findings += audit.organ_findings(measured, source.organs, job.organs, cut)
    examined = Examined(source, _judge(findings, job), pair, scan_digest, measured)
    # A patient for prediction gets its masks later, from an earlier model; it is listed meanwhile.
    lacks_masks = job.recipe.needs_masks and not (source.labels or source.masks)
    return examined if examined.rejected or lacks_masks else _prepare(examined, job)


def _prepare(examined: Examined, job: Job) -> Examined:
    """Adds the prepared images and labels, and the findings about the box."""
    source, pair, findings = examined.source, examined.scans, list(examined.findings)
    prepared = None
    try:
        masks = _read_masks(source, pair.ct, job)
        findings += masks.findings if masks else ()
        prepared = prepare(pair.ct, job.recipe, pair.contours, masks)
    except InputError as error:
        findings.append(Finding.of("cannot_prepare", str(error)))
    else:
        beyond_share = 1 - prepared.placement.share_inside
        findings += audit.box_findings(prepared.labels_outside, beyond_share)
    return replace(examined, findings=_judge(findings, job), prepared=prepared)


def _read(source: Patient, job: Job) -> tuple[Scans | None, list[Finding]]:
    """(CT and contours, []), or (None, findings) where one of them cannot be read."""
    digest, errors = hashlib.sha256(), {}  # errors: message to code, as both may have the same one
    before, ct, contours = same_scan.stamp_files(source), None, None
    rest = (digest, job.most_scan_bytes, source.ct_files)
    try:
        ct = scans.read(source.ct, *rest)
    except ReadError as error:
        errors[str(error)] = error.code
    try:
        if source.labels:
            paths, grid = (source.labels, source.ct), ct and ct.grid
            rules = job.roi_names, job.label_values
            contours = scans.read_contours(*paths, job.organs, *rules, *rest, grid)
    except ReadError as error:
        errors[str(error)] = error.code
    # The digest and the voxels must be of the same bytes.
    if same_scan.stamp_files(source) != before:
        errors["CT or contours changed while they were read"] = "file_changed"
    if errors:
        findings = [Finding.of(code, message) for message, code in errors.items()]
        if ct is None:
            return None, findings
        # Missing slices may be the reason why contours do not fit.
        return None, [one for one in ct.findings if one.code in _STEP_CODES] + findings
    return Scans(ct, contours, digest.hexdigest(), before), []


def _read_masks(source: Patient, ct: Volume, job: Job) -> LabelMap | None:
    """An earlier model's label map, where the contours lack an organ that the recipe needs."""
    if not source.masks or (source.labels and job.recipe.mask_organs <= set(source.organs)):
        return None
    like, most_bytes = (source.ct, ct.grid), job.most_scan_bytes
    return scans.read_labels(source.masks, like, most_bytes=most_bytes, organs=job.organs)


def _judge(findings, job: Job) -> tuple[Finding, ...]:
    return judge(findings, dict(job.severities))
