"""Synthetic patients in the SegTHOR data set's layout, for tests, the demo and benchmarks.

python -m segthor.phantom --output=DIR --patients=24 --test_patients=4 --size=small --seed=0
"""

import time
from dataclasses import dataclass

import numpy as np

from segthor import anatomy, files, thorax
from segthor.canvas import Canvas, Pose
from segthor.errors import InputError
from segthor.nifti import Grid, write
from segthor.organs import BY_NAME, NAMES

SIZES = ("small", "full", "tiny")
SETTINGS = "phantoms.json"
FIRST_TEST_PATIENT = 41  # as in the challenge, whose training patients end at 40
VERSION = 1  # of the anatomy: raised whenever the same seed gives other voxels
_AXCODES = ("LPS", "LPS", "LPS", "LPS", "RAS", "LAS", "LPI", "ASL")
_PADDING_HU = (None, None, -1024, -2000, -3024)
_PIXELS = {"full": 512, "small": 128, "tiny": 48}
_COVER_MM = {"full": (390, 470), "small": (285, 320), "tiny": (290, 310)}
_SCAN = ("shape", "spacing_mm", "axcodes", "oblique_deg", "noise_hu", "padding_hu")


@dataclass(frozen=True)
class Phantom:
    """hu: int16 [X, Y, Z]. labels: uint8 [X, Y, Z]. affine: [4, 4] voxel index to RAS+ mm."""

    hu: np.ndarray
    labels: np.ndarray
    affine: np.ndarray
    contrast_hu: float
    traits: anatomy.Traits


@dataclass(frozen=True)
class _Scan:
    """How one patient is scanned. Shape and spacing run along L, P, S, whatever the axis order."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    top_mm: float  # patient height of the uppermost slice
    offset_mm: tuple[float, float]
    axcodes: str
    oblique_deg: float
    origin_mm: tuple[float, float, float]
    noise_hu: float
    padding_hu: int | None


def make(seed: int, size: str = "small", organs=NAMES, **overrides) -> Phantom:
    """One patient: the same seed and arguments always give the same voxels.

    Args:
      seed: Not negative. Body, scan and noise are drawn apart, so that an override of one leaves
        the others as they were.
      size: 'full' 512x512 with 150 to 284 slices, 'small' 128x128 with about 40, 'tiny' 48x48x16.
      organs: Names of the organs that are contoured; the image shows all of them.
      **overrides: `shape` and `spacing_mm` along the patient's L, P, S axes (axcodes permute them
        afterwards), `axcodes` (any of the 48, 'LPS' say), `oblique_deg` (the patient turns with
        the grid), `noise_hu`, `padding_hu`, or any field of `anatomy.Traits`, `contrast_hu` say.

    Raises:
      TypeError: an override that is none of these. ValueError: an unknown size.
    """
    if size not in SIZES:
        raise ValueError(f"size: expected one of {SIZES}, got {size!r}")
    body, scanner, branches, noise = (np.random.default_rng([seed, stream]) for stream in range(4))
    scan_overrides = {name: overrides.pop(name) for name in _SCAN if name in overrides}
    traits = anatomy.Traits.draw(body).with_overrides(**overrides)
    scan = _draw_scan(scanner, size, traits, scan_overrides)
    canvas = Canvas(scan.shape[::-1], scan.spacing_mm, _pose(scan, traits))
    _draw_patient(canvas, traits, branches)
    for name in set(NAMES) - set(organs):
        canvas.labels[canvas.labels == BY_NAME[name].label] = 0
    hu = _acquire(canvas.hu, scan, traits, noise)
    affine, order, flips = _orient(scan)
    turn = [_turned(array, order, flips) for array in (hu, canvas.labels)]
    return Phantom(*turn, affine, traits.contrast_hu, traits)


def tiny(seed: int, **overrides) -> Phantom:
    """A patient of 48x48x16 voxels, made in milliseconds; arguments as for `make`."""
    return make(seed, "tiny", **overrides)


def _draw_patient(canvas, traits, rng):
    """Later shapes cover earlier ones."""
    thorax.draw_couch(canvas, traits)
    thorax.draw_arms(canvas, traits)
    thorax.draw_trunk(canvas, traits)
    thorax.draw_lung_vessels(canvas, traits, rng)
    thorax.draw_abdomen(canvas, traits)
    thorax.draw_skeleton(canvas, traits)
    anatomy.draw_organs(canvas, traits)
    thorax.draw_stomach(canvas, traits)
    thorax.draw_metal(canvas, traits)


def _draw_scan(rng, size, traits, overrides) -> _Scan:
    between = rng.uniform
    pixels = _PIXELS[size]
    width = 2 * 176 * traits.girth * traits.scale
    if size == "full":
        pixel = 0.9 + 0.47 * rng.beta(1, 3)
        dz = float(rng.choice([2.0, 2.5, 2.5, 2.5, 3.0, 3.3, 3.7]))
    else:
        pixel = between(1.1, 1.32) * width / pixels
        dz = between(6.8, 8.0) if size == "small" else 19.0
    count = round(between(*_COVER_MM[size]) / dz)
    count = int(np.clip(count, 150, 284)) if size == "full" else count
    scan = {
        "shape": (pixels, pixels, count),
        "spacing_mm": (round(pixel, 3), round(pixel, 3), round(dz, 2)),
        "top_mm": between(112, 160) if size == "full" else between(98, 124),
        "offset_mm": (between(-10, 10), between(-20, 5)),
        "axcodes": str(rng.choice(_AXCODES)),
        "oblique_deg": between(1, 3) if rng.random() < 0.15 else 0.0,
        "origin_mm": tuple(np.round(between(-150, 150, 3), 1)),
        "noise_hu": between(8, 25),
        "padding_hu": _PADDING_HU[rng.integers(len(_PADDING_HU))],
    }
    return _Scan(**(scan | overrides))


def _pose(scan, traits) -> Pose:
    """The body's middle lies about the grid's centre, the uppermost slice at `top_mm`."""
    size_x, size_y, size_z = np.multiply(np.subtract(scan.shape, 1), scan.spacing_mm)
    origin = (
        size_x / 2 + scan.offset_mm[0],
        size_y / 2 + scan.offset_mm[1],
        size_z - scan.top_mm * traits.scale,
    )
    lean = (traits.lean_x, traits.lean_y)
    return Pose(tuple(map(float, origin)), float(traits.scale), float(traits.roll_rad), lean)


def _acquire(drawn, scan, traits, rng):
    """Noise, as grainy as a reconstruction's, the scanner's bias and its round field of view."""
    hu = np.empty(drawn.shape, np.int16)
    outside = _outside_circle(drawn.shape[1:]) if scan.padding_hu is not None else None
    for k, section in enumerate(drawn):
        white = rng.standard_normal(section.shape, np.float32)
        grain = (white + np.roll(white, 1, 0) + np.roll(white, 1, 1)) / np.float32(np.sqrt(3))
        shift = np.where(section > -300, np.float32(traits.bias_hu), 0)
        noisy = np.clip(section + shift + np.float32(scan.noise_hu) * grain, -1024, 32767)
        hu[k] = np.rint(noisy)
        if outside is not None:
            hu[k][outside] = scan.padding_hu
    return hu


def _outside_circle(shape):
    y, x = (np.abs(np.arange(n) - (n - 1) / 2) / (n / 2) for n in shape)
    return y[:, None] ** 2 + x[None, :] ** 2 > 1.0


def _orient(scan):
    """(affine, order, flips): file axis i is canonical (L, P, S) axis order[i], maybe reversed."""
    pairs = ("LR", "PA", "SI")
    order = [next(i for i, pair in enumerate(pairs) if code in pair) for code in scan.axcodes]
    if sorted(order) != [0, 1, 2]:
        raise ValueError(f"axcodes: expected one letter of each of {pairs}, got {scan.axcodes!r}")
    flips = [code == pairs[axis][1] for code, axis in zip(scan.axcodes, order, strict=True)]
    angle = np.deg2rad(scan.oblique_deg)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    turn = turn @ [[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]
    columns = turn @ np.diag(np.multiply(scan.spacing_mm, (-1, -1, 1)))
    affine = np.eye(4)
    affine[:3, 3] = scan.origin_mm
    for i, (axis, flip) in enumerate(zip(order, flips, strict=True)):
        affine[:3, i] = -columns[:, axis] if flip else columns[:, axis]
        if flip:
            affine[:3, 3] += columns[:, axis] * (scan.shape[axis] - 1)
    return affine, order, flips


def _turned(zyx, order, flips):
    steps = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    return zyx.transpose(2, 1, 0).transpose(order)[steps]


def write_dataset(
    output: str, patients: int, test_patients: int, size: str, seed: int, report=print
) -> None:
    """Writes patients into `output`, one after the other; those that are there are left alone.

    Raises:
      InputError: the folder holds other phantoms, or something else.
    """
    settings = {
        "version": VERSION,
        "size": size,
        "seed": seed,
        "patients": patients,
        "test_patients": test_patients,
    }
    _claim(output, settings)
    places = list(_places(output, patients, test_patients))
    started = time.monotonic()
    for done, (number, scan_path, labels_path) in enumerate(places, 1):
        if files.exists(scan_path) and files.exists(labels_path):
            state = "is there already"
        else:
            made = make(patient_seed(seed, number), size)
            grid = Grid.from_affine(made.hu.shape, made.affine)
            write(labels_path, made.labels, grid)
            write(scan_path, made.hu, grid)
            state = "x".join(map(str, made.hu.shape))
        seconds = time.monotonic() - started
        report(f"[{done}/{len(places)}] {files.name(scan_path)}: {state} ({seconds:.0f} s)")


def patient_seed(seed: int, number: int) -> int:
    """The seed for `make` of one patient of a data set, whatever the others are."""
    return seed * 100_000 + number


def _claim(output, settings):
    """Refuses a folder that is in use for something else; records what this one is for."""
    path = files.join(output, SETTINGS)
    if files.exists(path):
        found = files.read_json(path)
        if found != settings:
            raise InputError(
                f"{output}: holds phantoms made with {_text(found)}; asked for {_text(settings)}; "
                "choose another --output or the same settings"
            )
    elif files.exists(output) and files.listdir(output):
        raise InputError(
            f"{output}: expected an empty or new folder, found {files.listdir(output)[0]}; "
            "choose another --output"
        )
    else:
        files.write_json(path, settings)


def _text(settings):
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _places(output, patients, test_patients):
    """(number, scan, labels) of every patient, in SegTHOR's layout."""
    for number in range(1, patients + 1):
        folder = files.join(output, "train", f"Patient_{number:02d}")
        name = f"Patient_{number:02d}.nii.gz"
        yield number, files.join(folder, name), files.join(folder, "GT.nii.gz")
    first = max(FIRST_TEST_PATIENT, patients + 1)
    for number in range(first, first + test_patients):
        name = f"Patient_{number:02d}.nii.gz"
        yield number, files.join(output, "test", name), files.join(output, "test_labels", name)


def main(argv) -> None:
    """Reads the flags, writes the patients, says what comes next."""
    del argv
    values = flags.FLAGS
    write_dataset(values.output, values.patients, values.test_patients, values.size, values.seed)
    print(
        f"Wrote {values.patients} training and {values.test_patients} test patients to "
        f"{values.output} (train/, test/, test_labels/).\n"
        f"Next: python -m beam_jobs.build --input={values.output} --output=DATASET"
    )


if __name__ == "__main__":
    # Defined here and not above: entries that import this module have flags of the same names.
    from absl import flags

    from segthor.errors import run

    flags.DEFINE_string("output", None, "Folder for the patients.", required=True)
    flags.DEFINE_integer("patients", 24, "Patients with contours, in train/.", lower_bound=0)
    flags.DEFINE_integer("test_patients", 4, "Patients in test/.", lower_bound=0)
    flags.DEFINE_enum("size", "small", SIZES[:2], "full: 512x512; small: 128x128, 40 slices.")
    flags.DEFINE_integer("seed", 0, "The same seed gives the same patients.", lower_bound=0)
    run(main)
