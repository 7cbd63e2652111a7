"""What can be wrong with a patient, one damage each, done to a healthy phantom's files.

`DAMAGES` maps a name to (code that the audit must find, function that does the damage to a folder
with ct.nii.gz and gt.nii.gz). Some codes have several: they are met in several ways.
"""

import functools
import gzip
import os
from pathlib import Path

import nibabel
import numpy as np

from beam_jobs import thumbnail
from segthor import findings, nifti, phantom
from segthor.organs import SEGTHOR
from segthor.volume import Grid
from tests import file_order

CT, GT = "ct.nii.gz", "gt.nii.gz"
DAMAGES = {}
BODY_HU = -400


@functools.cache
def healthy_phantom(seed: int = 3) -> phantom.Phantom:
    """One of 64x64x24 voxels that raises no finding."""
    return phantom.make(
        seed, "tiny", shape=(64, 64, 24), spacing_mm=(6.5, 6.5, 9.5), axcodes="LPS",
        oblique_deg=0.0, padding_hu=None, metal_hu=None, contrast_hu=120.0,
    )  # fmt: skip


def healthy(folder, seed: int = 3) -> None:
    """Writes that phantom as ct.nii.gz and gt.nii.gz."""
    made = healthy_phantom(seed)
    grid = Grid(made.hu.shape, made.affine)
    for name, array in ((CT, made.hu), (GT, made.labels)):
        file_order.write(str(Path(folder) / name), array, grid)


def damage(code):
    def register(function):
        DAMAGES[function.__name__] = (code, function)
        return function

    return register


def check_findings(found, code) -> None:
    """The code is among an examined patient's findings, which decide whether it is rejected."""
    assert code in {one.code for one in found.findings}, found.findings
    rejects = {one.code for one in found.findings if one.severity == findings.REJECT}
    assert found.rejected == bool(rejects)
    assert (code in rejects) == (findings.CODES[code][0] == findings.REJECT)
    for one in found.findings:
        assert one.message and one.message[-1] != "." and "\n" not in one.message
    thumbnail.encode_png(found, organs=SEGTHOR)  # a picture of any damage, or none


def _change(folder, name, change, dtype=None):
    path = str(Path(folder) / name)
    scan = file_order.read(path)
    array = change(scan.array.copy())
    array = array.astype(dtype) if dtype else array
    file_order.write(path, np.asarray(array), Grid(array.shape, scan.grid.affine))


def _both(folder, change):
    for name in (CT, GT):
        _change(folder, name, change)


def _affine(folder, name, change):
    path = str(Path(folder) / name)
    scan = file_order.read(path)
    affine = change(scan.grid.affine.copy())
    file_order.write(path, scan.array, Grid(scan.array.shape, affine))


def _header(folder, name, **fields):
    """Sets header fields, whatever they make of the file."""
    path = Path(folder) / name
    content = bytearray(gzip.decompress(path.read_bytes()))
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    for field, value in fields.items():
        header[field] = value
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content), 1))


def _organ(folder, label, change):
    """Replaces one organ's mask [Z, Y, X] by `change(mask)`."""
    path = str(Path(folder) / GT)
    scan = nifti.read(path)
    zyx = scan.zyx.copy()
    mask = zyx == label
    zyx[mask] = 0
    zyx[change(mask)] = label
    nifti.write(path, zyx, scan.grid)


# The files.


@damage("file_missing")
def ct_removed(folder):
    os.remove(Path(folder) / CT)


@damage("file_missing")
def contours_removed(folder):
    os.remove(Path(folder) / GT)


@damage("file_missing")
def ct_is_a_folder(folder):
    os.remove(Path(folder) / CT)
    os.mkdir(Path(folder) / CT)


@damage("file_not_nifti")
def ct_empty(folder):
    (Path(folder) / CT).write_bytes(b"")


@damage("file_not_nifti")
def ct_is_text(folder):
    (Path(folder) / CT).write_bytes(gzip.compress(b"patient,ct\n" * 100))


@damage("file_header")
def header_offset_undefined(folder):
    _header(folder, CT, vox_offset=np.nan)


@damage("file_header")
def header_type_unknown(folder):
    _header(folder, GT, datatype=777)


@damage("file_not_3d")
def four_axes(folder):
    _header(folder, CT, dim=[4, 64, 64, 12, 2, 1, 1, 1])


@damage("file_type")
def colours(folder):
    _header(folder, CT, datatype=128, bitpix=24)


@damage("file_affine")
def affine_singular(folder):
    _header(folder, CT, sform_code=1, srow_x=[0, 0, 0, 0])


@damage("file_affine")
def affine_undefined(folder):
    _header(folder, CT, sform_code=1, srow_z=[0, 0, np.inf, 0])


@damage("spacing_absurd")
def unit_is_micron(folder):
    for name in (CT, GT):
        _header(folder, name, xyzt_units=3)


@damage("spacing_absurd")
def unit_is_meter(folder):
    for name in (CT, GT):
        _header(folder, name, xyzt_units=1)


@damage("file_too_large")
def absurd_size(folder):
    _header(folder, CT, dim=[3, 32000, 32000, 32000, 1, 1, 1, 1])


@damage("file_truncated")
def ct_cut_off(folder):
    path = Path(folder) / CT
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@damage("file_truncated")
def last_bytes_lost(folder):
    path = Path(folder) / GT
    path.write_bytes(path.read_bytes()[:-4])


@damage("file_truncated")
def header_promises_more(folder):
    _header(folder, CT, dim=[3, 64, 64, 25, 1, 1, 1, 1])


@damage("file_surplus")
def headers_promise_less(folder):
    for name in (CT, GT):
        _header(folder, name, dim=[3, 64, 64, 12, 1, 1, 1, 1])


@damage("file_damaged")
def checksum_wrong(folder):
    path = Path(folder) / CT
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)


@damage("file_damaged")
def bytes_overwritten(folder):
    path = Path(folder) / CT
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)


# Where the voxels lie.


@damage("no_orientation")
def forms_cleared(folder):
    for name in (CT, GT):
        _header(folder, name, sform_code=0, qform_code=0)


@damage("affine_identity")
def affine_reset(folder):
    for name in (CT, GT):
        _affine(folder, name, lambda affine: np.eye(4))


@damage("forms_disagree")
def qform_elsewhere(folder):
    for name in (CT, GT):
        _header(folder, name, qoffset_x=-500.0)


@damage("grid_sheared")
def gantry_tilt(folder):
    def shear(affine):
        affine[1, 2] += 0.2 * affine[2, 2]
        return affine

    for name in (CT, GT):
        _affine(folder, name, shear)


@damage("spacing_absurd")
def spacing_in_metres(folder):
    for name in (CT, GT):
        _affine(folder, name, lambda affine: affine @ np.diag([1e-3, 1e-3, 1e-3, 1]))


@damage("spacing_absurd")
def spacing_fifty(folder):
    for name in (CT, GT):
        _affine(folder, name, lambda affine: affine @ np.diag([1, 1, 50 / 9.5, 1]))


@damage("spacing_unusual")
def slices_far_apart(folder):
    for name in (CT, GT):
        _affine(folder, name, lambda affine: affine @ np.diag([1, 1, 12 / 9.5, 1]))


@damage("few_slices")
def a_few_slices(folder):
    _both(folder, lambda array: array[:, :, 8:14])


@damage("few_pixels")
def a_few_pixels(folder):
    _both(folder, lambda array: array[::4, ::4])


# CT against contours.


@damage("shape_mismatch")
def a_slice_less(folder):
    _change(folder, GT, lambda array: array[:, :, :-1])


@damage("spacing_mismatch")
def contours_of_other_spacing(folder):
    _affine(folder, GT, lambda affine: affine @ np.diag([1, 1, 1.02, 1]))


@damage("affine_mismatch")
def contours_shifted(folder):
    def shift(affine):
        affine[0, 3] += 3
        return affine

    _affine(folder, GT, shift)


@damage("affine_mismatch")
def contours_flipped(folder):
    _affine(folder, GT, lambda affine: affine @ np.diag([-1, 1, 1, 1]))


# HU.


@damage("not_finite")
def undefined_values(folder):
    def spoil(array):
        array[3, 4, 5] = np.nan
        return array

    _change(folder, CT, lambda array: spoil(array.astype(np.float32)))


@damage("not_finite")
def infinite_values(folder):
    def spoil(array):
        array[:2] = -np.inf
        return array

    _change(folder, CT, lambda array: spoil(array.astype(np.float32)))


@damage("hu_constant")
def black_scan(folder):
    _change(folder, CT, np.zeros_like)


@damage("hu_no_air")
def offset_lost(folder):
    _change(folder, CT, lambda array: np.clip(array.astype(int) + 1024, 0, 4095), np.uint16)


@damage("hu_no_air")
def eight_bit_picture(folder):
    _change(folder, CT, lambda array: np.clip((array + 160) * 255.0 / 400, 0, 255), np.uint8)


@damage("hu_scale")
def slope_of_ten(folder):
    _change(folder, CT, lambda array: array.astype(int) * 10, np.int16)


@damage("hu_scale")
def slope_of_two_thirds(folder):
    _change(folder, CT, lambda array: array * (2 / 3), np.int16)


@damage("hu_scale")
def offset_lost_and_padded(folder):
    def spoil(array):
        array = np.clip(array.astype(int) + 1024, 0, 4095)
        array[0] = -2000
        return array

    _change(folder, CT, spoil, np.int16)


@damage("hu_clipped")
def bone_cut_off(folder):
    _change(folder, CT, lambda array: np.minimum(array, 200))


@damage("metal")
def an_implant(folder):
    def implant(array):
        array[30:32, 30:32, 12] = 21_000
        return array

    _change(folder, CT, implant)


@damage("padding")
def mostly_padding(folder):
    def pad(array):
        array[:, :14], array[:, -12:] = -3024, -3024
        return array

    _change(folder, CT, pad)


# Labels.


@damage("labels_not_integer")
def interpolated_labels(folder):
    _change(folder, GT, lambda array: array * 0.5, np.float32)


@damage("labels_not_integer")
def undefined_labels(folder):
    _change(folder, GT, lambda array: np.where(array == 1, np.nan, array), np.float32)


@damage("labels_rounded")
def labels_of_a_round_trip_through_doubles(folder):
    _change(folder, GT, lambda array: array * 1.0000001, np.float64)


@damage("labels_unknown")
def a_fifth_organ(folder):
    _change(folder, GT, lambda array: np.where(array == 4, 5, array))


@damage("labels_unknown")
def negative_labels(folder):
    _change(folder, GT, lambda array: -array.astype(np.int16))


@damage("labels_empty")
def no_contours(folder):
    _change(folder, GT, np.zeros_like)


@damage("organ_missing")
def no_trachea(folder):
    _organ(folder, 3, lambda mask: np.zeros_like(mask))


@damage("organ_missing")
def aorta_drawn_as_esophagus(folder):
    _change(folder, GT, lambda array: np.where(array == 4, 1, array))


@damage("organ_volume")
def heart_drawn_as_esophagus(folder):
    _change(folder, GT, lambda array: np.where(array == 2, 1, array))


@damage("organ_volume")
def heart_of_one_slice(folder):
    def thin(mask):
        kept = np.zeros_like(mask)
        z = mask.sum((1, 2)).argmax()
        kept[z] = mask[z]
        return kept

    _organ(folder, 2, thin)


@damage("organ_hu")
def heart_in_the_lung(folder):
    _organ(folder, 2, lambda mask: np.roll(mask, 12, axis=2))


@damage("organ_hu")
def trachea_on_the_spine(folder):
    _organ(folder, 3, lambda mask: np.roll(mask, 9, axis=1))


@damage("organ_extent")
def short_esophagus(folder):
    def shorten(mask):
        kept = mask.copy()
        levels = np.flatnonzero(mask.any((1, 2)))
        kept[levels[8:]] = False
        return kept | np.roll(kept, 1, axis=1) | np.roll(kept, -1, axis=1)  # keeps the volume

    _organ(folder, 1, shorten)


@damage("organ_components")
def heart_with_a_stray_voxel(folder):
    def stray(mask):
        mask[1, 2, 3] = True
        return mask

    _organ(folder, 2, stray)


@damage("organ_gap")
def a_slice_forgotten(folder):
    def forget(mask):
        levels = np.flatnonzero(mask.any((1, 2)))
        mask[levels[len(levels) // 2]] = False
        return mask

    _organ(folder, 4, forget)


@damage("anatomy_mirrored")
def left_is_right(folder):
    for name in (CT, GT):
        _affine(folder, name, lambda affine: affine @ np.diag([-1, 1, 1, 1]))


@damage("anatomy_mirrored")
def upside_down(folder):
    for name in (CT, GT):
        _affine(folder, name, lambda affine: affine @ np.diag([1, 1, -1, 1]))


@damage("anatomy_mirrored")
def front_is_back(folder):
    for name in (CT, GT):
        _affine(folder, name, lambda affine: affine @ np.diag([1, -1, 1, 1]))


@damage("labels_outside_box")
def contours_beside_the_box(folder):
    def add(mask):
        z, y, _ = np.argwhere(mask)[0]
        mask[z, y, 1] = True
        return mask

    _organ(folder, 4, add)


@damage("box_beyond_scan")
def half_a_scan(folder):
    _both(folder, lambda array: array[:, 16:48])
