"""An animated GIF of one patient: the slices from top to bottom with contours."""

import numpy as np
from PIL import Image

from segthor import drawing, files, nifti, organs
from segthor.geometry import Orientation
from segthor.recipe import window
from serving.scoring import overlay, viewer

FRAMES = 80  # at most; slices between are left out
FRAME_MS = 120
SIDE_PX = 360
_GREYS = 240


def write(path: str, scan: nifti.Scan, predicted: np.ndarray, truth: np.ndarray | None) -> None:
    """predicted, truth: uint8 [X, Y, Z] on the scan's grid."""
    orientation = Orientation.of(scan.grid.affine)
    arrays = [orientation.to_zyx(array) for array in (scan.array, predicted)]
    hu, predicted = arrays
    truth = None if truth is None else orientation.to_zyx(truth)
    spacing = [scan.grid.spacing_mm[axis] for axis in orientation.axes][::-1]
    box = viewer.box_about(predicted if truth is None else predicted | truth, spacing)
    chosen = np.arange(box[0].start, box[0].stop)[::-1]
    chosen = chosen[:: -(-len(chosen) // FRAMES)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(_palette())
    frames = []
    for z in chosen:
        image = window(hu[z][box[1:]], overlay.LEVEL_HU, overlay.WIDTH_HU)
        scale = max(1, round(SIDE_PX / max(image.shape)))
        true_slice = None if truth is None else truth[z][box[1:]]
        rgb = drawing.overlay(image, true_slice, predicted[z][box[1:]], scale)
        frames.append(Image.fromarray(rgb).quantize(palette=palette, dither=Image.Dither.NONE))
    with files.atomic_write(path) as stream:
        frames[0].save(
            stream, "GIF", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0
        )


def _palette() -> list[int]:
    """Greys, and each organ's colour as it is drawn for predicted and for true contours."""
    greys = np.repeat(np.linspace(0, 255, _GREYS).round().astype(int)[:, None], 3, 1)
    solid = [organ.rgb for organ in organs.ORGANS]
    pale = [np.array(rgb) * (1 - drawing.PALE) + 255 * drawing.PALE for rgb in solid]
    return np.concatenate([greys, solid, pale]).astype(int).ravel().tolist()
