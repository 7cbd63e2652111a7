"""Traits that distinguish the series of one patient without identifying the patient."""

import re
from dataclasses import dataclass, field

from segthor.dicom.elements import numbers, text

_MOST_MM = 1e5  # no scanner has larger distances
_PROJECTIONS = {"MIP", "MINIP", "MAXIP", "PROJECTION"}
# Usual names of kernels; any other text might identify the patient, and is not printed.
_KERNEL = re.compile(
    r"[A-Za-z]{1,3}\d{2,3}[a-z]?|[A-Z]{1,2}|STANDARD|STND|LUNG|BONE|BONEPLUS|DETAIL|SOFT|SMOOTH|"
    r"SHARP|EDGE|CHST|ULTRA"
)
# Makers by their first word; any other text may be the name of a hospital.
_MAKERS = ("siemens", "ge", "philips", "toshiba", "canon", "hitachi", "fujifilm", "neusoft")
_MAKERS += ("united imaging", "uih", "varian", "accuray", "elekta", "samsung", "shimadzu")
_POSITIONS = {f"{way}{side}" for way in ("HF", "FF") for side in ("S", "P", "DR", "DL")}
_PERCENT = re.compile(r"(\d{1,3})(?:\.\d+)?\s*%")
_DECIMALS = (
    "PixelSpacing ImagePositionPatient ImageOrientationPatient RescaleSlope RescaleIntercept"
).split()


@dataclass(frozen=True, slots=True)
class Traits:
    """Traits of a CT image.

    kernel: Name of the reconstruction kernel; '' where it is not a usual one.
    has_contrast: Whether the header names a contrast agent.
    phase_percent: Respiratory or cardiac phase; '' for none.
    is_projection: Whether the image is a maximum or minimum intensity projection.
    acquired: Date and time of acquisition, for sorting only; never printed or written.
    maker: Maker of the scanner in lower case; '' where it is not a usual one.
    position: PatientPosition, such as HFS (head first, supine); '' where it is missing.
    """

    kernel: str = ""
    has_contrast: bool = False
    phase_percent: str = ""
    is_projection: bool = False
    acquired: str = field(default="", repr=False)
    maker: str = ""
    position: str = ""

    def to_json(self) -> dict[str, str]:
        """The traits that a manifest may contain: no time, and no free text of the file."""
        contrast = "yes" if self.has_contrast else "no"
        known = {"maker": self.maker, "kernel": self.kernel, "position": self.position}
        return {name: text for name, text in known.items() if text} | {"contrast agent": contrast}


def spacing_between_slices(dataset) -> float:
    """SpacingBetweenSlices in mm, else SliceThickness; 0 where the file has neither."""
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = numbers(dataset, keyword, 1)
        if value and 0 < value[0] < _MOST_MM:
            return value[0]
    return 0.0


def has_commas(dataset) -> bool:
    """Whether a number for the position or scale of the pixels has a decimal comma."""
    holders = [dataset]
    for group in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for item in (dataset.get(group) or ())[:1]:
            holders += [inner for element in item if element.VR == "SQ" for inner in element.value]
    return any("," in text(one, keyword) for one in holders for keyword in _DECIMALS)


def read_traits(dataset, image_type) -> Traits:
    """Reads the traits of a CT image. image_type: Values of ImageType in upper case."""
    kernel = text(dataset, "ConvolutionKernel").split("\\")[0]
    phases = [
        text(dataset, f"NominalPercentageOf{part}Phase") for part in ("Respiratory", "Cardiac")
    ]
    # Scanners write the phase of a 4D CT into the description; only the number is stored.
    named = _PERCENT.search(text(dataset, "SeriesDescription"))
    phase = next((one for one in phases if re.fullmatch(r"\d{1,3}(\.0*)?", one)), "")
    maker = text(dataset, "Manufacturer").lower()
    position = text(dataset, "PatientPosition").upper()
    return Traits(
        maker=next((one for one in _MAKERS if re.match(rf"{one}\b", maker)), ""),
        position=position if position in _POSITIONS else "",
        kernel=kernel if _KERNEL.fullmatch(kernel) else "",
        has_contrast=bool(text(dataset, "ContrastBolusAgent")),
        phase_percent=phase.partition(".")[0] or (named[1] if named else ""),
        is_projection=bool(_PROJECTIONS & set(re.split(r"[ _]", " ".join(image_type)))),
        acquired=text(dataset, "AcquisitionDate") + text(dataset, "AcquisitionTime"),
    )
