"""Prediction as a Beam job, with a `Worker` in each of many processes or machines.

Elements are a few paths: every worker reads and writes files itself, so no voxel is sent.
"""

import apache_beam as beam

from segthor import memory, runners
from serving.prediction.case import predict_cases
from serving.prediction.plan import Plan
from serving.prediction.worker import Worker

CASES_PER_ELEMENT = 4  # enough to overlap reading and writing, few enough to balance the workers


class Predict(beam.DoFn):
    """Predicts some cases; a failure is recorded in the folder of results."""

    def __init__(self, plan: Plan):
        self._plan = plan

    def setup(self):
        """Loads the models, once per worker."""
        memory.keep_freed()
        self._worker = Worker(self._plan)

    def process(self, cases):
        """Yields pairs of patient and reason of the failure, '' for success."""
        worker = self._worker
        # A runner may process an element twice; finished cases are not predicted again.
        todo = [c for c in cases if self._plan.overwrite or not worker.is_finished(c)]
        for outcome in predict_cases(worker, todo):
            print(outcome.line, flush=True)
            yield outcome.case.name, outcome.reason


def run(plan: Plan, todo: list, runner: str, arguments: list[str]) -> None:
    """Predicts `todo` on a runner of Beam; arguments: Beam's own options."""
    elements = [
        tuple(todo[start : start + CASES_PER_ELEMENT])
        for start in range(0, len(todo), CASES_PER_ELEMENT)
    ]
    options, chosen = runners.choose_runner(runner, arguments)
    with runners.one_line_errors(), beam.Pipeline(runner=chosen, options=options) as job:
        (
            job
            | "Cases" >> beam.Create(elements)
            | "Spread" >> beam.Reshuffle()
            | "Predict" >> beam.ParDo(Predict(plan))
        )
