"""The options of a prediction job, sent to every worker; flags of `serving.predict`."""

from dataclasses import dataclass, replace

from segthor import dicom, files
from segthor.options import check, option, require, required
from serving.prediction.engine import ENGINES, TENSORFLOW

NIFTI = "nifti"


@dataclass(frozen=True)
class Plan:
    """The options of a prediction job; each field is a flag of `serving.predict`."""

    output: str = required("Folder of the label maps.")
    models: tuple[str, ...] = required(
        "Model directories of serving.export, separated by commas: models of the same organs are "
        "averaged, models of different organs combined.",
        flag="model",
    )
    level_models: tuple[str, ...] = option(
        (),
        "Models with a fixed window that run first; their organs give window level and crop centre "
        "to models that take these from organs.",
        flag="level_model",
    )
    gate: str = option(
        "", "A classifier; an organ is removed from slices that do not hold it by this model."
    )
    tta: bool = option(False, "Average over the flips of each model's training.")
    postprocess: bool = option(True, "Apply the rules that serving.tune stored with the model.")
    probabilities: bool = option(False, "Also write a map of each organ's probability.")
    formats: tuple[str, ...] = option(
        (NIFTI,),
        "Formats of the label maps: nifti is always written; for DICOM scans also rtstruct (a "
        "structure set, for planning systems), seg (for research viewers) or labelmap (the newer "
        "kind of SEG).",
    )
    resample_z: bool = option(
        False,
        "Write the label map of a scan with uneven planes, which NIfTI cannot hold, on an even "
        "grid: each slice is that of the nearest plane.",
    )
    allow_gaps: bool = option(
        False, "Predict DICOM series with missing slices, on the slices that exist."
    )
    engine: str = option(
        TENSORFLOW,
        "Inference engine: openvino is faster on many CPUs (pip install segthor[openvino]); its "
        "label maps differ at most where two organs are equally probable.",
        ENGINES,
    )
    overwrite: bool = option(False, "Predict finished cases again.")
    case_timeout_s: float = option(
        1800.0,
        "Seconds that reading, predicting or writing a case may take before it is abandoned.",
        (0.1, 1e6),
        flag="case_timeout",
    )
    most_scan_gb: float = option(
        0.0, "Largest memory of one scan; 0: a third of the free memory.", (0, 1e6)
    )
    gpu_memory_gb: float = option(
        0.0,
        "Memory limit on each GPU; 0: as much as needed. A batch that does not fit is halved.",
        (0, 1e6),
    )
    review_recall: float = option(
        0.95,
        "Share of the bad predictions that the cases marked for review should contain (needs "
        "serving.calibrate).",
        (0, 1),
    )

    def __post_init__(self):
        check(self)
        known = (NIFTI, *dicom.FORMATS)
        unknown = sorted(set(self.formats).difference(known))
        require(not unknown, "formats", f"some of {', '.join(known)}", ", ".join(unknown))

    @property
    def wants_nifti(self) -> bool:
        """Whether a scan without a label map in NIfTI counts as failed."""
        return NIFTI in self.formats

    @property
    def dicom_formats(self) -> tuple[str, ...]:
        """DICOM formats to write, in the order of `segthor.dicom.FORMATS`."""
        return tuple(kind for kind in dicom.FORMATS if kind in self.formats)

    @property
    def wants_probabilities(self) -> bool:
        """Whether maps of the organs' probabilities are needed."""
        return self.probabilities or dicom.RTSTRUCT in self.formats

    @property
    def most_scan_bytes(self) -> int | None:
        """Largest memory of one scan; None: a share of the free memory of the worker's machine."""
        return int(self.most_scan_gb * 1e9) or None

    def with_absolute_paths(self) -> "Plan":
        """Returns the plan with absolute paths, for workers that run in other folders."""
        return replace(
            self,
            output=files.absolute(self.output),
            models=tuple(map(files.absolute, self.models)),
            level_models=tuple(map(files.absolute, self.level_models)),
            gate=files.absolute(self.gate) if self.gate else "",
        )
