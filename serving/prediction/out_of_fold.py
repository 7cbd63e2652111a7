"""What a network says of patients that it did not train on, from the dataset's own records.

No scan is needed. One file per patient holds the labels and where the network is sure of them, so
that a job that was killed goes on where it was.
"""

import zipfile
from dataclasses import dataclass

import numpy as np

from segthor import files, records
from segthor.errors import InputError
from segthor.geometry import Placement
from segthor.manifest import Built, Dataset

SURE = 0.9  # probability from which on a network's word counts as sure
_BATCH = 8  # slices
_FOLDER = "out_of_fold"


@dataclass(frozen=True)
class Prepared:
    """One patient's slices as the dataset holds them.

    images: uint8 [Z, H, W, C], windowed, with neighbours as channels. truth: uint8 [Z, H, W].
    spacing_mm: of z, y, x. level_hu, width_hu: the window.
    """

    images: np.ndarray
    truth: np.ndarray
    spacing_mm: tuple[float, float, float]
    level_hu: float
    width_hu: float

    @property
    def hu(self) -> np.ndarray:
        """int16 [Z, H, W], cut off at the window's ends."""
        grey = self.images[..., self.images.shape[-1] // 2] / 255
        return np.rint((grey - 0.5) * self.width_hu + self.level_hu).astype(np.int16)


@dataclass(frozen=True)
class Prediction:
    """predicted: uint8 [Z, H, W], label values. sure: bool [Z, H, W]."""

    predicted: np.ndarray
    sure: np.ndarray


def read(folder: str, dataset: Dataset, patient: Built) -> Prepared:
    """A patient's slices from its shard.

    Raises:
      InputError: the shard is damaged, or does not hold as many slices as the manifest says.
    """
    path = files.join(folder, dataset.shard_of(patient.patient).file)
    slices = [one for one in records.slices(path) if one.patient == patient.patient]
    slices.sort(key=lambda one: one.z)
    if [one.z for one in slices] != list(range(patient.slices)):
        raise InputError(
            f"{path}: expected {patient.slices} slices of {patient.patient} as the manifest says, "
            f"found {len(slices)}; build the dataset again"
        )
    place = Placement.from_json(patient.placement)
    z_mm, *plane_mm = place.spacing_zyx_mm
    pixel_mm = (mm * step for mm, step in zip(plane_mm, place.step_px, strict=True))
    images, truth = (np.stack([getattr(s, key) for s in slices]) for key in ("image", "labels"))
    return Prepared(images, truth, (z_mm, *pixel_mm), slices[0].level_hu, slices[0].width_hu)


def predict(network, prepared: Prepared, values: np.ndarray) -> Prediction:
    """network: images uint8 [N, H, W, C] to probabilities [N, H, W, K], background first.

    values: uint8 [K], the label value of each class.
    """
    labels, sure = [], []
    for first in range(0, len(prepared.images), _BATCH):
        probabilities = np.asarray(network(prepared.images[first : first + _BATCH]))
        labels.append(values[probabilities.argmax(-1)])
        sure.append(probabilities.max(-1) >= SURE)
    return Prediction(np.concatenate(labels), np.concatenate(sure))


def save(output: str, patient: str, key: str, prediction: Prediction) -> None:
    """Keeps a prediction; key: whatever it depends on."""
    with files.atomic_write(_path(output, patient)) as stream:
        np.savez_compressed(stream, key=key, **vars(prediction))


def load(output: str, patient: str, key: str) -> Prediction | None:
    """What was kept under this key; None where there is no such thing, or it is damaged."""
    path = _path(output, patient)
    if not files.exists(path):
        return None
    try:
        with files.open_read(path) as stream, np.load(stream, allow_pickle=False) as kept:
            if str(kept["key"]) != key:
                return None
            return Prediction(kept["predicted"], kept["sure"])
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
        return None


def clear_leftovers(output: str) -> None:
    """Removes what killed jobs left half-written; only for who holds the folder's lock."""
    folder = files.join(output, _FOLDER)
    if files.exists(folder):
        files.remove_partial(folder)


def _path(output: str, patient: str) -> str:
    return files.inside(files.join(output, _FOLDER), f"{patient}.npz")
