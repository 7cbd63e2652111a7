"""Predicts one case, from its scan to the folder of results.

`predict_case` calls the steps for `serving.predict`, in this process and on a Beam worker
(`distributed`). `serving.Segmenter` calls the same steps for one scan.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from segthor import audit, outputs, scans
from segthor.errors import InputError
from segthor.findings import doubts
from segthor.patients import Patient
from segthor.volume import LabelMap, Volume
from serving.prediction import postprocess
from serving.prediction.facts import Facts
from serving.prediction.plan import Plan
from serving.prediction.predictor import Segmentation
from serving.prediction.results import stamp_of
from serving.prediction.uneven import explain_no_label_map
from serving.prediction.walk import Outcome, walk
from serving.review.evidence import Observer


@dataclass(frozen=True)
class CasePrediction:
    """The finished prediction of one case.

    labels: The label map after post-processing, on the scan's grid.
    known: Facts about the case.
    probabilities: Organ to uint8 [Z, Y, X], where 255 is 1; empty unless requested.
    """

    labels: LabelMap
    known: Facts
    probabilities: dict


def predict_case(worker, case: Patient) -> Iterator[None]:
    """Predicts one case with the models of a `worker.Worker`.

    A generator of three parts: at each `yield`, `walk` can run the parts of other cases.

    Raises:
      InputError: The scan cannot be used.
    """
    # The note names the case if the process is killed while a part runs.
    plan = worker.plan
    with worker.results.keep_note(case):
        check_formats(case, plan)
        worker.results.require_uncorrected(case)
        scan, stamp = read_scan(case, plan.most_scan_bytes)
        check_gaps(scan, case.ct, plan)
        check_planes(scan, case.ct, plan)
        inputs = prepare(worker, scan)
    yield
    with worker.results.keep_note(case):
        inputs = add_level_masks(worker, scan, inputs)
        segmented, observer = run_networks(worker, inputs, plan.wants_probabilities)
        del inputs  # large, and not needed to write
    yield
    with worker.results.keep_note(case):
        write(worker, case, stamp, finish(worker, scan, segmented, observer))


def predict_cases(worker, cases: list[Patient]) -> Iterator[Outcome]:
    """Predicts cases one after the other; records failures in the folder of results."""
    predict = functools.partial(predict_case, worker)
    for outcome in walk(cases, predict, worker.plan.case_timeout_s):
        if outcome.reason:
            worker.results.write_failure(outcome.case, outcome.reason)
        yield outcome


def check_formats(case: Patient, plan: Plan) -> None:
    """Raises InputError if the case cannot be written in the plan's DICOM formats."""
    if case.fault:
        raise InputError(case.fault)
    if plan.dicom_formats and not scans.is_dicom(case.ct):
        named = ", ".join(plan.dicom_formats)
        raise InputError(f"{case.ct}: --formats={named} needs DICOM images to refer to")


def read_scan(case: Patient, most_bytes: int | None) -> tuple[Volume, dict]:
    """Reads the scan; also returns its stamp (`results.stamp_of`) from before it was read.

    most_bytes: Largest memory of the scan; None: a share of the free memory.

    Raises:
      InputError: The scan cannot be read, changes meanwhile, or has values that are not finite.
    """
    stamp = stamp_of(case) if scans.exists(case.ct) else {}
    scan = scans.read(case.ct, None, most_bytes, case.ct_files)
    if stamp_of(case) != stamp:
        raise InputError(f"{case.ct}: changed while it was read; expected it to be complete")
    check_finite(scan, case.ct)
    return scan, stamp


def check_finite(scan: Volume, name: str) -> None:
    """Raises InputError if a value of the scan is not finite; `name` starts the message."""
    for finding in audit.finite_findings(scan.zyx):
        raise InputError(f"{name}: {finding.message}")


def check_gaps(scan: Volume, name: str, plan: Plan) -> None:
    """Raises InputError if slices are missing; `name` starts the message."""
    for finding in scan.findings:
        if finding.code == "series_gap" and not plan.allow_gaps:
            raise InputError(f"{name}: {finding.message}; export the series again, or --allow_gaps")


def check_planes(scan: Volume, name: str, plan: Plan) -> None:
    """Raises InputError where uneven planes leave nothing to write; `name` starts the message."""
    if scan.grid.planes and not (plan.resample_z or plan.dicom_formats):
        raise InputError(f"{name}: {explain_no_label_map(scan.grid)}")


def prepare(worker, scan: Volume) -> dict:
    """Prepares the scan for the models that run first; see `Ensemble.inputs`."""
    return (worker.level or worker.models).inputs(scan)


def add_level_masks(worker, scan: Volume, inputs: dict) -> dict:
    """Runs the level models, if any, and prepares the scan by their organs; returns the inputs."""
    if not worker.level:
        return inputs
    masks = LabelMap(worker.level.segment(inputs).labels, scan.grid, worker.level.table)
    postprocess.apply(masks, worker.level_rules)
    return worker.models.inputs(scan, masks)


def run_networks(worker, inputs: dict, probabilities: bool) -> tuple[Segmentation, Observer]:
    """Runs the networks and places their probabilities on the scan's grid.

    probabilities: Whether to keep a map of each organ's probability.
    """
    observer = worker.judge.observe(worker.models, inputs)
    return worker.models.segment(inputs, probabilities, observer.add), observer


def finish(worker, scan: Volume, segmented: Segmentation, observer: Observer) -> CasePrediction:
    """Post-processes, measures and judges the label map; changes `segmented.labels`."""
    models = worker.models
    labels = LabelMap(segmented.labels, scan.grid, models.table)
    changes = postprocess.apply(labels, worker.rules)
    measured, findings = audit.measure_prediction(scan, labels, models.organs)
    evidence = observer.finish(measured, changes)
    known = Facts(
        organs=models.organs,
        engine=worker.plan.engine,
        level_hu=segmented.level_hu,
        width_hu=segmented.width_hu,
        volumes_cm3=dict.fromkeys(models.organs, 0.0)
        | {name: one.volume_cm3 for name, one in measured.items()},
        findings=tuple(findings),
        postprocess=changes,
        evidence=evidence,
        review=worker.judge.judge(**vars(evidence), findings=findings),
    )
    return CasePrediction(labels, known, segmented.probabilities)


def write(worker, case: Patient, stamp: dict, prediction: CasePrediction) -> None:
    """Writes a case into the folder of the worker's plan, all of its files or none.

    stamp: As returned by `read_scan`.

    Raises:
      InputError: The plan wants a label map in NIfTI, which cannot hold uneven planes.
    """
    results, plan, known = worker.results, worker.plan, prediction.known
    with outputs.Staging() as staging:
        if plan.dicom_formats:
            made = results.origin("; ".join(doubts(known.findings)))
            kinds = plan.dicom_formats
            paths = {kind: staging.path(results.object_path(case.name, kind)) for kind in kinds}
            written = _write_dicom(worker.models, case, prediction, paths, made)
            known = replace(known, objects=written)
        maps = prediction.probabilities if plan.probabilities else {}
        lacking = results.write(case, stamp, prediction.labels, known, maps, plan.resample_z)
        staging.publish()
    if lacking and plan.wants_nifti:
        raise InputError(f"{case.ct}: {lacking}")


def _write_dicom(
    models, case: Patient, prediction: CasePrediction, paths: dict, made: dict
) -> dict:
    """Writes the DICOM objects; returns format to whether there was something to write."""
    labels = replace(prediction.labels, organs=models.table.select(models.organs))
    # Models of different organs have different backgrounds, so their classes have no common
    # boundary of equal probability.
    maps = prediction.probabilities if len(models.groups) == 1 else None
    written = scans.write_dicom(case.ct, labels, paths, made, maps, case.ct_files)
    return {kind: path is not None for kind, path in written.items()}
