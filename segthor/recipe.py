"""The recipe: how a scan becomes the network's input, in one frozen value for all programs.

The data job writes the recipe into the dataset's manifest. The trainer copies it into the run, the
SavedModel contains it, and the predictor reads it there. `prepare` is the only code that applies
it. Numpy only.
"""

import dataclasses
import functools
import hashlib
import json
from dataclasses import dataclass

import numpy as np

from segthor import ignored
from segthor.body import body_center_px, organ_center_px
from segthor.boxes import around, nonzero_box
from segthor.errors import InputError
from segthor.geometry import Placement
from segthor.options import check, option, require
from segthor.organs import Organs, is_name
from segthor.volume import LabelMap, Volume

NOMINAL_PIXEL_MM = 1.0  # gives the size in pixels of crop_mm where the scan's own pixels are kept
_MOST_MM = 3000  # larger than any scanner's field of view
_MOST_PX, _MOST_HU = 2048, 100_000
_POSITION_SLACK = 1e-6  # slices
_STRIDE_PX = 32  # the networks halve the image five times, so H and W must be multiples of 32
_LEVEL_STATISTICS = {"median": np.median, "mean": functools.partial(np.mean, dtype=np.float64)}


@dataclass(frozen=True)
class Recipe:
    """Every choice of the preparation; the fields are flags of `beam_jobs.build`."""

    crop_mm: float = option(
        256.0,
        "Side in mm of the square box about the centre, rounded up to a multiple of 32 pixels.",
        (1, _MOST_MM),
    )
    pixel_mm: float = option(
        1.0,
        "Size of a pixel in mm; 0 keeps the scan's own pixels (with 1 pixel per mm of crop_mm).",
        (0, _MOST_MM),
    )
    context: int = option(
        3, "Slices per image, odd; the first and last slice are repeated at the ends.", (1, 99)
    )
    context_mm: float = option(
        0.0,
        "Distance in mm between the slices of an image, interpolated in grey levels, so that scans "
        "of any slice spacing look alike; 0: the scan's own neighbouring slices.",
        (0, 100),
    )
    window_width_hu: float = option(
        350.0,
        "Width in HU of the window that is mapped to the grey levels 0 to 255.",
        (0.001, _MOST_HU),
        flag="window_width",
    )
    window_level: str = option(
        "50",
        "Centre of the window in HU, or of each patient: median:ORGAN,... or mean:ORGAN,... of the "
        "HU inside these organs.",
    )
    crop_center: str = option(
        "body",
        "Centre of the box: body, or organs:ORGAN,... for that of these organs' bounding box.",
    )

    def __post_init__(self):
        check(self)
        pixels = self.crop_mm / (self.pixel_mm or NOMINAL_PIXEL_MM)
        require(pixels <= _MOST_PX, "crop_mm / pixel_mm", f"at most {_MOST_PX} pixels", pixels)
        require(self.context % 2 == 1, "context", "an odd number of slices", self.context)
        statistic, named = _split(self.window_level)
        is_constant = statistic == "" and _is_level(named[0])
        is_own = statistic in _LEVEL_STATISTICS and all(map(is_name, named))
        expected = f"HU up to {_MOST_HU}, median:ORGANS or mean:ORGANS"
        require(is_constant or is_own, "window_level", expected, self.window_level)
        kind, named = _split(self.crop_center)
        is_body, is_organs = (kind, named) == ("", ["body"]), kind == "organs"
        is_center = is_body or (is_organs and all(map(is_name, named)))
        require(is_center, "crop_center", "body or organs:ORGANS", self.crop_center)

    @property
    def size_px(self) -> int:
        """H and W of a prepared slice."""
        pixels = self.crop_mm / (self.pixel_mm or NOMINAL_PIXEL_MM)
        return max(1, int(np.ceil(pixels / _STRIDE_PX - 1e-9))) * _STRIDE_PX

    @property
    def needs_masks(self) -> bool:
        """Whether level or centre come from organs, which requires contours or a prediction."""
        return bool(self.mask_organs)

    @property
    def mask_organs(self) -> frozenset[str]:
        """The organs that level or centre come from."""
        chosen = (_split(choice) for choice in (self.window_level, self.crop_center))
        return frozenset(name for kind, named in chosen if kind for name in named)

    def require_organs(self, organs: Organs) -> None:
        """Raises InputError where level or centre come from an organ that is not in the table."""
        known = ", ".join(organs.names)
        for name in ("window_level", "crop_center"):
            choice = getattr(self, name)
            kind, named = _split(choice)
            fits = not kind or all(one in organs for one in named)
            require(fits, name, f"organs of {known}", choice)

    def to_json(self) -> dict:
        """Plain values, in the order of the fields."""
        value = dataclasses.asdict(self)
        if not self.context_mm:  # recipes from before this field keep their digest
            del value["context_mm"]
        return value

    def digest(self) -> str:
        """Digest of the recipe, 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Prepared:
    """The prepared slices of one patient.

    images: uint8 [Z, H, W], windowed.
    labels: uint8 [Z, H, W]; None for a patient without contours.
    labelled_hu: HU of the labelled pixels, in the order of labels[labels > 0].
    placement: Where the slices lie in the scan.
    level_hu: The window level.
    labels_outside: Number of labelled voxels outside the box.
    """

    images: np.ndarray
    labels: np.ndarray | None
    labelled_hu: np.ndarray
    placement: Placement
    level_hu: float
    labels_outside: int

    def image(self, z: int, recipe: Recipe) -> np.ndarray:
        """Slice z with those about it as channels, uint8 [H, W, context], from the feet upwards.

        recipe: The recipe of these slices.

        Between two slices (see `context_positions`) the grey levels are interpolated linearly and
        rounded half up: after the window, so that one windowed copy of the scan suffices.
        """
        image = np.empty((*self.images.shape[1:], recipe.context), np.uint8)
        positions = context_positions(z, recipe, self.placement.offsets_mm)
        for channel, position in enumerate(positions):
            lower = int(position + _POSITION_SLACK)
            share = np.float32(position - lower)
            image[..., channel] = self.images[lower]
            if share > _POSITION_SLACK:  # else the grey levels of the slice, exactly
                between = self.images[lower] * (1 - share) + self.images[lower + 1] * share
                image[..., channel] = between + np.float32(0.5)
        return image


def prepare(
    volume: Volume, recipe: Recipe, labels: LabelMap | None = None, masks: LabelMap | None = None
) -> Prepared:
    """Finds the centre, crops and resamples, finds the level, and applies the window.

    Args:
      volume: The scan.
      recipe: The recipe.
      labels: The contours; None for a patient without.
      masks: Label map that level and centre come from where the recipe needs organs: by default the
        contours; an earlier prediction for a patient without contours.

    Raises:
      InputError: There is no body in the scan, or none of the organs that level or centre need.
    """
    masks = labels if masks is None else masks
    if recipe.needs_masks and masks is None:
        raise InputError(
            "level or centre come from organs, but there are neither contours nor masks"
        )
    center_px, planes = _center_px(volume, recipe, masks), volume.grid.planes
    box = recipe.size_px, recipe.pixel_mm, planes and planes.offsets_mm
    placement = Placement.centred(volume.zyx.shape, volume.spacing_mm, center_px, *box)
    level_hu = _level_hu(volume.zyx, recipe, masks)
    prepared = None if labels is None else placement.labels_to_model(labels.zyx, labels.boxes)
    images, labelled_hu = _images(volume.zyx, placement, level_hu, recipe.window_width_hu, prepared)
    outside = 0 if labels is None else _labels_outside(placement, labels)
    return Prepared(images, prepared, labelled_hu, placement, level_hu, outside)


def _labels_outside(placement: Placement, labels: LabelMap) -> int:
    """Number of the organs' voxels outside of the box; ignored voxels do not count."""
    boxes, zyx = labels.boxes, labels.zyx
    if labels.has_ignored:
        boxes = {label: box for label, box in boxes.items() if label != ignored.LABEL}
        zyx = np.where(zyx == ignored.LABEL, 0, zyx)
    return placement.labels_outside(zyx, boxes)


def _images(hu, placement: Placement, level_hu, width_hu, labels) -> tuple[np.ndarray, np.ndarray]:
    """Windowed slices uint8 [Z, H, W], and the HU of their labelled pixels."""
    images = np.empty((len(hu), placement.size_px, placement.size_px), np.uint8)
    labelled, *box = around([]) if labels is None else nonzero_box(labels)
    box = tuple(box)
    labelled_hu = [np.empty(0, np.float32)]
    # Slice by slice: each is windowed and read again while it is in the processor's cache.
    for z, plane in enumerate(placement.image_to_model(hu)):
        images[z] = window(plane, level_hu, width_hu)
        if labelled.start <= z < labelled.stop:
            labelled_hu.append(plane[box][labels[z][box] > 0])
    return images, np.concatenate(labelled_hu)


def window(hu: np.ndarray, level_hu: float, width_hu: float) -> np.ndarray:
    """Maps HU to grey levels, uint8 of the same shape.

    level - width / 2 becomes 0, level + width / 2 becomes 255. Values outside are clipped, values
    between are rounded half up.
    """
    scale, offset = np.float32(255 / width_hu), np.float32(127.5 - level_hu * 255 / width_hu)
    scaled = np.multiply(hu, scale, dtype=np.float32)
    scaled += offset
    np.clip(scaled, 0, 255, out=scaled)
    scaled += np.float32(0.5)
    return scaled.astype(np.uint8)


def context_positions(z: int, recipe: Recipe, offsets_mm: np.ndarray) -> np.ndarray:
    """Indices of the `recipe.context` slices about z, float [context], from inferior to superior.

    The first and the last slice are repeated at the ends.

    offsets_mm: Offsets of the scan's slices along z, increasing, float [Z].
    """
    steps = np.arange(recipe.context) - recipe.context // 2
    if not recipe.context_mm:
        return np.clip(z + steps, 0, len(offsets_mm) - 1.0)
    wanted_mm = offsets_mm[z] + steps * recipe.context_mm
    return np.interp(wanted_mm, offsets_mm, np.arange(len(offsets_mm)))


def _center_px(volume: Volume, recipe: Recipe, masks: LabelMap | None) -> tuple[float, float]:
    kind, named = _split(recipe.crop_center)
    if kind == "organs":
        center = organ_center_px(masks.boxes, masks.organs.labels(named))
        if center is None:
            raise InputError(f"crop_center {recipe.crop_center}: none of these organs is present")
        return center
    center = body_center_px(volume.zyx, volume.spacing_mm, volume.grid.planes)
    if center is None:
        size = " x ".join(f"{mm:.4g}" for mm in volume.spacing_mm)
        raise InputError(
            f"no body found: nothing in the scan is denser than lung (voxels of {size} mm)"
        )
    return center


def _level_hu(hu: np.ndarray, recipe: Recipe, masks: LabelMap | None) -> float:
    statistic, named = _split(recipe.window_level)
    if not statistic:
        return float(named[0])
    # A float mean depends on the order of its values: here z, y, x, whatever the file's order is.
    present = [
        hu[masks.boxes[label]][masks.zyx[masks.boxes[label]] == label]
        for label in masks.organs.labels(named)
        if label in masks.boxes
    ]
    if not present:
        raise InputError(f"window_level {recipe.window_level}: none of these organs is present")
    return float(_LEVEL_STATISTICS[statistic](np.concatenate(present)))


def _split(choice: str) -> tuple[str, list[str]]:
    """'median:heart,aorta' to ('median', ['heart', 'aorta']); '50' to ('', ['50'])."""
    kind, _, named = str(choice).rpartition(":")
    return kind, named.split(",")


def _is_level(text: str) -> bool:
    try:
        return abs(float(text)) <= _MOST_HU
    except ValueError:
        return False
