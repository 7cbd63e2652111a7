"""Measures for about a minute what limits a training run, and advises which flag to change.

python -m trainer.doctor --flagfile=configs/all.flags --data=DATASET

Takes the flags of trainer.main, trains a network for some steps and writes nothing.
"""

import os

from absl import flags

from segthor import errors, flags_of, startup
from segthor.manifest import DEFAULT_DATASET
from segthor.progress import duration
from trainer import devices, diagnosis, length, sources
from trainer.config import Config

_DATA = flags.DEFINE_string("data", DEFAULT_DATASET, "Folder of the dataset.")
_SECONDS = flags.DEFINE_float(
    "seconds", 40, "Time to measure in; building and compiling come on top.", lower_bound=1
)
flags_of.define(Config)


def main(_):
    """Checks flags and dataset as the trainer does, measures, prints advice."""
    source, config, _ = sources.open_run(_DATA.value, flags_of.read(Config))
    startup.load_tensorflow()
    from trainer import failures, stopwatch

    strategy = devices.strategy()
    with failures.as_input_errors(source, "nowhere", devices.several_processes()):
        print("Building and compiling the network, then measuring", flush=True)
        with startup.quiet():  # TensorFlow warns if devices share an input
            times = stopwatch.measure(config, source, strategy, _SECONDS.value)
    print(_format_table(times, strategy.num_replicas_in_sync))
    for line in diagnosis.advise(times, config) + diagnosis.advise_for_gpu(times, os.cpu_count()):
        print(line[0].upper() + line[1:])
    print(_estimate_duration(times, config, source))
    return 0


def _format_table(times, count: int) -> str:
    def batch(seconds: float | None) -> str:
        return "does not fit" if seconds is None else f"{seconds * 1000:10.1f} ms per batch"

    rows = {
        "reading the shards": batch(times.read_s),
        "the whole input (reading, decoding, mixing)": batch(times.input_s),
        "augmentation": batch(times.augment_s),
        "step on a batch in memory": batch(times.step_s),
        "step of the run": batch(times.whole_s),
        f"step on a batch in memory, {times.larger} times as large": batch(times.larger_s),
        "validation": f"{times.validation_s:10.1f} s, compilation included"
        if times.validation_s
        else "      none, since no patient is held out",
        "waiting for input": f"{times.waits:10.0%} of the time",
        "page faults": f"{times.faults_per_step:10.0f} per step",
        "peak memory": f"{times.memory_gb:10.1f} GB",
    }
    title = f"{count} device(s), {times.batch} slices per step"
    return "\n".join([title, *(f"  {name:52}{text}" for name, text in rows.items())])


def _estimate_duration(times, config, source) -> str:
    """Returns a sentence about the duration of the whole run."""
    step_s = max(times.whole_s, times.input_s)  # prefetched batches speed up the first steps only
    rate = f"{times.batch / step_s:.1f} slices/s"
    if config.minutes:
        return f"{rate}; the run ends after {config.minutes:g} minutes"
    plan = length.read_length(config, source, "", times.batch)
    validations = -(-plan.steps // plan.validate_every)
    seconds = plan.steps * step_s + validations * times.validation_s
    return (
        f"{rate}: {plan.steps} steps and {validations} validations take about {duration(seconds)}"
    )


if __name__ == "__main__":
    errors.run(main)
