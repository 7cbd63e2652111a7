"""Predicts jobs with the code of `serving.predict` and models that stay in memory."""

import os
from dataclasses import dataclass

from segthor import files, inputs, startup
from segthor.dicom import index, received
from serving.node.jobs import Object
from serving.node.rules import Order
from serving.prediction.plan import Plan

RESULTS = "predictions"  # folder of a job that holds what serving.predict writes


@dataclass(frozen=True)
class Predicted:
    """The result of a job.

    objects: What is to be sent.
    reasons: Why cases of the series have no prediction, without text of a header.
    model: Digests of the models, with commas between.
    """

    objects: tuple[Object, ...]
    reasons: tuple[str, ...]
    model: str = ""


class Predictor:
    """Predicts series one after the other. A model is loaded with the first job that needs it."""

    def __init__(self, case_timeout_s: float):
        self._case_timeout_s = case_timeout_s
        self._workers = {}  # (models, engine) to Worker

    def load(self) -> None:
        """Loads TensorFlow, which takes seconds."""
        startup.load_tensorflow()

    def predict(self, folder: str, order: Order) -> Predicted:
        """Predicts all volumes of the series in a job's folder; a second call completes the first.

        Raises:
          InputError: no volume can be predicted.
        """
        worker = self._worker(os.path.join(folder, RESULTS), order)
        from serving.prediction.case import predict_cases

        plan = worker.plan
        cases = inputs.find(folder, organs=None)
        worker.results.claim(plan.overwrite, plan.dicom_formats)
        todo = [case for case in cases if not worker.is_finished(case)]
        reasons = [one.reason for one in predict_cases(worker, todo) if one.reason]
        finished = [case for case in cases if worker.is_finished(case)]
        paths = [path for case in finished for path in _written(worker, case)]
        objects = [_object(folder, path) for path in paths]
        index.clear_cache()
        if not objects and not reasons and plan.dicom_formats:
            reasons.append("no organ was found, and a structure set cannot be empty")
        digests = ",".join(worker.results.settings["models"])
        return Predicted(tuple(objects), tuple(reasons), digests)

    def _worker(self, output: str, order: Order):
        """Returns the loaded models of an order, for a folder of results."""
        from serving.prediction.worker import Worker  # slow import (about 6 s)

        plan = Plan(
            output,
            order.models,
            formats=order.formats,
            engine=order.engine,
            case_timeout_s=self._case_timeout_s,
            # Results of another model, from before a restart, were not sent.
            overwrite=True,
        ).with_absolute_paths()
        key = (plan.models, plan.engine)
        if key not in self._workers:
            self._workers[key] = Worker(plan)
        return self._workers[key].for_plan(plan)


def _written(worker, case) -> list[str]:
    """Paths of a finished case's files in the formats of the plan."""
    made = worker.results.facts(case).objects or {}
    kinds = [kind for kind in worker.plan.dicom_formats if made.get(kind)]
    paths = [worker.results.object_path(case.name, kind) for kind in kinds]
    return [*paths, *([worker.results.path(case)] if worker.plan.wants_nifti else [])]


def _object(folder: str, path: str) -> Object:
    is_dicom = path.endswith(".dcm")
    uid = received.read_instance(path).sop_instance_uid if is_dicom else ""
    return Object(os.path.relpath(path, folder), uid, files.sha256(path))
