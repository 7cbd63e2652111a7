"""Pictures of CT slices: windows, colours, contours, contact sheets, PNG files. No tensorflow.

The page of the report uses the windows and colours, too.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from scipy import ndimage

from segthor import files, outputs
from segthor.organs import MOST_LABEL, Organs
from segthor.recipe import window

# Name, level and width in HU of the windows that radiologists use for the chest.
WINDOWS_HU = (("Mediastinum", 40, 400), ("Lung", -600, 1500), ("Bone", 400, 1800))
_PALE = 0.55  # share of white in the colour of a true contour
_GAP_PX, _FONT_PX = 6, 13
_PAPER, _INK = (24, 24, 27), (225, 225, 225)


def mediastinum(hu: np.ndarray) -> np.ndarray:
    """Grey levels, uint8 of the same shape, of HU in the mediastinal window."""
    _, level_hu, width_hu = WINDOWS_HU[0]
    return window(hu, level_hu, width_hu)


def pale(rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    """The colour of an organ's true contour. rgb: That of its predicted contour."""
    return tuple(round(value + (255 - value) * _PALE) for value in rgb)


def overlay(
    image: np.ndarray,
    truth: np.ndarray | None = None,
    predicted: np.ndarray | None = None,
    scale: int = 1,
    *,
    organs: Organs,
) -> np.ndarray:
    """Draws contours on a slice: predicted ones solid, true ones pale, thin and dashed.

    image: uint8 [H, W]. truth, predicted: Labels [H, W]; where both agree the line is striped.

    Returns:
      uint8 [H * scale, W * scale, 3].
    """
    height, width = image.shape
    grey = Image.fromarray(image).resize((width * scale, height * scale), Image.Resampling.BICUBIC)
    rgb = np.repeat(np.asarray(grey)[..., None], 3, -1)
    if predicted is not None:
        solid = {organ.label: organ.rgb for organ in organs}
        _draw(rgb, _enlarged(predicted, scale), (scale + 1) // 2, solid)
    if truth is not None:
        rows, columns = np.indices(rgb.shape[:2])
        # Alternates along each of the eight directions in which a contour can run.
        dashes = (rows + 2 * columns) // (3 * scale) % 2 == 0
        pales = {organ.label: pale(organ.rgb) for organ in organs}
        _draw(rgb, _enlarged(truth, scale), (scale + 3) // 4, pales, dashes)
    return rgb


def sheet(tiles, columns: int, captions, note: str = "", *, organs: Organs) -> np.ndarray:
    """Arranges tiles in rows of `columns`, with a caption under each; returns uint8 [H, W, 3].

    tiles: uint8 [H, W, 3] of any sizes. note: Text at the foot, after the organs' names in their
    colours.
    """
    font = ImageFont.load_default(_FONT_PX)
    line = _FONT_PX + _GAP_PX
    cell_height = max(tile.shape[0] for tile in tiles) + line + _GAP_PX
    captions_px = max((font.getlength(caption) for caption in captions), default=0)
    cell_width = max([int(captions_px), *(tile.shape[1] for tile in tiles)]) + _GAP_PX
    foot = [(organ.name, organ.rgb) for organ in organs] + [(note, _INK)]
    foot_px = _GAP_PX + sum(int(font.getlength(text)) + 2 * _GAP_PX for text, _ in foot)
    rows = -(-len(tiles) // columns)
    size = (max(columns * cell_width + _GAP_PX, foot_px), rows * cell_height + line + 2 * _GAP_PX)
    page = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(page)
    for index, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        x = _GAP_PX + index % columns * cell_width
        y = _GAP_PX + index // columns * cell_height
        page.paste(Image.fromarray(tile), (x, y))
        pen.text((x, y + tile.shape[0] + 2), caption, _INK, font)
    x = _GAP_PX
    for text, colour in foot:
        pen.text((x, size[1] - line), text, colour, font)
        x += int(font.getlength(text)) + 2 * _GAP_PX
    return np.asarray(page)


def save_png(path: str, rgb: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] or [H, W] atomically; `path` may be a URL."""
    made_by = PngInfo()
    made_by.add_text("Software", outputs.SOFTWARE)
    with files.atomic_write(path) as stream:
        Image.fromarray(rgb).save(stream, "PNG", optimize=True, pnginfo=made_by)


def _enlarged(labels, scale):
    return np.asarray(labels, np.uint8).repeat(scale, 0).repeat(scale, 1)


def _draw(rgb, labels, thickness_px, colours, where=True):
    """Colours the pixels within `thickness_px` of the edge of each organ, in place.

    colours: Label to colour. where: bool [H, W], pixels that may be coloured, or True for all.
    """
    size = 2 * thickness_px + 1
    lowest = ndimage.minimum_filter(labels, size, mode="constant")
    highest = ndimage.maximum_filter(labels, size, mode="constant")
    known, colour = np.zeros(1 + MOST_LABEL, bool), np.zeros((1 + MOST_LABEL, 3), np.uint8)
    for label, value in colours.items():
        known[label], colour[label] = True, value
    edge = (lowest != highest) & where & known[labels]
    rgb[edge] = colour[labels[edge]]
