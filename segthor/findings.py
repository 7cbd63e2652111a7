"""Findings: problems of a patient's files, each with a code, a severity and a message."""

from dataclasses import dataclass

from segthor.errors import InputError

REJECT, WARN, IGNORE = "reject", "warn", "ignore"

# Code: (default severity, meaning). A patient with a code of FATAL cannot be built at all.
CODES = {
    "bad_name": (REJECT, "no file can be named after the patient on every disk"),
    "file_missing": (REJECT, "the file is not there or cannot be opened"),
    "file_not_nifti": (REJECT, "the file is not a single-file NIfTI"),
    "file_header": (REJECT, "the NIfTI header makes no sense"),
    "file_not_3d": (REJECT, "the file holds another number of axes than three"),
    "file_type": (REJECT, "the voxels are colours or complex numbers"),
    "file_affine": (REJECT, "the affine is not invertible or not finite"),
    "file_too_large": (REJECT, "more voxels than this machine has memory for"),
    "file_not_dicom": (REJECT, "the file is not DICOM"),
    "file_truncated": (REJECT, "the file ends too soon"),
    "file_surplus": (REJECT, "the file holds more slices than its header says"),
    "file_damaged": (REJECT, "the compressed data or their checksum are wrong"),
    "file_changed": (REJECT, "the file changed while it was read"),
    "series_gap": (REJECT, "slices are missing in a DICOM series"),
    "series_uneven": (WARN, "slices at uneven steps, which are kept"),
    "series_bent": (REJECT, "the slices of a DICOM series lie on no straight line"),
    "series_several_volumes": (REJECT, "several volumes where one was expected"),
    "series_mixed": (REJECT, "a DICOM series of several sizes, spacings or directions"),
    "series_no_position": (REJECT, "DICOM images that do not say where they lie"),
    "series_no_rescale": (REJECT, "DICOM images that do not say how their values become HU"),
    "series_duplicates": (WARN, "images that lie in a DICOM series twice"),
    "series_shared_positions": (WARN, "positions with images of two acquisitions; one is read"),
    "series_rounded": (WARN, "slice positions rounded to much of a step; the fitted step is taken"),
    "series_decimal_commas": (WARN, "numbers with a decimal comma, read as with a point"),
    "series_sop_uids": (WARN, "images that share a SOPInstanceUID; nothing can refer to them"),
    "series_uids": (WARN, "slices with a series UID each, read as one volume"),
    "series_patient_ids": (WARN, "the PatientID changes within a series; read as one patient"),
    "series_tilted": (WARN, "the gantry was tilted: slices are sheared against their axis"),
    "series_surplus": (WARN, "DICOM images with more bytes of pixels than their header says"),
    "series_lossy": (WARN, "DICOM images that were compressed with loss"),
    "series_derived": (WARN, "DICOM images that were computed from others"),
    "unforeseen": (REJECT, "an error that was not foreseen; please report it"),
    "dicom_syntax": (REJECT, "a DICOM transfer syntax that cannot be decoded"),
    "structures_none": (REJECT, "a structure set without contours of the table's organs"),
    "structures_ambiguous": (REJECT, "several structure sets, or several series for one"),
    "structures_other_frame": (REJECT, "a structure set of another frame of reference than its CT"),
    "structures_references": (WARN, "a structure set names other images than it was drawn on"),
    "roi_ambiguous": (REJECT, "several ROIs for one organ, or one for several"),
    "roi_names_unmatched": (WARN, "--roi_names names an ROI that the structure set lacks"),
    "roi_empty": (WARN, "an organ's ROI holds no voxel; it counts as not contoured"),
    "contour_between_slices": (REJECT, "contours that lie between the CT's slices"),
    "contour_outside": (REJECT, "contours that lie outside the CT"),
    "contour_nested": (WARN, "contours inside others, read as holes"),
    "contour_crossing": (WARN, "contours that cross others of their organ and are united"),
    "contour_self_crossing": (WARN, "contours that cross themselves"),
    "contour_too_many": (REJECT, "more overlapping contours on a slice than can be compared"),
    "contour_duplicate": (WARN, "contours that are there twice"),
    "contour_interpolated": (WARN, "contours marked as interpolated, read like drawn ones"),
    "contour_commas": (WARN, "contours with a decimal comma, read as a point"),
    "contour_open": (WARN, "open contours and points, which are left out"),
    "contour_without_slice": (WARN, "contours where the series has no slice, which are left out"),
    "contour_tiny": (WARN, "contours too small to hold a voxel's centre"),
    "organs_overlap": (WARN, "voxels in two organs, which are the first one's in the table"),
    "no_orientation": (REJECT, "the header does not say where the patient's left is"),
    "affine_identity": (REJECT, "the affine was reset: 1 mm voxels from the origin"),
    "forms_disagree": (WARN, "sform and qform place the voxels differently"),
    "grid_sheared": (WARN, "the voxel axes are not at right angles"),
    "spacing_absurd": (REJECT, "no scanner has such a voxel size"),
    "spacing_unusual": (WARN, "voxels far coarser or finer than in radiotherapy planning"),
    "few_slices": (REJECT, "too few slices to hold a chest"),
    "few_pixels": (REJECT, "too small a matrix to hold a chest"),
    "shape_mismatch": (REJECT, "contours and CT have other numbers of voxels"),
    "spacing_mismatch": (REJECT, "contours and CT have other voxel sizes"),
    "affine_mismatch": (REJECT, "contours and CT lie at other places or turned"),
    "not_finite": (REJECT, "the CT holds infinite or undefined values"),
    "hu_constant": (REJECT, "all voxels of the CT have one value"),
    "hu_no_air": (REJECT, "nothing as light as air: an offset was lost, or it is no CT"),
    "hu_scale": (REJECT, "no lung or no soft tissue at its HU: wrong slope or offset"),
    "hu_clipped": (WARN, "nothing as dense as bone: values were clipped"),
    "metal": (WARN, "values above the usual 12 bits: metal"),
    "padding": (WARN, "much of the scan is padding"),
    "labels_not_integer": (REJECT, "label values that are not whole numbers"),
    "labels_rounded": (WARN, "label values a hair off whole numbers, taken for those"),
    "labels_unknown": (REJECT, "label values that stand for no organ"),
    "labels_empty": (REJECT, "not one labelled voxel"),
    "organ_missing": (REJECT, "an organ that was to be contoured is not"),
    "organ_cut": (WARN, "an organ lies beside or in voxels that are not annotated"),
    "organ_not_declared": (WARN, "an organ has contours but is not listed as contoured"),
    "organ_volume": (REJECT, "an organ's volume is implausible"),
    "organ_hu": (REJECT, "an organ's mean HU is implausible"),
    "organ_extent": (WARN, "an organ's length along the body is implausible"),
    "organ_components": (WARN, "an organ lies in too many pieces"),
    "organ_gap": (WARN, "an organ is missing in slices between others that have it"),
    "organ_sparse": (REJECT, "an organ is drawn on some slices only: no label for the others"),
    "anatomy_mirrored": (REJECT, "organs do not lie beside one another as they must"),
    "same_scan": (REJECT, "the scan of another patient under a second name"),
    "cannot_prepare": (REJECT, "no body, or no organ to take level or centre from"),
    "labels_outside_box": (WARN, "contours outside the box that is cut out"),
    "box_beyond_scan": (WARN, "much of the box lies outside the scan and is filled with air"),
}


_OF_READING = ("file_", "series_", "dicom_", "structures_", "roi_", "contour_")
FATAL = frozenset(
    [code for code, (kind, _) in CODES.items() if kind == REJECT and code.startswith(_OF_READING)]
    + ["bad_name", "unforeseen", "shape_mismatch", "not_finite", "labels_not_integer"]
    + ["labels_unknown", "cannot_prepare"]
) - {"series_gap"}  # the slices on both sides of a gap can be read


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem of a patient's files.

    code: One of CODES; stable, for programs.
    severity: 'reject' or 'warn'.
    message: For people, with units.
    """

    code: str
    severity: str
    message: str

    @classmethod
    def of(cls, code: str, message: str) -> "Finding":
        """A finding with the default severity of its code."""
        return cls(code, CODES[code][0], message)


def check_severities(severities: dict[str, str]) -> None:
    """Raises InputError for an unknown code or severity, or a code that must reject."""
    for code, severity in severities.items():
        if code not in CODES:
            raise InputError(f"severity: expected one of {', '.join(CODES)}; found {code!r}")
        if severity not in (REJECT, WARN, IGNORE):
            raise InputError(
                f"severity of {code}: expected reject, warn or ignore; found {severity!r}"
            )
        if code in FATAL and severity != REJECT:
            raise InputError(
                f"severity of {code}: expected reject, since such a patient cannot be built; found "
                f"{severity}"
            )


def judge(findings, severities: dict[str, str]) -> tuple[Finding, ...]:
    """The findings with the user's severities, rejects first; ignored ones are left out."""
    judged = [Finding(f.code, severities.get(f.code, f.severity), f.message) for f in findings]
    return tuple(f for severity in (REJECT, WARN) for f in judged if f.severity == severity)


def doubts(findings) -> list[str]:
    """Messages of the findings that make predicted or corrected contours implausible.

    Missing organs are left out: an organ may lie outside the scan.
    """
    return [f.message for f in findings if f.severity == REJECT and f.code != "organ_missing"]


def is_rejected(findings) -> bool:
    """Whether one of the findings rejects the patient."""
    return any(finding.severity == REJECT for finding in findings)


def print_warnings(findings) -> None:
    """Prints each finding as a warning."""
    for finding in findings:
        print(f"warning: {finding.message}", flush=True)
