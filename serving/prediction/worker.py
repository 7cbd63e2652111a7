"""The loaded models of a plan, for a local run and for a Beam worker."""

import copy
from dataclasses import replace

from segthor.errors import InputError
from segthor.patients import Patient
from serving.prediction import bundle, fitting, postprocess
from serving.prediction.engine import TENSORFLOW
from serving.prediction.plan import Plan
from serving.prediction.predictor import Ensemble, check_tables
from serving.prediction.results import Results
from serving.review.judge import Judge


class Worker:
    """What `case.predict_case` needs for every case of a plan.

    plan: The plan.
    models: The models of the prediction.
    level: The models that give window level and crop centre, or None.
    rules: Organ to the post-processing of the prediction.
    level_rules: Organ to the post-processing of the level models' prediction.
    judge: Judges the predictions.
    results: The folder of results.
    """

    def __init__(self, plan: Plan):
        """Loads the models; raises InputError if one is missing or does not fit the others."""
        fitting.limit_memory(plan.gpu_memory_gb)

        def loaded(paths):
            return [bundle.load(path, plan.engine) for path in paths]

        (gate,) = loaded([plan.gate]) if plan.gate else [None]
        self.models = Ensemble(loaded(plan.models), gate, plan.tta)
        self.level = Ensemble(loaded(plan.level_models)) if plan.level_models else None
        _check_passes(self.models, self.level)
        self.rules = self.models.rules() if plan.postprocess else {}
        self.level_rules = {}
        if self.level:
            # A distant small piece would move the box about the organs; each organ is one piece.
            pieces = dict.fromkeys(self.level.organs, postprocess.Rule(largest=True))
            self.level_rules = pieces | (self.level.rules() if plan.postprocess else {})
        self.judge = Judge.of_models(self.models, plan.review_recall)
        self._set_plan(plan)

    def _set_plan(self, plan: Plan) -> None:
        self.plan = plan
        self.results = Results(plan.output, self._settings(), self.models.table, plan.overwrite)

    def for_plan(self, plan: Plan) -> "Worker":
        """The same loaded models for a plan with another output or other formats."""
        other = copy.copy(self)
        other._set_plan(plan)
        return other

    def is_finished(self, case: Patient) -> bool:
        """Whether a job of this plan has finished the case, in all formats."""
        return self.results.is_finished(case, self.plan.dicom_formats, self.plan.wants_nifti)

    def review_again(self, case: Patient) -> None:
        """Judges a finished case by this plan's recall and the models' present calibration."""
        facts = self.results.facts(case)
        if not facts.evidence or not self.results.is_finished(case):
            return
        judged = self.judge.judge(**vars(facts.evidence), findings=facts.findings or ())
        if judged != facts.review:
            replace(facts, review=judged).save(self.results.folder, case.name)

    def _settings(self) -> dict:
        return {
            "models": [one.digest for one in self.models.bundles],
            "level_models": [one.digest for one in self.level.bundles] if self.level else [],
            "gate": self.models.gate.digest if self.models.gate else None,
            "tta": self.models.flips,
            "postprocess": _plain(self.rules, self.models),
            "level_postprocess": _plain(self.level_rules, self.level),
            "probabilities": self.plan.probabilities,
            # Left out for the default, so that folders of versions without this option continue.
            **({"engine": self.plan.engine} if self.plan.engine != TENSORFLOW else {}),
        }


def _plain(rules: dict, models: Ensemble | None) -> dict:
    names = models.organs if models else ()
    return {name: rules[name].to_json() for name in names if name in rules}


def _check_passes(models: Ensemble, level: Ensemble | None) -> None:
    if level:
        check_tables([*models.bundles, *level.bundles])
    asking = [one for one in models.bundles if one.recipe.needs_masks]
    if asking and not level:
        recipe = asking[0].recipe
        raise InputError(
            f"{asking[0].folder}: its window level ({recipe.window_level}) or crop centre "
            f"({recipe.crop_center}) comes from organs; name the model that finds them with "
            "--level_model"
        )
    if level and not asking:
        raise InputError(
            "--level_model: none of the models takes window level or crop centre from organs; "
            "leave it out"
        )
    if level and level.needs_masks:
        raise InputError(
            f"--level_model={level.bundles[0].folder}: it takes level or centre from organs "
            "itself; expected a model with a fixed window, cropped about the body"
        )
