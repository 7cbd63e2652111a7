"""Finds the bottleneck of a training run in times that `trainer.stopwatch` measured."""

import math
from dataclasses import dataclass

WAITING = 0.2  # share of the time that the device waits, above which the input is the bottleneck
_AUGMENTING = 0.3  # share of augmentation in a step above which it is the bottleneck
_GAIN = 1.5  # factor of slices/s above which a larger batch is advised
_GPU_RATE = 1000  # slices/s of a fast GPU, as an example
_FEWEST_SHUFFLED = 4  # batches that the shuffle buffer should hold
BOTTLENECKS = ("reading", "decoding and mixing", "augmentation", "a small batch", "the network")
READING, DECODING, AUGMENTING, BATCH, NETWORK = BOTTLENECKS


@dataclass(frozen=True)
class Times:
    """Measured times; seconds are per global batch unless stated otherwise.

    batch: Slices of a global batch.
    read_s: Reading the shards.
    input_s: The whole input pipeline.
    augment_s: Augmentation on the device.
    step_s: A step on a batch in memory, augmentation included.
    whole_s: A step of the run.
    waiting: Share of `whole_s` in which the device waits for input.
    larger: Factor of the batch size of `larger_s`.
    larger_s: A step on a larger batch in memory; None if it does not fit.
    validation_s: Seconds of a validation.
    faults_per_step: Page faults per step.
    memory_gb: Peak memory.
    launches: Number of operations that a step launches on a GPU.
    off_device: Those of them that would not run on the GPU.
    """

    batch: int
    read_s: float
    input_s: float
    augment_s: float
    step_s: float
    whole_s: float
    waiting: float
    larger: int
    larger_s: float | None
    validation_s: float
    faults_per_step: float
    memory_gb: float
    launches: int = 0
    off_device: tuple[str, ...] = ()

    @property
    def waits(self) -> float:
        """Share of a long run in which the device waits for input."""
        # Prefetched batches may hide the waiting in the measured steps, but not for long.
        return max(self.waiting, 1 - self.step_s / self.input_s)

    @property
    def gain(self) -> float:
        """Factor of slices/s that the larger batch brings; 0 if it does not fit."""
        return self.larger * self.step_s / self.larger_s if self.larger_s else 0.0


def find_bottleneck(times: Times) -> str:
    """Returns which part limits the run: one of BOTTLENECKS."""
    if times.waits > WAITING:
        return READING if times.read_s > times.input_s / 2 else DECODING
    if times.augment_s > _AUGMENTING * times.step_s:
        return AUGMENTING
    return BATCH if times.gain > _GAIN else NETWORK


def advise(times: Times, config) -> list[str]:
    """Returns sentences: the bottleneck with its share and the flag to change, other problems."""
    share = f"{times.waits:.0%} of the time the device waits for input"
    augmenting = times.augment_s / times.step_s
    larger = times.batch * times.larger
    sentences = {
        READING: f"{share}, and reading takes {times.read_s / times.input_s:.0%} of the input's: "
        "put the dataset on a faster disk (--data)",
        DECODING: f"{share}, and reading takes only {times.read_s / times.input_s:.0%} of the "
        "input's: give the process more CPU cores, or build with a smaller --crop_mm or --context",
        AUGMENTING: f"it takes {augmenting:.0%} of a step; --augment_elastic_px=0"
        f"{' --few_patients=0' if config.few_patients else ''} leaves out the slowest part",
        BATCH: f"steps of {larger} slices instead of {times.batch} train {times.gain:.1f} times "
        f"the slices a second: raise --batch_size from {config.batch_size} to "
        f"{config.batch_size * times.larger}, and --learning_rate with it",
        NETWORK: "input, augmentation and batch cost little: only a smaller network or matrix, "
        "--precision=auto on a CPU with bfloat16, --precision=bfloat16 or --xla on a GPU, or more "
        "devices make it faster",
    }
    bottleneck = find_bottleneck(times)
    lines = [f"{bottleneck} limits the run: {sentences[bottleneck]}"]
    if config.shuffle_buffer < _FEWEST_SHUFFLED * times.batch:
        lines.append(
            f"badly shuffled: slices come almost in the order of the shards, since the buffer "
            f"holds {config.shuffle_buffer} and a batch {times.batch}: raise --shuffle_buffer to "
            f"{max(512, _FEWEST_SHUFFLED * times.batch)}"
        )
    return lines


def advise_for_gpu(times: Times, cores: int) -> list[str]:
    """Returns sentences about this host's input and the training step on a GPU."""
    rate = times.batch / times.input_s
    lines = [
        f"the {cores} cores of this host read and decode {rate:.0f} slices/s: a GPU that trains "
        f"{_GPU_RATE} slices/s needs about {max(1, math.ceil(_GPU_RATE * cores / rate))} of them",
        f"on a GPU a step launches {times.launches} operations, and "
        f"{len(times.off_device) or 'none'} of them would not run on it",
    ]
    return lines + [f"  {operation}" for operation in times.off_device]


def warn_of_waiting(waiting: float) -> str | None:
    """Returns the warning of `trainer.main` if the input is the bottleneck, else None."""
    if waiting <= WAITING:
        return None
    return (
        f"The input limits this run: {waiting:.0%} of the time the device waits for it; "
        "python -m trainer.doctor with the same flags shows why"
    )
