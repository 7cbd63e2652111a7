"""One synthetic patient: draws it, scans it, and turns it into the file's order of axes."""

from dataclasses import dataclass, fields, replace

import numpy as np

from segthor.organs import SEGTHOR, Organs
from segthor.phantom import contours, mediastinum, thorax
from segthor.phantom.anatomy import BodyTraits
from segthor.phantom.canvas import Canvas
from segthor.phantom.scanner import Scanner
from segthor.volume import Grid, LabelMap, Volume


@dataclass(frozen=True)
class Phantom:
    """A synthetic patient, with voxels in the order of the file's axes.

    hu: int16 [X, Y, Z].
    labels: uint8 [X, Y, Z].
    affine: float64 [4, 4], voxel index to RAS+ mm.
    traits: BodyTraits of the body.
    scanner: Parameters of the scan.
    organs: The table of the labels.
    """

    hu: np.ndarray
    labels: np.ndarray
    affine: np.ndarray
    traits: BodyTraits
    scanner: Scanner
    organs: Organs

    @property
    def volume(self) -> Volume:
        """The scan, as `segthor.nifti` reads it from a file."""
        grid = Grid(self.hu.shape, self.affine)
        return Volume(grid.to_zyx(self.hu), grid)

    @property
    def label_map(self) -> LabelMap:
        """The contours, as `segthor.scans` reads them from a file."""
        grid = Grid(self.labels.shape, self.affine)
        return LabelMap(grid.to_zyx(self.labels), grid, self.organs)


def make(seed: int, size: str = "small", organs: Organs = SEGTHOR, **overrides) -> Phantom:
    """Makes one patient; the same seed and arguments always give the same voxels.

    Args:
      seed: Not negative. Body, scanner, lung vessels and noise have separate random streams, so
        that an override changes nothing else.
      size: 'full' 512x512 with 150 to 284 slices, 'small' 128x128 with about 40, 'tiny' 48x48x16.
      organs: The organs that are contoured, and their label values; the image shows all organs.
      **overrides: Any field of `Scanner` (`axcodes`, `shape`, `noise_hu`, ...) or of `BodyTraits`
        (`contrast_hu`, `heart_size`, ...).

    Raises:
      InputError: The table has organs that phantoms do not draw.
      TypeError: An override is no field of either.
      ValueError: An unknown size, or invalid axis codes.
    """
    contours.check_drawn(organs)
    body, scan, vessels, noise = (np.random.default_rng([seed, stream]) for stream in range(4))
    own_names = {field.name for field in fields(Scanner)} & set(overrides)
    scanner_overrides = {name: overrides.pop(name) for name in own_names}
    traits = replace(BodyTraits.draw(body), **overrides)
    scanner = Scanner.draw(scan, size, traits, **scanner_overrides)
    affine = scanner.affine()
    canvas = Canvas(scanner.shape[::-1], scanner.spacing_mm, scanner.pose(traits))
    _draw(canvas, traits, vessels)
    canvas.labels[canvas.lungs > 0.5] = contours.LUNG_LEFT
    canvas.labels[canvas.lungs < -0.5] = contours.LUNG_RIGHT
    labels = contours.label_values(organs)[canvas.labels]
    hu = scanner.acquire(canvas.hu, traits.bias_hu, noise)
    return Phantom(scanner.to_file(hu), scanner.to_file(labels), affine, traits, scanner, organs)


def tiny(seed: int, **overrides) -> Phantom:
    """A patient of 48x48x16 voxels, made in a tenth of a second; arguments as for `make`."""
    return make(seed, "tiny", **overrides)


def _draw(canvas, traits, rng):
    """Draws from the outside to the inside, since later shapes cover earlier ones."""
    thorax.draw_couch(canvas, traits)
    thorax.draw_arms(canvas, traits)
    thorax.draw_trunk(canvas, traits)
    thorax.draw_lung_vessels(canvas, traits, rng)
    thorax.draw_abdomen(canvas, traits)
    thorax.draw_skeleton(canvas, traits)
    mediastinum.draw_mediastinum(canvas, traits)
    thorax.draw_stomach(canvas, traits)
    thorax.draw_metal(canvas, traits)
