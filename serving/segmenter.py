"""Prediction from Python: one call segments a scan; see docs/python.md.

The steps are those of `serving.predict` (`serving.prediction.case`), so the results are the same,
byte for byte.
"""

import contextlib
import os
import sys
import threading
from dataclasses import dataclass, field, replace

import numpy as np

from segthor import files, guard, inputs, locks, outputs, startup
from segthor.errors import InputError
from segthor.patients import Patient, name_fault
from segthor.volume import Grid, Volume, is_invertible
from serving import card
from serving.prediction import engine as engines
from serving.prediction.facts import Facts, Judgement
from serving.prediction.plan import Plan

_NAME = "scan"  # default name of an array


class Segmenter:
    """Loaded models that segment the organs of one scan after the other.

      segmenter = serving.Segmenter("model", engine="openvino")
      result = segmenter("scan.nii.gz")

    Several threads may call one segmenter at the same time, and use its results. TensorFlow is
    loaded with the first segmenter, unless it is loaded already.
    """

    def __init__(
        self,
        model,
        *,
        level_model=(),
        gate: str = "",
        tta: bool = False,
        postprocess: bool = True,
        engine: str = engines.TENSORFLOW,
        most_scan_gb: float = 0.0,
        allow_gaps: bool = False,
        gpu_memory_gb: float = 0.0,
        review_recall: float = 0.95,
    ):
        """Loads the models.

        Args:
          model: A model directory from serving.export, or several that are used together.
          level_model, gate, tta, postprocess, engine, most_scan_gb, allow_gaps, gpu_memory_gb,
            review_recall: The flags of `serving.predict` with these names; see its --help.

        Raises:
          InputError: A model is missing or does not fit the others, or an engine is not installed.
        """
        plan = Plan(
            output="",
            models=_paths(model),
            level_models=_paths(level_model),
            gate=os.fspath(gate),
            tta=tta,
            postprocess=postprocess,
            engine=engine,
            most_scan_gb=most_scan_gb,
            allow_gaps=allow_gaps,
            gpu_memory_gb=gpu_memory_gb,
            review_recall=review_recall,
        ).with_absolute_paths()
        if not plan.models:
            raise InputError("model: expected model directories, found nothing")
        engines.require(plan.engine)
        if "tensorflow" not in sys.modules:  # keep the settings of a caller that has loaded it
            startup.load_tensorflow()
        from serving.prediction.worker import Worker  # slow import (about 6 s): bad input first

        self._worker = Worker(plan)
        self._writing = threading.Lock()  # two results may be written into one folder

    @property
    def organs(self) -> tuple[str, ...]:
        """Names of the organs that the models predict, in the order of their table."""
        return self._worker.models.organs

    def __call__(self, scan, name: str = "", probabilities: bool = False) -> "Result":
        """Segments the organs of one scan.

        Args:
          scan: A NIfTI file; a folder of DICOM images; a patient of `segthor.inputs.find`; or a
            pair of an array of HU with three axes and its affine, float [4, 4], voxel index to RAS+
            mm, as nibabel gives them.
          name: Name of the files to write; '': the scan's own name.
          probabilities: Whether to keep maps of the organs' probabilities. If they are requested
            later, the networks run again.

        Raises:
          InputError: The scan cannot be used; the message is the line of `serving.predict`.
        """
        with _input_errors():
            return self._segment(scan, name, probabilities)

    def _segment(self, scan, name: str, probabilities: bool) -> "Result":
        from serving.prediction import case as steps

        worker = self._worker
        if isinstance(scan, tuple | list):
            case, (volume, stamp) = Patient(_check_name(name or _NAME), ""), (_volume(*scan), {})
            steps.check_finite(volume, case.name)
        else:
            case = _find(scan, name)
            volume, stamp = steps.read_scan(case, worker.plan.most_scan_bytes)
            steps.check_gaps(volume, case.ct, worker.plan)
        given = steps.add_level_masks(worker, volume, steps.prepare(worker, volume))
        segmented, observer = steps.run_networks(worker, given, probabilities)
        prediction = steps.finish(worker, volume, segmented, observer)
        return Result(self, case, stamp, volume, prediction, probabilities)


@dataclass(frozen=True, eq=False)
class Result:
    """The segmentation of one scan.

    `labels` and the maps of `probabilities` have the shape and the order of axes of the scan's file
    or array, for DICOM images x, y, z. `write` stores them in this order, too.
    """

    _segmenter: Segmenter = field(repr=False)
    _case: Patient
    _stamp: dict = field(repr=False)
    _volume: Volume = field(repr=False)
    _prediction: object = field(repr=False)  # case.CasePrediction, whose module loads TensorFlow
    _has_maps: bool = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the files that `write` makes."""
        return self._case.name

    @property
    def labels(self) -> np.ndarray:
        """uint8, 0 is background; `organs` lists the other values."""
        return self._volume.grid.to_file(self._prediction.labels.zyx)

    @property
    def affine(self) -> np.ndarray:
        """float64 [4, 4], an index into `labels` to RAS+ mm; at uneven steps with their mean."""
        return self._volume.grid.affine

    @property
    def planes_mm(self) -> tuple[float, ...] | None:
        """Distances of planes at uneven steps from the lowest one; None at even steps."""
        planes = self._volume.grid.planes
        return planes and planes.offsets_mm

    @property
    def organs(self) -> dict[str, int]:
        """Predicted organ to its value in `labels`; an organ may have no voxel."""
        table = self._prediction.labels.organs
        return {name: table[name].label for name in self.facts.organs}

    @property
    def volumes_cm3(self) -> dict[str, float]:
        """Organ to its volume; 0 if it was not found."""
        return self.facts.volumes_cm3

    @property
    def review(self) -> Judgement:
        """Whether a person should look at the result, the reason, and expected scores."""
        return self.facts.review

    @property
    def facts(self) -> Facts:
        """The facts that `serving.predict` writes to cases/NAME.json."""
        return self._prediction.known

    def probabilities(self) -> dict[str, np.ndarray]:
        """Organ to its probability, uint8, where 255 is 1; see `Segmenter.__call__`."""
        with _input_errors():
            self._require_maps()
            grid = self._volume.grid
            return {name: grid.to_file(one) for name, one in self._prediction.probabilities.items()}

    def write(
        self, folder, formats=("nifti",), overwrite: bool = False, resample_z: bool = False
    ) -> None:
        """Writes the files of `serving.predict`, into a new folder or one of the same models.

        Args:
          folder: Where FOLDER/NAME.nii.gz, FOLDER/cases/NAME.json and FOLDER/dicom/ go.
          formats: As --formats of `serving.predict`; others than nifti need DICOM images.
          overwrite: Whether a label map that a person corrected may be replaced, and so may the
            results of other models.
          resample_z: As --resample_z of `serving.predict`, for scans with uneven planes.

        Raises:
          InputError: the folder holds something else, or a format that the scan does not allow.
        """
        output, plan = files.absolute(os.fspath(folder)), self._segmenter._worker.plan
        with _input_errors(), self._segmenter._writing:
            own = {"formats": tuple(formats), "overwrite": overwrite, "resample_z": resample_z}
            self._write(replace(plan, output=output, **own))

    def _write(self, plan: Plan) -> None:
        from serving.prediction import case as steps

        case, worker = self._case, self._segmenter._worker.for_plan(plan)
        steps.check_formats(case, plan)
        steps.check_planes(self._volume, case.ct, plan)
        outputs.check_folder(plan.output, {"input": case.ct}, own=outputs.PREDICTIONS)
        if plan.wants_probabilities:
            self._require_maps()
        with locks.lock_folder(plan.output):
            worker.results.claim(plan.overwrite, plan.dicom_formats)
            card.copy((one.folder for one in worker.models.bundles), plan.output)
            worker.results.require_uncorrected(case)
            steps.write(worker, case, self._stamp, self._prediction)

    def _require_maps(self) -> None:
        """Runs the networks again for the maps if they were not requested before."""
        if self._has_maps:
            return
        from serving.prediction import case as steps

        worker = self._segmenter._worker
        given = steps.add_level_masks(worker, self._volume, steps.prepare(worker, self._volume))
        segmented, _ = steps.run_networks(worker, given, probabilities=True)
        self._prediction.probabilities.update(segmented.probabilities)
        object.__setattr__(self, "_has_maps", True)


@contextlib.contextmanager
def _input_errors():
    """Turns errors of the block into the InputError that `serving.predict` would print."""
    try:
        yield
    except (InputError, TypeError):
        raise
    except Exception as error:
        raise InputError(guard.describe(error)) from error


def _paths(given) -> tuple[str, ...]:
    """Converts one path, or several, to a tuple of strings."""
    several = [given] if isinstance(given, str | os.PathLike) else given
    return tuple(os.fspath(one) for one in several)


def _find(scan, name: str) -> Patient:
    """Finds the patient of a path; raises InputError unless there is exactly one."""
    if not isinstance(scan, Patient):
        path = os.fspath(scan)
        patients = inputs.find(path, organs=None)
        if len(patients) > 1:
            names = ", ".join(one.name for one in patients[:3])
            raise InputError(
                f"{path}: expected one scan, found {len(patients)} ({names} ...); call the "
                "segmenter with each patient of segthor.inputs.find(path, organs=None)"
            )
        scan = patients[0]
    if scan.fault:
        raise InputError(scan.fault)
    return replace(scan, name=_check_name(name or scan.name))


def _check_name(name: str) -> str:
    """Returns the name; raises InputError if it cannot be the name of a file."""
    if fault := name_fault(name):
        raise InputError(f"name: {name!r} {fault}; choose another name")
    return name


def _volume(array, affine) -> Volume:
    """Makes a `Volume` of an array; raises InputError if it cannot be a scan."""
    array, affine = np.asarray(array), np.asarray(affine, np.float64)
    if array.ndim != 3 or array.dtype.kind not in "iuf" or not array.size:
        raise InputError(
            "scan: expected HU in an array with three axes, found "
            f"{array.dtype} of shape {array.shape}"
        )
    if affine.shape != (4, 4) or not is_invertible(affine):
        raise InputError(
            "scan: expected an affine of 4 x 4 numbers that can be inverted, found "
            f"{affine.tolist()}"
        )
    grid = Grid(array.shape, affine)
    return Volume(grid.to_zyx(array.astype(array.dtype.newbyteorder("="), copy=False)), grid)
