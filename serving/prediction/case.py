"""One case of prediction, from its scan to the folder of results.

The same function predicts here (`serving.predict`) and on a Beam worker (`distributed`).
"""

from collections.abc import Iterator
from dataclasses import replace

from segthor import audit, outputs, scans
from segthor.errors import InputError
from segthor.findings import doubts
from segthor.patients import Patient
from segthor.volume import LabelMap, Volume
from serving.prediction import postprocess
from serving.prediction.facts import Facts
from serving.prediction.results import mark_of


def predict_case(worker, case: Patient) -> Iterator[None]:
    """Predicts one case with the models of a `worker.Worker`.

    Pauses at each `yield`, so that `walk` can read the next case, and write the one before, while
    the networks run. While a part runs, a note names the case, for the case that it is killed.

    Raises:
      InputError: the scan cannot be used.
    """
    models, plan = worker.models, worker.plan
    with worker.results.noted(case):
        scan, mark = _read(worker, case)
        inputs = (worker.level or models).inputs(scan)  # prepare
    yield
    with worker.results.noted(case):
        if worker.level:  # its organs give the models' window level and crop centre
            inputs = models.inputs(scan, _level_masks(worker, scan, inputs))
        observer = worker.judge.observe(models, inputs)
        # Run the networks, and place what they give on the scan's grid.
        result = models.segment(inputs, plan.wants_probabilities, observer.add)
        del inputs  # large, and not needed to write
    yield
    with worker.results.noted(case):
        changes = postprocess.apply(result.labels, scan.spacing_mm, worker.rules, models.table)
        labels = LabelMap(result.labels, scan.grid, models.table)
        measured, findings = audit.measure_prediction(scan, labels, models.organs)
        evidence = observer.finish(measured, changes)
        known = Facts(
            organs=models.organs,
            engine=plan.engine,
            level_hu=result.level_hu,
            width_hu=result.width_hu,
            volumes_cm3=dict.fromkeys(models.organs, 0.0)
            | {name: one.volume_cm3 for name, one in measured.items()},
            findings=tuple(findings),
            postprocess=changes,
            evidence=evidence,
            review=worker.judge.judge(**vars(evidence), findings=findings),
        )
        maps = result.probabilities if plan.probabilities else {}
        with outputs.Staging() as staging:
            if plan.dicom_formats:
                made = worker.results.origin("; ".join(doubts(findings)))
                objects = _write_dicom(worker, case, labels, result.probabilities, made, staging)
                known = replace(known, objects=objects)
            worker.results.write(case, mark, labels, known, maps)
            staging.publish()


def _read(worker, case: Patient) -> tuple[Volume, dict]:
    """The scan, and its mark (`results.mark_of`) from before it was read."""
    plan = worker.plan
    if case.fault:
        raise InputError(case.fault)
    if plan.dicom_formats and not scans.is_dicom(case.ct):
        named = ", ".join(plan.dicom_formats)
        raise InputError(f"{case.ct}: --formats={named} needs DICOM images to refer to")
    worker.results.require_uncorrected(case)
    mark = mark_of(case) if scans.exists(case.ct) else {}
    scan = scans.read(case.ct, None, plan.most_scan_bytes, case.ct_files)
    if mark_of(case) != mark:
        raise InputError(f"{case.ct}: changed while it was read; expected it to be complete")
    for finding in audit.finite_findings(scan.zyx):
        raise InputError(f"{case.ct}: {finding.message}")
    return scan, mark


def _level_masks(worker, scan: Volume, inputs) -> LabelMap:
    """The organs that the level models find."""
    labels, table = worker.level.segment(inputs).labels, worker.level.table
    postprocess.apply(labels, scan.spacing_mm, worker.level_rules, table)
    return LabelMap(labels, scan.grid, table)


def _write_dicom(worker, case: Patient, labels: LabelMap, maps: dict, made: dict, staging) -> dict:
    """DICOM format to whether there was something to write."""
    kinds, models = worker.plan.dicom_formats, worker.models
    paths = {kind: staging.path(worker.results.object_path(case.name, kind)) for kind in kinds}
    labels = replace(labels, organs=models.table.only(models.organs))
    # Models of different organs each have a background of their own, so that no two classes share
    # a boundary of equal probability.
    maps = maps if len(models.groups) == 1 else None
    written = scans.write_dicom(case.ct, labels, paths, made, maps, case.ct_files)
    return {kind: path is not None for kind, path in written.items()}
