"""What bounds a training run, in words, from times that `trainer.stopwatch` measured."""

import math
from dataclasses import dataclass

WAITING = 0.2  # share of a run's time in which the device waits, from which on input bounds it
_AUGMENTING = 0.3  # share of a step that is augmentation
_GAIN = 1.5  # slices per second that a larger batch must bring to be worth a word
_GPU_RATE = 1000  # slices/s of a fast GPU, as an example
_MIXED = 4  # batches that are to be mixed with one another, at least
READING, DECODING, AUGMENTING, BATCH, NETWORK = BOUNDS = (
    *("reading", "decoding and mixing", "augmentation", "a small batch", "the network"),
)


@dataclass(frozen=True)
class Times:
    """Seconds per global batch, unless it says otherwise, and what belongs to them.

    read_s: bytes from the shards; input_s: all that the input does; augment_s: on the device;
    step_s: a step on a batch that lies ready, augmentation included; whole_s: a step of the run;
    waiting: share of it in which the device waits for input; larger_s: a step on a ready batch that
    is `larger` times as large, None where that does not fit; validation_s: of a whole validation.
    launches: operations that a step launches on a GPU; off_device: those that would leave it.
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
        """Share of a long run in which the device waits; at first, fetched batches may hide it."""
        return max(self.waiting, 1 - self.step_s / self.input_s)

    @property
    def gain(self) -> float:
        """How many times the slices per second a larger batch gives."""
        return self.larger * self.step_s / self.larger_s if self.larger_s else 0.0


def bound(times: Times) -> str:
    """What a run spends its time on: one of BOUNDS."""
    if times.waits > WAITING:
        return READING if times.read_s > times.input_s / 2 else DECODING
    if times.augment_s > _AUGMENTING * times.step_s:
        return AUGMENTING
    return BATCH if times.gain > _GAIN else NETWORK


def advice(times: Times, config) -> list[str]:
    """Sentences: what bounds the run, with a number and the flag to change; what else is wrong."""
    share = f"{times.waits:.0%} of the time the device waits for input"
    augmenting = times.augment_s / times.step_s
    larger = times.batch * times.larger
    said = {
        READING: f"{share}, and reading takes {times.read_s / times.input_s:.0%} of the input's: "
        "put the dataset on a faster disk (--data)",
        DECODING: f"{share}, and reading takes only {times.read_s / times.input_s:.0%} of the "
        "input's: give the process more CPU cores, or build with a smaller --crop_mm or --context",
        AUGMENTING: f"it takes {augmenting:.0%} of a step; --augment_elastic_px=0 leaves out the "
        "dearest part",
        BATCH: f"steps of {larger} slices instead of {times.batch} train {times.gain:.1f} times "
        f"the slices a second: raise --batch_size from {config.batch_size} to "
        f"{config.batch_size * times.larger}, and --learning_rate with it",
        NETWORK: "input, augmentation and batch cost little: only a smaller network or matrix, "
        "--precision=bfloat16 or --xla on a GPU, or more devices make it faster",
    }
    lines = [f"{bound(times)} bounds the run: {said[bound(times)]}"]
    if config.shuffle_buffer < _MIXED * times.batch:
        lines.append(
            f"badly mixed: slices come in nearly the shards' order, since {config.shuffle_buffer} "
            f"are mixed at a time and a batch holds {times.batch}: raise --shuffle_buffer to "
            f"{max(512, _MIXED * times.batch)}"
        )
    return lines


def for_gpus(times: Times, cores: int) -> list[str]:
    """Sentences: what a GPU would make of this host's input and of the training step."""
    rate = times.batch / times.input_s
    lines = [
        f"this host's {cores} cores read and decode {rate:.0f} slices/s: a GPU that trains "
        f"{_GPU_RATE} slices/s needs about {max(1, math.ceil(_GPU_RATE * cores / rate))} of them",
        f"on a GPU a step launches {times.launches} operations, and "
        f"{len(times.off_device) or 'none'} of them would leave it",
    ]
    return lines + [f"  {operation}" for operation in times.off_device]


def waiting_line(waiting: float) -> str | None:
    """What `trainer.main` says where input bounds the run; None where it does not."""
    if waiting <= WAITING:
        return None
    return (
        f"Input bounds this run: {waiting:.0%} of the time the device waits for it; "
        "python -m trainer.doctor with the same flags says why"
    )
