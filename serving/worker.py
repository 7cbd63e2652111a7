"""What is done to one case: read, compute, write. The same for a local run and a Beam worker."""

from dataclasses import dataclass

from segthor import audit, nifti, organs
from segthor.errors import InputError
from serving import bundle, doubts, postprocess
from serving.cases import Scan
from serving.predictor import Ensemble, Input, Segmentation
from serving.results import Results


@dataclass(frozen=True)
class Plan:
    """A prediction job in plain values, so that it can travel to other machines.

    models, level_models: model directories. gate: one, or ''. rules: whether the models' own
    post-processing is applied. case_timeout_s: for each of reading, computing and writing.
    """

    output: str
    models: tuple[str, ...]
    level_models: tuple[str, ...] = ()
    gate: str = ""
    tta: bool = False
    rules: bool = True
    probabilities: bool = False
    case_timeout_s: float = 1800.0


@dataclass(frozen=True)
class Given:
    """A scan in memory, prepared for the models that see it first."""

    scan: nifti.Scan
    inputs: dict[str, Input]


class Worker:
    """The loaded models of a plan and the three steps of a case."""

    def __init__(self, plan: Plan):
        """Raises InputError for a model that is missing or does not fit the others."""
        self.plan = plan
        gate = bundle.load(plan.gate) if plan.gate else None
        self.models = Ensemble([bundle.load(path) for path in plan.models], gate, plan.tta)
        self.level = None
        if plan.level_models:
            self.level = Ensemble([bundle.load(path) for path in plan.level_models])
        _check_passes(self.models, self.level)
        own = [rules for one in self.models.bundles for rules in one.rules.items()]
        self.rules = dict(own) if plan.rules else {}
        self.results = Results(plan.output, self._settings())

    def read(self, case: Scan) -> Given:
        """Reads and prepares; raises InputError where the scan cannot be used."""
        scan = nifti.read(case.ct)
        for finding in audit.finite_findings(scan.array):
            raise InputError(f"{case.ct}: {finding.message}")
        return Given(scan, (self.level or self.models).inputs(scan))

    def compute(self, case: Scan, given: Given) -> tuple[nifti.Scan, Segmentation]:
        """Runs the networks, in two passes where a level model finds the organs first."""
        inputs = given.inputs
        if self.level:
            masks = self.level.segment(inputs).labels
            inputs = self.models.inputs(given.scan, masks)
        return given.scan, self.models.segment(inputs, self.plan.probabilities)

    def write(self, case: Scan, computed: tuple[nifti.Scan, Segmentation]) -> None:
        """Post-processes and writes label map, facts and, if asked for, probabilities."""
        scan, found = computed
        labels = found.labels
        changes = postprocess.apply(labels, scan.grid.spacing_mm, self.rules)
        measured, findings = doubts.measure(scan, labels, self.models.organs)
        facts = {
            "organs": list(self.models.organs),
            "level_hu": found.level_hu,
            "volumes_cm3": {
                name: measured[name].volume_cm3 if name in measured else 0.0
                for name in self.models.organs
            },
            "findings": [finding.to_json() for finding in findings],
            "postprocess": changes,
        }
        self.results.write(case, labels, scan.grid, facts, found.probabilities)

    def _settings(self) -> dict:
        return {
            "models": [one.digest for one in self.models.bundles],
            "level_models": [one.digest for one in self.level.bundles] if self.level else [],
            "gate": self.models.gate.digest if self.models.gate else None,
            "tta": self.plan.tta,
            "postprocess": {
                name: self.rules[name].to_json() for name in organs.NAMES if name in self.rules
            },
            "probabilities": self.plan.probabilities,
        }


def _check_passes(models: Ensemble, level: Ensemble | None) -> None:
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
