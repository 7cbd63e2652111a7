"""Predictions of a dataset's records by a network that was not trained on them.

The scans are not read. One file per patient stores the labels, and where the network is sure of
them, so that an interrupted job can continue.
"""

import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from segthor import files, records
from segthor.errors import InputError
from segthor.manifest import Built, Dataset, Shard
from segthor.organs import Organs
from segthor.volume import Grid, LabelMap, Volume

SURE = 0.9  # probability from which the network is sure of a voxel
_BATCH = 8  # slices
_FOLDER = "out_of_fold"


@dataclass(frozen=True)
class StoredPatient:
    """One patient's slices as the dataset stores them.

    images: uint8 [Z, H, W, C], windowed, with neighbours as channels.
    labels: The contours. The grid has spacing and planes of the slices, but no place in the scan.
    level_hu: Window level.
    width_hu: Window width.
    """

    images: np.ndarray
    labels: LabelMap
    level_hu: float
    width_hu: float

    @property
    def scan(self) -> Volume:
        """The slices in HU, int16, clipped to the window."""
        grey = self.images[..., self.images.shape[-1] // 2] / 255
        hu = np.rint((grey - 0.5) * self.width_hu + self.level_hu).astype(np.int16)
        return Volume(hu, self.labels.grid)


@dataclass(frozen=True)
class SurePrediction:
    """The prediction of one patient.

    predicted: uint8 [Z, H, W], label values.
    sure: bool [Z, H, W], where the network is sure.
    """

    predicted: np.ndarray
    sure: np.ndarray


def read(
    folder: str, dataset: Dataset, shard: Shard
) -> Iterator[tuple[Built, StoredPatient | InputError]]:
    """Yields every patient of a shard: its row in the manifest, and its slices or an error."""
    path, rows = files.join(folder, shard.file), {row.patient: row for row in dataset.patients}
    slices, damage = defaultdict(list), None
    try:
        for record in records.slices(path):
            slices[record.patient].append(record)
    except InputError as error:
        damage = error
    for name in shard.patients:
        try:
            own = slices.pop(name, [])
            yield rows[name], damage or _stack(rows[name], own, dataset.organs, path)
        except InputError as error:
            yield rows[name], error


def _stack(row: Built, slices: list[records.Slice], organs: Organs, path: str) -> StoredPatient:
    slices.sort(key=lambda one: one.z)
    if [one.z for one in slices] != list(range(row.slices)):
        raise InputError(
            f"{path}: expected {row.slices} slices of {row.patient} as the manifest says, "
            f"found {len(slices)}; build the dataset again"
        )
    images, truth = (np.stack([getattr(s, key) for s in slices]) for key in ("image", "labels"))
    z_mm, y_mm, x_mm = row.placement.spacing_mm
    affine = np.diag([-x_mm, -y_mm, z_mm, 1])
    grid = Grid(truth.shape[::-1], affine, planes=row.placement.scan_planes)
    first = slices[0]
    return StoredPatient(images, LabelMap(truth, grid, organs), first.level_hu, first.width_hu)


def predict(network, images: np.ndarray, values: np.ndarray) -> SurePrediction:
    """Predicts the slices of one patient.

    network: Callable from images uint8 [N, H, W, C] to probabilities [N, H, W, K], background
      first.
    images: uint8 [Z, H, W, C].
    values: uint8 [K], the label value of each class.
    """
    labels, sure = [], []
    for first in range(0, len(images), _BATCH):
        probabilities = np.asarray(network(images[first : first + _BATCH]))
        labels.append(values[probabilities.argmax(-1)])
        sure.append(probabilities.max(-1) >= SURE)
    return SurePrediction(np.concatenate(labels), np.concatenate(sure))


def save(output: str, patient: str, key: str, prediction: SurePrediction) -> None:
    """Stores a prediction; key: Digest of all that it depends on."""
    with files.atomic_write(_path(output, patient)) as stream:
        np.savez_compressed(stream, key=key, **vars(prediction))


def load(output: str, patient: str, key: str) -> SurePrediction | None:
    """Loads the prediction with this key; None if there is none or it is damaged."""
    path = _path(output, patient)
    if not files.exists(path):
        return None
    try:
        with files.open_read(path) as stream, np.load(stream, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            return SurePrediction(stored["predicted"], stored["sure"])
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
        return None


def clear_leftovers(output: str) -> None:
    """Removes temporary files of killed jobs; the caller must hold the lock of the folder."""
    files.remove_partial(files.join(output, _FOLDER))


def _path(output: str, patient: str) -> str:
    return files.inside(files.join(output, _FOLDER), f"{patient}.npz")
