"""The length of a run: its steps and validations, also where --minutes limits its time."""

import dataclasses
import math

from segthor import fields, files
from trainer import run, sources

UNMEASURED = 10**9  # length of the learning rate schedule until the first steps are measured
MEASURED_STEPS = 20
# A timed run has 10 validations, or fewer where these would take more than 0.2 of its time.
_VALIDATIONS, _VALIDATION_SHARE = 10, 0.2
_TIME_SHARE = 0.97  # share of the time that is planned; the rest absorbs slower steps


@dataclasses.dataclass(frozen=True)
class Length:
    """The length of a run.

    steps: Number of steps in total.
    validate_every: Steps between two validations.
    offset: Progress of the learning rate schedule at step 0, from which it rises linearly to 1 at
      the last step. Not 0 only if the length was changed on the way, see `change_length`.
    """

    steps: int
    validate_every: int
    offset: float = 0.0


def read_length(config, source, workdir: str, global_batch: int) -> Length | None:
    """Returns the length of a run; None if --minutes limits it and no step is measured yet."""
    per_epoch = sources.steps_per_epoch(source, global_batch)
    if not config.minutes:
        steps = config.steps or config.epochs * per_epoch
        return Length(steps, config.validate_every or per_epoch)
    measured = run.read(workdir).length if run.has_checkpoint(workdir) else None
    where = f"{files.join(workdir, run.RUN)}: length"
    return fields.from_json(Length, measured, where) if measured else None


def fit_length(
    step: int, left_s: float, step_s: float, validation_s: float, validate_every: int = 0
) -> Length:
    """Computes the length that fits into the remaining time; at least one more step.

    step: Number of steps taken.
    left_s: Seconds left.
    step_s: Seconds of one step.
    validation_s: Seconds of one validation with its checkpoints.
    validate_every: Steps between validations; 0: about ten validations.
    """
    left_s = max(0.0, left_s * _TIME_SHARE)
    if validate_every:
        steps = step + max(
            1, int((left_s - validation_s) / (step_s + validation_s / validate_every))
        )
        return Length(steps, validate_every)
    affordable = int(_VALIDATION_SHARE * left_s / max(validation_s, 1e-9))
    count = max(1, min(_VALIDATIONS, affordable))
    steps = step + max(1, int((left_s - count * validation_s) / step_s))
    return Length(steps, math.ceil(steps / count))


def change_length(plan: Length, step: int, steps: int) -> Length:
    """Changes the number of steps in total after `step` steps.

    The progress of the learning rate schedule at `step` stays as it is, so the rate has no jump;
    the rest of the schedule is stretched over the steps that are left.
    """
    progress = plan.offset + step * (1 - plan.offset) / plan.steps
    offset = (progress * steps - step) / (steps - step)
    return Length(steps, plan.validate_every, offset)
