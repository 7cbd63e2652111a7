"""What is done to one case: read, compute, write. The same for a local run and a Beam worker."""

import functools
from dataclasses import asdict, dataclass, replace

from segthor import audit, outputs, scans
from segthor.dicom import RTSTRUCT
from segthor.errors import InputError
from segthor.findings import doubts
from segthor.patients import Patient
from segthor.volume import LabelMap, Volume
from serving.prediction import bundle, evidence, postprocess, review, trust
from serving.prediction.engine import TENSORFLOW
from serving.prediction.facts import Evidence, Facts
from serving.prediction.plan import Plan
from serving.prediction.predictor import Ensemble, Input, Segmentation, check_tables
from serving.prediction.results import Results, mark_of


@dataclass(frozen=True)
class ReadScan:
    """A scan in memory, prepared for the models that see it first. mark: of `results.mark_of`."""

    scan: Volume
    mark: dict
    inputs: dict[str, Input]


@dataclass(frozen=True)
class Computed:
    """What is left to write of a case."""

    scan: Volume
    mark: dict
    found: Segmentation


def _noted(step):
    """A step of a case that leaves the case's name where the system ends the process in it."""

    @functools.wraps(step)
    def noted(self, case: Patient, *given):
        with self.results.noted(case):
            return step(self, case, *given)

    return noted


class Worker:
    """The loaded models of a plan and the three steps of a case."""

    def __init__(self, plan: Plan):
        """Raises InputError for a model that is missing or does not fit the others."""
        self.plan = plan

        def loaded(paths):
            return [bundle.load(path, plan.engine) for path in paths]

        (gate,) = loaded([plan.gate]) if plan.gate else [None]
        self.models = Ensemble(loaded(plan.models), gate, plan.tta)
        self.level = Ensemble(loaded(plan.level_models)) if plan.level_models else None
        _check_passes(self.models, self.level)
        self.rules = self.models.rules() if plan.postprocess else {}
        self.level_rules = {}
        if self.level:
            # Crumbs far off would move the box about the organs; each of these is one piece.
            pieces = dict.fromkeys(self.level.organs, postprocess.Rule(largest=True))
            self.level_rules = pieces | (self.level.rules() if plan.postprocess else {})
        self.judge = review.Judge(
            self.models.calibrations(),
            self.models.reference,
            plan.review_recall,
            trust.reasons_against(self.models.groups),
        )
        self.results = Results(plan.output, self._settings(), self.models.table, plan.overwrite)

    def is_finished(self, case: Patient) -> bool:
        """Whether a run of this plan finished the case, in all formats."""
        return self.results.is_finished(case, self.plan.dicom_formats)

    @_noted
    def read(self, case: Patient) -> ReadScan:
        """Reads and prepares; raises InputError where the scan cannot be used."""
        if case.fault:
            raise InputError(case.fault)
        if self.plan.dicom_formats and not scans.is_dicom(case.ct):
            named = ", ".join(self.plan.dicom_formats)
            raise InputError(f"{case.ct}: --formats={named} needs DICOM images to refer to")
        self.results.require_uncorrected(case)
        mark = mark_of(case) if scans.exists(case.ct) else {}
        scan = scans.read(case.ct, None, self.plan.most_scan_bytes, case.ct_files)
        if mark_of(case) != mark:
            raise InputError(f"{case.ct}: changed while it was read; expected it to be complete")
        for finding in audit.finite_findings(scan.zyx):
            raise InputError(f"{case.ct}: {finding.message}")
        return ReadScan(scan, mark, (self.level or self.models).inputs(scan))

    @_noted
    def compute(self, case: Patient, given: ReadScan) -> Computed:
        """Runs the networks, in two passes where a level model finds the organs first."""
        inputs = given.inputs
        if self.level:
            masks, table = self.level.segment(inputs).labels, self.level.table
            postprocess.apply(masks, given.scan.spacing_mm, self.level_rules, table)
            inputs = self.models.inputs(given.scan, LabelMap(masks, given.scan.grid, table))
        maps = self.plan.probabilities or RTSTRUCT in self.plan.dicom_formats
        return Computed(given.scan, given.mark, self.models.segment(inputs, maps))

    @_noted
    def write(self, case: Patient, computed: Computed) -> None:
        """Post-processes and writes label map, facts and, if asked for, probabilities."""
        scan, found = computed.scan, computed.found
        organs = self.models.table
        changes = postprocess.apply(found.labels, scan.spacing_mm, self.rules, organs)
        labels = LabelMap(found.labels, scan.grid, organs)
        measured, findings = audit.measure_prediction(scan, labels, self.models.organs)
        figures = {name: asdict(row) for name, row in measured.items()}
        of_organs = evidence.of_labels(found.counts, figures, changes, self.models.reference)
        facts = Facts(
            organs=self.models.organs,
            engine=self.plan.engine,
            level_hu=found.level_hu,
            width_hu=found.width_hu,
            volumes_cm3={
                name: measured[name].volume_cm3 if name in measured else 0.0
                for name in self.models.organs
            },
            findings=tuple(findings),
            postprocess=changes,
            evidence=Evidence(found.scan_evidence, of_organs),
            review=self.judge.judge(found.scan_evidence, of_organs, findings),
        )
        maps = found.probabilities if self.plan.probabilities else {}
        with outputs.Staging() as staging:
            if self.plan.dicom_formats:
                made = self.results.origin("; ".join(doubts(findings)))
                objects = self._write_objects(case, labels, found.probabilities, made, staging)
                facts = replace(facts, objects=objects)
            self.results.write(case, computed.mark, labels, facts, maps)
            staging.publish()

    def review_again(self, case: Patient) -> None:
        """Judges a finished case by this plan's recall and the models' present calibration."""
        facts = self.results.facts(case)
        if not facts.evidence or not self.results.is_finished(case):
            return
        judged = self.judge.judge(**vars(facts.evidence), findings=facts.findings or ())
        if judged != facts.review:
            replace(facts, review=judged).save(self.results.folder, case.name)

    def _write_objects(
        self, case: Patient, labels: LabelMap, maps: dict, made: dict, staging: outputs.Staging
    ) -> dict:
        """DICOM format to whether there was something to write."""
        paths = {
            kind: staging.path(self.results.object_path(case.name, kind))
            for kind in self.plan.dicom_formats
        }
        labels = replace(labels, organs=self.models.table.only(self.models.organs))
        # Models of different organs each have a background of their own, so that no two classes
        # share a boundary of equal probability.
        maps = maps if len(self.models.groups) == 1 else None
        written = scans.write_dicom(case.ct, labels, paths, made, maps, case.ct_files)
        return {kind: path is not None for kind, path in written.items()}

    def _settings(self) -> dict:
        return {
            "models": [one.digest for one in self.models.bundles],
            "level_models": [one.digest for one in self.level.bundles] if self.level else [],
            "gate": self.models.gate.digest if self.models.gate else None,
            "tta": self.models.flips,
            "postprocess": _plain(self.rules, self.models),
            "level_postprocess": _plain(self.level_rules, self.level),
            "probabilities": self.plan.probabilities,
            # Left out for the usual one: jobs of before there was a choice go on.
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
