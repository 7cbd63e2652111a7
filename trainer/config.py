"""Every choice of a training run: one frozen, JSON-able value. The entries make flags of it."""

import dataclasses
from dataclasses import dataclass

from segthor import fields, sides
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


@dataclass(frozen=True)
class Config:
    """A run's choices; each field says what it is and its range, and is a flag of that name."""

    task: str = option(
        SEGMENT,
        "segment: outline the organs; classify: say which a slice holds; joint: both, one encoder.",
        TASKS,
    )
    organs: tuple[str, ...] = option(
        (), "Which of the dataset's organs to learn, background aside; all where none is named."
    )
    fold: int = option(
        -1, "Fold to validate on, training on the others; -1: the split as built.", (-1, 999)
    )

    train_patients: int = option(
        0, "Train on so many of the training patients; 0: on all.", (0, 10**9)
    )
    draw: int = option(
        0, "Which draw of --train_patients: of one draw, fewer patients are part of more.", SEEDS
    )

    decoder: str = option("unet", "The decoder.", DECODERS)
    backbone: str = option("resnet34", "The encoder.", BACKBONES)
    encoder_weights: str = option(
        "none",
        "Where the encoder starts: none (random), imagenet, imagenet11k, imagenet11k-places365ch "
        "(fetched once), a weights file, or a folder of such files; ./imagenet is a path.",
    )

    start_from: str = option(
        "",
        "Start with the weights of this run's best checkpoint or exported model: encoder, decoder, "
        "and the outputs of the organs that both know by name; images are scaled as there.",
    )
    freeze_encoder_steps: int = option(
        0, "Steps at the beginning in which the encoder stays as it is.", (0, 10**9)
    )

    epochs: int = option(
        60, "Passes over the training slices; counts where --steps is 0.", (0, 100_000)
    )
    steps: int = option(0, "Training steps; 0: as --epochs says.", (0, 10**9))
    minutes: float = option(
        0.0,
        "End in so many minutes, with the steps that fit: the first ones are measured, and the "
        "schedule is laid over all; 0: as --steps or --epochs say.",
        (0, 100_000),
    )
    batch_size: int = option(16, "Slices per step and device.", (1, 65_536))
    oversample: float = option(
        0.0,
        "Slices that hold an organ which less than this share of all slices holds are drawn more "
        "often: the square root of share / organ's share times; 0: every slice once per epoch.",
        (0, 1),
    )
    shuffle_buffer: int = option(512, "Slices that are mixed at a time.", (1, 10**6))

    loss: str = option("dice_ce", "The loss; bce_dice is 0.1 x cross entropy - Dice.", LOSSES)
    optimizer: str = option("adamw", "The optimizer; sgd has Nesterov momentum 0.9.", OPTIMIZERS)
    learning_rate: float = option(1e-3, "The highest learning rate.", (1e-9, 100))
    weight_decay: float = option(
        1e-4, "Decoupled weight decay; biases and BatchNorm are spared.", (0, 100)
    )
    schedule: str = option("onecycle", "How the learning rate runs.", SCHEDULES)
    warmup: float = option(0.1, "Share of the steps in which onecycle and cosine rise.", (0, 0.999))
    patience: int = option(
        4, "plateau: validations without a better score before the rate drops.", (1, 10_000)
    )
    clip_norm: float = option(
        1.0, "Largest norm of the whole gradient; 0: not clipped.", (0, 10**6)
    )
    ema: float = option(
        0.999,
        "Decay of the moving average of the weights that is scored and exported; 0: none.",
        (0, 0.999999),
    )
    early_stop: int = option(
        0, "Validations without a better score before the end; 0: never.", (0, 10_000)
    )

    precision: str = option("float32", "Arithmetic of the network; sums stay float32.", PRECISIONS)
    xla: bool = option(False, "Compile forward and backward pass with XLA (GPU).")
    steps_per_call: int = option(
        10, "Steps per call of the device; progress shows as often.", (1, 10_000)
    )
    validate_every: int = option(0, "Steps between validations; 0: after each epoch.", (0, 10**9))
    checkpoint_every: int = option(
        0, "Steps between checkpoints; 0: at each validation.", (0, 10**9)
    )
    surface_distances: bool = option(
        False, "At the end, Hausdorff distances of the best checkpoint on the validation patients."
    )

    seed: int = option(0, "Decides first weights, order of slices and augmentation.", SEEDS)
    deterministic: bool = option(False, "Same command, same weights, bit for bit; slower.")
    augment: Strengths = part(Strengths(), "augment_")

    def __post_init__(self):
        check(self)
        once = len(set(self.organs)) == len(self.organs)
        require(once, "organs", "names of organs, each once", ",".join(self.organs))
        if self.task == CLASSIFY:
            require(self.loss in ("ce", "focal"), "loss", "ce or focal for a classifier", self.loss)
            require(not self.surface_distances, "surface_distances", "a network of outlines", True)
        for other in ("steps", "freeze_encoder_steps") if self.minutes else ():
            require(not getattr(self, other), "minutes", f"0 beside --{other}", self.minutes)
        require(
            self.steps or self.epochs or self.minutes,
            "steps",
            "steps or epochs above 0",
            self.steps,
        )

    @property
    def held_out_fold(self) -> int | None:
        """The fold to validate on; None: the split as built."""
        return self.fold if self.fold >= 0 else None

    def of_table(self, organs: Organs) -> "Config":
        """The choices for a dataset with this table: all its organs, unless some are named.

        Raises:
          InputError: a named organ is not in the table, or slices are to be mirrored left to right
            and the table does not say what an organ with a side becomes.
        """
        known = all(name in organs for name in self.organs)
        expected = f"some of {', '.join(organs.names)}"
        require(known, "--organs", expected, ",".join(self.organs))
        names = self.organs or organs.names
        if self.augment.flip_left_right:
            sides.require_mirrors(organs, names, "--augment_flip_left_right")
        return dataclasses.replace(self, organs=names)

    def to_json(self) -> dict:
        """Plain values, in the order of the fields."""
        value = dataclasses.asdict(self)
        return value | {"organs": list(self.organs)}

    @classmethod
    def from_json(cls, value: dict) -> "Config":
        """The way back of `to_json`; raises InputError for what this version does not know."""
        return fields.from_json(cls, value, "config")
