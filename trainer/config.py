"""Every choice of a training run: one frozen, JSON-able value. The entries make flags of it."""

import dataclasses
from dataclasses import dataclass, field

from segthor import organs as all_organs
from segthor.errors import InputError
from trainer.augment import Strengths

TASKS = ("segment", "classify", "joint")
DECODERS = ("unet", "fpn", "linknet", "pspnet")
BACKBONES = (
    *("vgg16", "vgg19", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50", "resnext101", "densenet121", "densenet169", "densenet201"),
    *("inceptionv3", "inceptionresnetv2"),
)
LOSSES = ("dice", "ce", "dice_ce", "focal", "tversky", "bce_dice")
OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("constant", "onecycle", "cosine", "plateau")
PRECISIONS = ("float32", "bfloat16", "float16")


def _flag(default, text, choices=None):
    return field(default=default, metadata={"help": text, "choices": choices})


@dataclass(frozen=True)
class Config:
    """A run's choices; each field is documented where it stands and is a flag of that name."""

    task: str = _flag(
        "segment",
        "segment: outline the organs; classify: say which a slice holds; joint: both, one encoder.",
        TASKS,
    )
    organs: tuple[str, ...] = _flag(all_organs.NAMES, "The organs to learn, background aside.")
    fold: int = _flag(-1, "Fold to validate on, training on the others; -1: the split as built.")

    decoder: str = _flag("unet", "The decoder.", DECODERS)
    backbone: str = _flag("resnet34", "The encoder.", BACKBONES)
    encoder_weights: str = _flag(
        "none",
        "Where the encoder starts: none (random), imagenet, imagenet11k, imagenet11k-places365ch "
        "(fetched once), a weights file, or a folder of such files.",
    )

    epochs: int = _flag(60, "Passes over the training slices; counts where --steps is 0.")
    steps: int = _flag(0, "Training steps; 0: as --epochs says.")
    batch_size: int = _flag(16, "Slices per step and device.")
    oversample: float = _flag(
        0.0,
        "Slices that hold an organ which less than this share of all slices holds are drawn more "
        "often: the square root of share / organ's share times; 0: every slice once per epoch.",
    )
    shuffle_buffer: int = _flag(512, "Slices that are mixed at a time.")

    loss: str = _flag("dice_ce", "The loss; bce_dice is 0.1 x cross entropy - Dice.", LOSSES)
    optimizer: str = _flag("adamw", "The optimizer; sgd has Nesterov momentum 0.9.", OPTIMIZERS)
    learning_rate: float = _flag(1e-3, "The highest learning rate.")
    weight_decay: float = _flag(1e-4, "Decoupled weight decay; biases and BatchNorm are spared.")
    schedule: str = _flag("onecycle", "How the learning rate runs.", SCHEDULES)
    warmup: float = _flag(0.1, "Share of the steps in which onecycle and cosine rise.")
    patience: int = _flag(4, "plateau: validations without a better score before the rate drops.")
    clip_norm: float = _flag(0.0, "Largest norm of the whole gradient; 0: not clipped.")
    ema: float = _flag(
        0.0, "Decay of the moving average of the weights that is scored and exported; 0: none."
    )
    early_stop: int = _flag(0, "Validations without a better score before the end; 0: never.")

    precision: str = _flag("float32", "Arithmetic of the network; sums stay float32.", PRECISIONS)
    xla: bool = _flag(False, "Compile forward and backward pass with XLA (GPU).")
    steps_per_call: int = _flag(10, "Steps per call of the device; progress shows as often.")
    validate_every: int = _flag(0, "Steps between validations; 0: after each epoch.")
    checkpoint_every: int = _flag(0, "Steps between checkpoints; 0: at each validation.")
    surface_distances: bool = _flag(
        False, "At the end, Hausdorff distances of the best checkpoint on the validation patients."
    )

    seed: int = _flag(0, "Decides first weights, order of slices and augmentation.")
    deterministic: bool = _flag(False, "Same command, same weights, bit for bit; slower.")
    augment: Strengths = field(default=Strengths())

    def __post_init__(self):
        for spec in dataclasses.fields(self):
            choices, value = spec.metadata.get("choices"), getattr(self, spec.name)
            if choices:
                _check(value in choices, spec.name, f"one of {', '.join(choices)}", value)
        known = len(set(self.organs) & set(all_organs.NAMES)) == len(self.organs) > 0
        _check(
            known,
            "organs",
            f"some of {', '.join(all_organs.NAMES)}",
            ",".join(self.organs),
        )
        if self.task == "classify":
            _check(self.loss in ("ce", "focal"), "loss", "ce or focal for a classifier", self.loss)
            _check(not self.surface_distances, "surface_distances", "a network of outlines", True)
        for name in ("batch_size", "steps_per_call", "shuffle_buffer", "patience"):
            _check(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("steps", "epochs", "validate_every", "checkpoint_every", "early_stop"):
            _check(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        _check(self.steps or self.epochs, "steps", "steps or epochs above 0", self.steps)
        _check(self.learning_rate > 0, "learning_rate", "above 0", self.learning_rate)
        for name in ("weight_decay", "clip_norm"):
            _check(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        for name in ("ema", "oversample", "warmup"):
            _check(0 <= getattr(self, name) < 1, name, "0 or more, below 1", getattr(self, name))

    def to_json(self) -> dict:
        """Plain values, in the order of the fields."""
        value = dataclasses.asdict(self)
        return value | {"organs": list(self.organs)}

    @classmethod
    def from_json(cls, value: dict) -> "Config":
        """The way back of `to_json`."""
        return cls(
            **value
            | {
                "organs": tuple(value["organs"]),
                "augment": Strengths(**value["augment"]),
            }
        )


def _check(holds, name: str, expected: str, found) -> None:
    if not holds:
        raise InputError(f"--{name}: expected {expected}, found {found}")
