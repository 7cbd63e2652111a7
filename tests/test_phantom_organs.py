"""Phantoms with organs of a table's choice: the lungs, the cord, label values, pieces."""

import functools
import hashlib
from dataclasses import replace

import numpy as np
import pytest
from programs import ROOT, run
from scipy import ndimage

from benchmarks.pieces import cut, piece_table
from segthor import files, json_files, organ_table, phantom
from segthor.errors import InputError
from segthor.organs import SEGTHOR, Organ, Organs
from tests import file_order

THORAX = organ_table.read(str(ROOT / "configs" / "organs" / "thorax.csv"))
CORNERS = np.ones((3, 3, 3), bool)
# sha256 of image and label map, from before phantoms had other contours than SegTHOR's four.
BEFORE = {
    ("tiny", 0): ("8d0c74af9918005a", "7e904db7b942fed6"),
    ("tiny", 1): ("7318ef2fa87b0527", "e98c8a7a171a2494"),
    ("tiny", 5): ("4392cbb73a8339ba", "fb6a28e9e16098c8"),
    ("small", 0): ("64ca49be1750a502", "3dfb0615ea6a2914"),
    ("small", 3): ("ac47116eec21c783", "ee7aafda0605a139"),
    ("small", 4): ("09952910c971a7c5", "f405438d2b49a945"),
    ("full", 0): ("a3c2404827f45808", "c7d650fe37ffc657"),
    ("full", 1): ("f0ca6e05d40a350c", "f74b30cb61268acf"),
}
# What takes long to make: a scan of full size four seconds, a small one a third of a second.
LONG = {("full", 0), ("full", 1), *(("small", seed) for seed in range(4, 10))}


def tried(patients):
    """Parameters of a test."""
    return [
        pytest.param(*one, marks=[pytest.mark.thorough] if one in LONG else []) for one in patients
    ]


TINY, SMALL = ([(size, s) for s in range(n)] for size, n in (("tiny", 4), ("small", 10)))
PATIENTS = tried([*TINY, *SMALL, ("full", 0), ("full", 1)])


@functools.cache
def patient(size, seed):
    """A phantom with the thorax's seven organs."""
    return phantom.make(seed, size, organs=THORAX)


def mask_of(made, name):
    return made.labels == THORAX[name].label


def boxed(made):
    """(organ, its box, its mask within the box) of each organ of the thorax."""
    boxes = ndimage.find_objects(made.labels)
    for organ in THORAX:
        box = boxes[organ.label - 1]
        yield organ, box, made.labels[box] == organ.label


def along_z(made):
    """The axis of the arrays along the body."""
    return int(np.abs(made.affine[2, :3]).argmax())


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("size, seed", tried(BEFORE))
def test_images_and_the_four_organs_are_those_of_before(size, seed):
    made = patient(size, seed)
    four = np.where(made.labels <= 4, made.labels, 0).astype(np.uint8)
    assert (digest(made.hu), digest(four)) == BEFORE[size, seed]


@pytest.mark.parametrize("size, seed", [("tiny", 1), ("small", 3)])
def test_without_a_table_the_label_map_is_that_of_before(size, seed):
    made = phantom.make(seed, size)
    assert (digest(made.hu), digest(made.labels)) == BEFORE[size, seed]


def test_label_values_are_the_tables():
    own = Organs(
        (
            replace(THORAX["lung_left"], label=255, left_of=(), mirror=""),
            replace(SEGTHOR["aorta"], label=1),
        )
    )
    seven, two = phantom.tiny(3, organs=THORAX), phantom.tiny(3, organs=own)
    assert set(np.unique(two.labels)) == {0, 1, 255}
    np.testing.assert_array_equal(two.labels == 255, mask_of(seven, "lung_left"))
    np.testing.assert_array_equal(two.labels == 1, mask_of(seven, "aorta"))
    np.testing.assert_array_equal(two.hu, seven.hu)


@pytest.mark.parametrize("size, seed", PATIENTS)
def test_every_organ_of_the_thorax_is_plausible(size, seed):
    made = patient(size, seed)
    spacing, z_axis = made.scanner.spacing_mm, along_z(made)
    for organ, box, mask in boxed(made):
        volume_cm3 = mask.sum() * np.prod(spacing) / 1000
        slices = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {z_axis})))
        extent_z_mm = (np.ptp(slices) + 1) * spacing[2]
        within = {
            "volume_cm3": volume_cm3,
            "mean_hu": made.hu[box][mask].mean(),
            "extent_z_mm": extent_z_mm,
        }
        for name, value in within.items():
            low, high = getattr(organ, name)
            assert low <= value <= high, f"{organ.name}: {name}"
        pieces = ndimage.label(np.ascontiguousarray(mask), CORNERS)[1]
        assert pieces <= organ.max_components, organ.name


@pytest.mark.parametrize("size, seed", PATIENTS)
def test_organs_lie_where_the_table_says(size, seed):
    made = patient(size, seed)
    centre = {}
    for organ, box, mask in boxed(made):
        index = np.argwhere(mask).mean(0) + [side.start for side in box]
        centre[organ.name] = made.affine[:3, :3] @ index + made.affine[:3, 3]  # RAS
    middle = centre["spinal_cord"][0]
    for organ in THORAX:
        x, y, z = centre[organ.name]
        assert organ.side != "left" or x < middle - 40
        assert organ.side != "right" or x > middle + 40
        assert all(x < centre[other][0] for other in organ.left_of[:1])
        assert all(x > centre[other][0] for other in organ.right_of[:1])
        assert all(y > centre[other][1] for other in organ.in_front_of)
        assert all(z < centre[other][2] for other in organ.below)


def lungs_by_threshold(made):
    """Masks of left and right lung: the two largest bodies of air in the body, vessels filled in.

    Vessels are holes of less than 3 cm2 in a slice; the diaphragm's dome is larger.
    """
    z_axis = along_z(made)
    hu, airway = (np.moveaxis(a, z_axis, 0) for a in (made.hu, mask_of(made, "trachea")))
    air = np.ascontiguousarray((hu < -500) & ~grown(airway))
    inside = np.zeros_like(air)
    for section, kept in zip(air, inside, strict=True):
        parts, _ = ndimage.label(np.pad(section, 1, constant_values=True))
        kept[:] = section & (parts != parts[0, 0])[1:-1, 1:-1]
    parts, _ = ndimage.label(inside)
    sizes = np.bincount(parts.ravel())
    largest = 1 + np.argsort(sizes[1:])[-2:]
    hole_px = 300 / made.scanner.spacing_mm[0] ** 2
    lungs = [np.moveaxis(filled(parts == part, hole_px), 0, z_axis) for part in largest]
    return sorted(lungs, key=lambda lung: made.affine[0, :3] @ np.argwhere(lung).mean(0))


def grown(mask):
    """A mask and every voxel that touches it, by a corner even."""
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    wider = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
    mask = mask.copy()
    mask[wider] = ndimage.binary_dilation(mask[wider], CORNERS)
    return mask


def filled(mask, most_px):
    """A mask [Z, Y, X] with the holes of its slices that have less than `most_px` pixels."""
    mask = mask.copy()
    for section in mask:
        holes, _ = ndimage.label(ndimage.binary_fill_holes(section) & ~section)
        small = np.bincount(holes.ravel()) < most_px
        section |= small[holes] & (holes > 0)
    return mask


@pytest.mark.parametrize("size, seed", tried([*SMALL[:6], ("full", 0)]))
def test_lungs_are_the_air_inside_the_ribs_with_the_vessels_in_it(size, seed):
    made = patient(size, seed)
    for lung, name in zip(lungs_by_threshold(made), ("lung_left", "lung_right"), strict=True):
        mask = mask_of(made, name)
        dice = 2 * (lung & mask).sum() / (lung.sum() + mask.sum())
        assert dice > 0.97, name


def test_lungs_hold_vessels_and_no_bronchi():
    made = phantom.make(3, "small", organs=THORAX, noise_hu=0.0, bias_hu=0.0, lung_hu=-850.0)
    lungs = mask_of(made, "lung_left") | mask_of(made, "lung_right")
    deep = ndimage.binary_erosion(lungs, CORNERS)
    assert (made.hu[deep] > -300).sum() > 100, "vessels"
    assert made.hu[lungs].min() == -850, "what a main bronchus holds has -990 HU"
    bronchi = (made.hu < -900) & ndimage.binary_dilation(lungs, CORNERS)
    assert bronchi.any(), "there is one beside the lung"


@pytest.mark.parametrize("size, seed", tried([("small", 0), ("small", 4), ("full", 0)]))
def test_the_cord_fills_a_canal_of_bone(size, seed):
    made = patient(size, seed)
    whole = mask_of(made, "spinal_cord")
    box = tuple(slice(max(s.start - 9, 0), s.stop + 9) for s in ndimage.find_objects(1 * whole)[0])
    cord, hu = (np.moveaxis(array[box], along_z(made), 0) for array in (whole, made.hu))
    cross = np.zeros((3, 3, 3), bool)
    cross[1] = True
    core = ndimage.binary_erosion(cord, cross)
    wall = ndimage.binary_dilation(cord, cross) & ~cord
    present = cord.any(axis=(1, 2))
    wall[~present] = False
    assert abs(hu[core].mean() - 30) < 20, "nerve tissue and fluid"
    assert np.median(hu[wall]) > 130, "bone"
    holes = np.stack([ndimage.binary_fill_holes(section) & ~section for section in cord])
    assert not holes.any()


def test_the_cord_ends_where_the_second_lumbar_vertebra_does():
    # As long as a scan of full size, which reaches below it, and with thin slices.
    scan = {"shape": (64, 64, 182), "spacing_mm": (7.6, 7.6, 2.5)}
    made = phantom.make(1, "full", organs=THORAX, **scan)
    z_axis, scan = along_z(made), made.scanner
    slices = np.flatnonzero(mask_of(made, "spinal_cord").any(axis=tuple({0, 1, 2} - {z_axis})))
    up = made.affine[2, z_axis] > 0
    lowest = slices.min() if up else scan.shape[2] - 1 - slices.max()
    below_top_mm = (scan.shape[2] - 1 - lowest) * scan.spacing_mm[2]
    over_carina_mm = scan.top_mm - below_top_mm / made.traits.scale
    assert lowest > 0, "the scan goes on"
    assert -240 <= over_carina_mm < -240 + scan.spacing_mm[2]


# Tables for whole data sets.


def test_thorax_is_the_shipped_table_and_segthor_the_default():
    assert phantom.table("thorax") == THORAX
    assert phantom.table("segthor") == SEGTHOR
    assert phantom.table(str(ROOT / "configs" / "organs" / "thorax.csv")) == THORAX


@pytest.mark.parametrize("name", ["abdomen", "no/such.csv"])
def test_a_table_that_is_not_there_is_named(name):
    with pytest.raises(InputError, match=name):
        phantom.table(name)


def test_organs_that_phantoms_do_not_draw_are_refused_before_anything_is_written(tmp_path):
    table = tmp_path / "own.csv"
    table.write_text("name,label\nheart,1\nliver,2\nspleen,3\n")
    with pytest.raises(InputError, match=r"own.csv: phantoms have no liver, spleen; expected"):
        phantom.table(str(table))
    with pytest.raises(InputError, match="no liver, spleen"):
        organs = organ_table.read(str(table))
        phantom.write_dataset(str(tmp_path / "out"), 1, 0, "tiny", 0, organs)
    assert not (tmp_path / "out").exists()


def quiet(line):
    pass


def test_folders_from_before_tables_go_on_as_segthors_four(tmp_path):
    out = str(tmp_path / "out")
    phantom.write_dataset(out, 1, 0, "tiny", 1, report=quiet)
    settings = json_files.read(files.join(out, "phantoms.json"))
    assert set(settings) == {"version", "size", "seed", "patients", "test_patients"}
    lines = []
    same = Organs(tuple(replace(organ, volume_cm3=None) for organ in SEGTHOR))
    phantom.write_dataset(out, 1, 0, "tiny", 1, same, report=lines.append)
    assert "is there already" in lines[0]
    with pytest.raises(InputError, match="expected phantoms made with .*organs.*lung_right"):
        phantom.write_dataset(out, 1, 0, "tiny", 1, THORAX, report=quiet)


def test_a_folder_of_seven_organs_is_refused_to_four_and_to_other_label_values(tmp_path):
    out = str(tmp_path / "out")
    phantom.write_dataset(out, 1, 0, "tiny", 1, THORAX, report=quiet)
    phantom.write_dataset(out, 1, 0, "tiny", 1, THORAX, report=quiet)
    other = Organs((replace(THORAX.rows[0], label=9), *THORAX.rows[1:]))
    for organs in (SEGTHOR, other):
        with pytest.raises(InputError, match="found others, made with .*lung_right"):
            phantom.write_dataset(out, 1, 0, "tiny", 1, organs, report=quiet)


def test_settings_that_are_none_are_refused(tmp_path):
    (tmp_path / "phantoms.json").write_text("[1]")
    with pytest.raises(InputError, match=r"no settings but \[1\]"):
        phantom.write_dataset(str(tmp_path), 1, 0, "tiny", 1, report=quiet)


def call(folder, *flags):
    command = ["-m", "segthor.phantom", "--patients=1", "--test_patients=0", *flags]
    return run(command, cwd=folder, environment={"PYTHONPATH": ROOT})


def test_the_program_contours_the_thorax(tmp_path):
    done = call(tmp_path, "--output=out", "--organs=thorax")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith(f"--organ_table={ROOT / 'configs/organs/thorax.csv'}")
    made = phantom.make(phantom.patient_seed(0, 1), "small", organs=THORAX)
    folder = tmp_path / "out" / "train" / "Patient_01"
    np.testing.assert_array_equal(file_order.read(str(folder / "GT.nii.gz")).array, made.labels)
    np.testing.assert_array_equal(file_order.read(str(folder / "Patient_01.nii.gz")).array, made.hu)


def test_the_program_takes_a_file_and_refuses_other_organs_in_one_line(tmp_path):
    (tmp_path / "own.csv").write_text("name,label\nspinal_cord,12\nliver,2\n")
    refused = call(tmp_path, "--output=out", "--organs=own.csv")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert refused.stderr.startswith("error: own.csv: phantoms have no liver")
    (tmp_path / "own.csv").write_text("name,label\nspinal_cord,12\n")
    done = call(tmp_path, "--output=out", "--organs=own.csv")
    assert done.returncode == 0 and done.stdout.rstrip().endswith("--organ_table=own.csv")
    labels = file_order.read(str(tmp_path / "out" / "train" / "Patient_01" / "GT.nii.gz")).array
    assert set(np.unique(labels)) == {0, 12}


# Pieces.


@pytest.fixture(scope="module")
def seven():
    return patient("small", 0)


@pytest.mark.parametrize("count", [7, 32, 255])
def test_pieces_divide_every_organ_evenly_and_nothing_else(seven, count):
    table = piece_table(THORAX, count)
    pieces = cut(seven.labels, seven.affine, THORAX, count)
    assert [organ.label for organ in table] == list(range(1, count + 1))
    assert pieces.dtype == np.uint8 and pieces.max() == count
    np.testing.assert_array_equal(pieces > 0, seven.labels > 0)
    for name in THORAX.names:
        own = [organ.label for organ in table if organ.name.rpartition("_")[0] == name]
        assert len(own) in (count // 7, count // 7 + 1)
        found, voxels = np.unique(pieces[mask_of(seven, name)], return_counts=True)
        assert list(found) == own, "each piece is there, and of this organ"
        assert np.ptp(voxels) <= 1


def test_pieces_are_the_same_every_time_and_their_table_survives_a_file(seven, tmp_path):
    one, two = (cut(seven.labels, seven.affine, THORAX, 32) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    table = piece_table(THORAX, 32)
    json_files.write(str(tmp_path / "pieces.json"), table.to_json())
    assert organ_table.read(str(tmp_path / "pieces.json")) == table
    assert table.names[:6] == tuple([f"esophagus_{i}" for i in range(1, 6)] + ["heart_1"])


def test_tubes_are_cut_across_and_the_heart_like_a_cake(seven):
    table, pieces = piece_table(THORAX, 32), cut(seven.labels, seven.affine, THORAX, 32)

    def heights(name):
        index = np.argwhere(pieces == table[name].label)
        return index @ seven.affine[2, :3]

    for part in range(1, 5):
        assert heights(f"aorta_{part}").max() <= heights(f"aorta_{part + 1}").min()
        low, high = heights(f"heart_{part}"), heights(f"heart_{part + 1}")
        assert low.max() > np.median(high) > low.min()


def test_an_organ_that_is_not_there_or_too_small_lacks_pieces():
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1, 1, 1:4] = SEGTHOR["trachea"].label
    pieces = cut(labels, np.eye(4), SEGTHOR, 32)
    assert list(pieces[1, 1]) == [0, 17, 18, 19]
    assert (pieces > 0).sum() == 3


@pytest.mark.parametrize("count", [6, 256])
def test_a_number_of_pieces_that_no_label_map_holds_is_refused(count):
    with pytest.raises(InputError, match=f"{count} pieces; expected 7"):
        piece_table(THORAX, count)


def test_pieces_of_one_organ():
    table = piece_table(Organs((Organ("heart", 3, (1, 2, 3)),)), 2)
    assert table.names == ("heart_1", "heart_2") and table.labels(table.names) == [1, 2]
