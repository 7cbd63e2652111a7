"""The configuration of a training run, from whose fields the programs make their flags."""

import dataclasses
from dataclasses import dataclass

from segthor import sides
from segthor.options import SEEDS, check, option, part, require
from segthor.organs import Organs
from trainer.strengths import Strengths

SEGMENT, CLASSIFY, JOINT = TASKS = ("segment", "classify", "joint")
DECODERS = ("unet", "fpn", "linknet", "pspnet")
BACKBONES = (
    *("vgg16", "vgg19", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50", "resnext101", "densenet121", "densenet169", "densenet201"),
    *("inceptionv3", "inceptionresnetv2", "mobilenet", "mobilenetv2"),
    *("seresnet18", "seresnet34", "seresnet50", "seresnet101", "seresnet152"),
    *("seresnext50", "seresnext101", "senet154"),
    *(f"efficientnetb{number}" for number in range(8)),
)
LOSSES = ("dice", "ce", "dice_ce", "focal", "tversky", "bce_dice")
OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("constant", "onecycle", "cosine", "plateau")
PRECISIONS = ("float32", "bfloat16", "float16")
AUTO = "auto"  # see `devices.resolve_precision`


@dataclass(frozen=True)
class Config:
    """The configuration of a run.

    Each field has its help text and range, and is a flag of that name; `augment` holds one flag
    for each of its fields.
    """

    task: str = option(
        SEGMENT,
        "segment: label the pixels of the organs; classify: predict which organs a slice holds; "
        "joint: both, with one encoder.",
        TASKS,
    )
    organs: tuple[str, ...] = option(
        (), "Organs of the dataset to learn, besides the background; none: all of them."
    )
    fold: int = option(
        -1, "Fold to validate on; the others are trained on. -1: the split as built.", (-1, 999)
    )

    train_patients: int = option(
        0, "Train on so many of the training patients; 0: on all.", (0, 10**9)
    )
    draw: int = option(
        0,
        "Number of the random draw of --train_patients; within a draw a smaller set of patients is "
        "part of every larger one.",
        SEEDS,
    )

    few_patients: int = option(
        0,
        "With this many training patients or fewer, strengths of augmentation below their "
        "defaults, also those given as flags, are raised to the defaults; 0: never.",
        (0, 10**9),
    )

    decoder: str = option("unet", "The decoder.", DECODERS)
    backbone: str = option("resnet34", "The encoder.", BACKBONES)
    encoder_weights: str = option(
        "none",
        "Initial weights of the encoder: none (random), imagenet, imagenet11k, "
        "imagenet11k-places365ch (downloaded once), a weights file, or a folder of such files; "
        "./imagenet is a path.",
    )

    start_from: str = option(
        "",
        "Run (its best checkpoint) or exported model whose weights to start with: encoder, "
        "decoder, and the outputs of organs of the same name; images are scaled as there.",
    )
    freeze_encoder_steps: int = option(
        0, "Steps at the beginning in which the encoder is frozen.", (0, 10**9)
    )

    epochs: int = option(
        60, "Passes over the training slices; used where --steps is 0.", (0, 100_000)
    )
    steps: int = option(0, "Training steps; 0: see --epochs.", (0, 10**9))
    minutes: float = option(
        0.0,
        "Time limit: the first steps, and those before each validation, are measured, and the run "
        "and its learning rate schedule get the number of steps that fits; 0: see --steps and "
        "--epochs.",
        (0, 100_000),
    )
    batch_size: int = option(16, "Slices per step and device.", (1, 65_536))
    oversample: float = option(
        0.0,
        "Repeat slices with an organ that less than this share of all slices holds: the square "
        "root of (this / organ's share) times; 0: every slice once per epoch.",
        (0, 1),
    )
    shuffle_buffer: int = option(512, "Slices that are shuffled at a time.", (1, 10**6))

    loss: str = option("dice_ce", "The loss; bce_dice is 0.1 x cross entropy - Dice.", LOSSES)
    optimizer: str = option("adamw", "The optimizer; sgd has Nesterov momentum 0.9.", OPTIMIZERS)
    learning_rate: float = option(1e-3, "The highest learning rate.", (1e-9, 100))
    weight_decay: float = option(
        1e-4, "Decoupled weight decay; not applied to biases and BatchNorm.", (0, 100)
    )
    schedule: str = option("onecycle", "Schedule of the learning rate.", SCHEDULES)
    warmup: float = option(0.1, "Share of the steps in which onecycle and cosine rise.", (0, 0.999))
    patience: int = option(
        4, "plateau: validations without a better score before the rate drops.", (1, 10_000)
    )
    clip_norm: float = option(
        1.0, "Largest global norm of the gradients; 0: not clipped.", (0, 10**6)
    )
    ema: float = option(
        0.999,
        "Decay of the moving average of the weights, which is validated and exported; 0: none.",
        (0, 0.999999),
    )
    early_stop: int = option(
        0, "Stop after so many validations without a better score; 0: never.", (0, 10_000)
    )

    precision: str = option(
        "float32",
        "Precision of the network; the loss is computed in float32. auto: bfloat16 on a CPU that "
        "has instructions for it (AVX512_BF16 or AMX), else float32.",
        (*PRECISIONS, AUTO),
    )
    xla: bool = option(False, "Compile forward and backward pass with XLA (GPU).")
    steps_per_call: int = option(
        10, "Steps per call of the device; progress is printed once per call.", (1, 10_000)
    )
    validate_every: int = option(0, "Steps between validations; 0: after each epoch.", (0, 10**9))
    checkpoint_every: int = option(
        0, "Steps between checkpoints; 0: at each validation.", (0, 10**9)
    )
    surface_distances: bool = option(
        False, "At the end, measure surface distances of the best checkpoint on validation data."
    )

    seed: int = option(0, "Seed of initial weights, order of slices and augmentation.", SEEDS)
    deterministic: bool = option(
        False, "Make the weights reproducible bit for bit by the same command; slower."
    )
    augment: Strengths = part(Strengths(), "augment_")

    def __post_init__(self):
        check(self)
        once = len(set(self.organs)) == len(self.organs)
        require(once, "organs", "names of organs, each once", ",".join(self.organs))
        if self.task == CLASSIFY:
            require(self.loss in ("ce", "focal"), "loss", "ce or focal for a classifier", self.loss)
            require(not self.surface_distances, "surface_distances", "a segmentation task", True)
        for other in ("steps", "freeze_encoder_steps") if self.minutes else ():
            require(not getattr(self, other), "minutes", f"0 beside --{other}", self.minutes)
        ends = self.steps or self.epochs or self.minutes
        require(ends, "steps", "steps or epochs above 0", self.steps)

    @property
    def held_out_fold(self) -> int | None:
        """Fold to validate on; None: the split as built."""
        return self.fold if self.fold >= 0 else None

    def of_table(self, organs: Organs) -> "Config":
        """Returns the configuration for a dataset with this table; if no organs are named, all.

        Raises:
          InputError: A named organ is not in the table; or slices are mirrored left to right and
            the table does not name the mirror image of an organ that has a side.
        """
        known = all(name in organs for name in self.organs)
        expected = f"some of {', '.join(organs.names)}"
        require(known, "--organs", expected, ",".join(self.organs))
        names = self.organs or organs.names
        if self.augment.flip_left_right:
            sides.require_mirrors(organs, names, "--augment_flip_left_right")
        return dataclasses.replace(self, organs=names)

    def of_patients(self, count: int) -> "Config":
        """Returns the configuration of a run with `count` training patients; see `few_patients`."""
        if count > self.few_patients:
            return self
        return dataclasses.replace(self, augment=self.augment.at_least(Strengths()))

    def to_json(self) -> dict:
        """Returns plain values, in the order of the fields."""
        value = dataclasses.asdict(self)
        return value | {"organs": list(self.organs)}
