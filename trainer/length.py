"""How long a run is: its steps, and how often it is validated; or what fits into some minutes."""

import dataclasses
import math

from trainer import run, sources

UNMEASURED = 10**9  # steps of a schedule that is still at its beginning
MEASURED_STEPS = 20
_VALIDATIONS, _SHARE = 10, 0.2  # validations of a timed run: so many, or this share of its time
_KEPT = 0.97  # of the time; the rest is for steps that take longer than those measured


@dataclasses.dataclass(frozen=True)
class Length:
    """A run's steps in all, and steps between two validations."""

    steps: int
    validate_every: int


def known(config, source, workdir: str, global_batch: int) -> Length | None:
    """The run's length; None where it is timed and its first steps are still to be measured."""
    per_epoch = sources.steps_per_epoch(source, global_batch)
    if not config.minutes:
        steps = config.steps or config.epochs * per_epoch
        return Length(steps, config.validate_every or per_epoch)
    found = run.read(workdir).length if run.begun(workdir) else None
    return Length(**found) if found else None


def fitting(
    step: int, left_s: float, step_s: float, validation_s: float, validate_every: int = 0
) -> Length:
    """What fits into the seconds that are left after `step` steps; at least one step more.

    validation_s: of one validation with its checkpoints. validate_every: 0: ten validations, fewer
    where these would take more than a fifth of the time.
    """
    left_s = max(0.0, left_s * _KEPT)
    if validate_every:
        steps = step + max(
            1, int((left_s - validation_s) / (step_s + validation_s / validate_every))
        )
        return Length(steps, validate_every)
    count = max(1, min(_VALIDATIONS, int(_SHARE * left_s / max(validation_s, 1e-9))))
    steps = step + max(1, int((left_s - count * validation_s) / step_s))
    return Length(steps, math.ceil(steps / count))
