"""An animated GIF of one patient: the slices from top to bottom with contours."""

import numpy as np
from PIL import Image

from segthor import drawing, files, organs
from segthor.geometry import canonical
from segthor.nifti import Scan
from serving.scoring import viewer

FRAMES = 80  # at most; slices between are left out
FRAME_MS = 120
SIDE_PX = 360
_GREYS = 240


def write(path: str, scan: Scan, predicted: np.ndarray, truth: np.ndarray | None) -> None:
    """predicted, truth: uint8 [X, Y, Z] on the scan's grid."""
    spacing_mm, hu, predicted, truth = canonical(scan.grid.affine, scan.array, predicted, truth)
    slices, *plane = viewer.box_about(predicted, truth, spacing_mm)
    chosen = np.arange(slices.start, slices.stop)[::-1]
    chosen = chosen[:: -(-len(chosen) // FRAMES)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(_palette())
    frames = []
    for z in chosen:
        view = (z, *plane)
        image = drawing.mediastinum(hu[view])
        scale = max(1, round(SIDE_PX / max(image.shape)))
        rgb = drawing.overlay(image, None if truth is None else truth[view], predicted[view], scale)
        frames.append(Image.fromarray(rgb).quantize(palette=palette, dither=Image.Dither.NONE))
    with files.atomic_write(path) as stream:
        frames[0].save(
            stream, "GIF", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0
        )


def _palette() -> list[int]:
    """Greys, and each organ's colour as it is drawn for predicted and for true contours."""
    greys = np.repeat(np.linspace(0, 255, _GREYS).round().astype(int)[:, None], 3, 1)
    solid = [organ.rgb for organ in organs.ORGANS]
    pale = [drawing.pale(rgb) for rgb in solid]
    return np.concatenate([greys, solid, pale]).ravel().tolist()
