"""An animated GIF of one patient: the slices from head to feet, with contours."""

import numpy as np
from PIL import Image

from segthor import drawing, files, outputs
from segthor.metrics import without
from segthor.organs import Organs
from segthor.volume import LabelMap, Volume
from serving.scoring import viewer

FRAMES = 80  # most frames; of more slices some are left out
FRAME_MS = 120
SIDE_PX = 360
_COLOURS = 256  # of a GIF
_MOST_GREYS, _FEWEST_GREYS = 240, 64


def write(path: str, scan: Volume, predicted: LabelMap, truth: LabelMap | None) -> None:
    """Writes the GIF; label maps on the scan's grid, without ignored voxels."""
    organs, true = predicted.organs, truth and without(truth.left_out, truth.zyx)
    slices, *plane = viewer.box_about(predicted.zyx, true, scan.spacing_mm)
    chosen = np.arange(slices.start, slices.stop)[::-1]
    chosen = chosen[:: -(-len(chosen) // FRAMES)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(_palette(organs))
    frames = []
    for z in chosen:
        view = (z, *plane)
        image = drawing.mediastinum(scan.zyx[view])
        scale = max(1, round(SIDE_PX / max(image.shape)))
        maps = None if true is None else true[view], predicted.zyx[view]
        rgb = drawing.overlay(image, *maps, scale, organs=organs)
        frames.append(Image.fromarray(rgb).quantize(palette=palette, dither=Image.Dither.NONE))
    with files.atomic_write(path) as stream:
        settings = {"duration": FRAME_MS, "loop": 0, "comment": outputs.SOFTWARE.encode()}
        frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], **settings)


def _palette(organs: Organs) -> list[int]:
    """Palette of greys and of each organ's two colours, for predicted and for true contours.

    Of more than 96 organs, the last are drawn in the nearest colour of the palette.
    """
    solid = [organ.rgb for organ in organs][: (_COLOURS - _FEWEST_GREYS) // 2]
    pale = [drawing.pale(rgb) for rgb in solid]
    shades = min(_MOST_GREYS, _COLOURS - 2 * len(solid))
    greys = np.repeat(np.linspace(0, 255, shades).round().astype(int)[:, None], 3, 1)
    return np.concatenate([greys, solid, pale]).ravel().tolist()
