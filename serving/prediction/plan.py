"""A prediction job in plain values: the choices of `serving.predict`, sent to every worker."""

from dataclasses import dataclass, replace

from segthor import dicom, files
from segthor.options import check, option, require, required
from serving.prediction.engine import ENGINES, TENSORFLOW

_NIFTI = "nifti"


@dataclass(frozen=True)
class Plan:
    """What a user may choose; the fields are flags of `serving.predict`."""

    output: str = required("Where the label maps go.")
    models: tuple[str, ...] = required(
        "Model directories from serving.export, with commas between: models of the same organs are "
        "averaged, those of different organs put together.",
        flag="model",
    )
    level_models: tuple[str, ...] = option(
        (),
        "Models with a fixed window that run first; their organs give the patient's own level and "
        "crop centre to models that want them.",
        flag="level_model",
    )
    gate: str = option(
        "", "A classifier; slices that it says do not hold an organ are left empty of it."
    )
    tta: bool = option(
        False, "Average over the flips that each model saw in training, at least one of them."
    )
    postprocess: bool = option(True, "Apply what serving.tune stored with the model.")
    probabilities: bool = option(False, "Also write a map of each organ's probability.")
    formats: tuple[str, ...] = option(
        (_NIFTI,),
        "What to write of each scan: nifti, always; of DICOM scans also rtstruct (a structure set, "
        "for planning systems), seg (for research viewers) or labelmap (the newer kind of SEG).",
    )
    resample_z: bool = option(
        False,
        "Write the label map of a scan with uneven planes, which NIfTI cannot hold, on an even "
        "grid: each slice is that of the nearest plane.",
    )
    allow_gaps: bool = option(
        False, "Predict DICOM series of which slices are missing, on the slices that are there."
    )
    engine: str = option(
        TENSORFLOW,
        "What computes the networks: openvino is faster on many processors (pip install "
        "segthor[openvino]); its label maps differ at most where two organs are equally likely.",
        ENGINES,
    )
    overwrite: bool = option(False, "Predict finished cases again.")
    case_timeout_s: float = option(
        1800.0,
        "Seconds that reading, predicting or writing one case may take; then it is given up.",
        (0.1, 1e6),
        flag="case_timeout",
    )
    most_scan_gb: float = option(
        0.0, "Memory that one scan may fill; 0: a third of what is free.", (0, 1e6)
    )
    gpu_memory_gb: float = option(
        0.0,
        "Memory that prediction may take of each GPU, which others may share; 0: what it needs. A "
        "batch that does not fit is halved.",
        (0, 1e6),
    )
    review_recall: float = option(
        0.95,
        "Of the bad predictions, the share that the cases marked for review must hold (needs "
        "serving.calibrate).",
        (0, 1),
    )

    def __post_init__(self):
        check(self)
        known = (_NIFTI, *dicom.FORMATS)
        unknown = sorted(set(self.formats).difference(known))
        require(not unknown, "formats", f"some of {', '.join(known)}", ", ".join(unknown))

    @property
    def wants_nifti(self) -> bool:
        """Whether a scan without a label map in NIfTI counts as failed."""
        return _NIFTI in self.formats

    @property
    def dicom_formats(self) -> tuple[str, ...]:
        """The DICOM formats to write, in the order of `segthor.dicom.FORMATS`."""
        return tuple(kind for kind in dicom.FORMATS if kind in self.formats)

    @property
    def wants_probabilities(self) -> bool:
        """Whether maps of the organs' probabilities are needed."""
        return self.probabilities or dicom.RTSTRUCT in self.formats

    @property
    def most_scan_bytes(self) -> int | None:
        """Memory that one scan may fill; None: a share of what the worker's machine has free."""
        return int(self.most_scan_gb * 1e9) or None

    def with_absolute_paths(self) -> "Plan":
        """The same plan for workers that run in other folders."""
        return replace(
            self,
            output=files.absolute(self.output),
            models=tuple(map(files.absolute, self.models)),
            level_models=tuple(map(files.absolute, self.level_models)),
            gate=files.absolute(self.gate) if self.gate else "",
        )
