"""One shard: its records are what prepare gives, permuted, the same bytes every time."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from cases import TINY_RECIPE, save, save_patients

from beam_jobs import shards
from beam_jobs.job import Job
from beam_jobs.plan import ShardPlan
from segthor import files, findings, nifti, records, scans
from segthor.inputs import find
from segthor.organs import SEGTHOR
from segthor.patients import Patient
from segthor.recipe import Recipe, prepare
from tests import file_order

RECIPE = Recipe(**TINY_RECIPE)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return find(save_patients(tmp_path_factory.mktemp("patients"), 3), organs=SEGTHOR)


def write(tmp_path, sources, name="train-fold2-01", recipe=RECIPE, **rules):
    plan = ShardPlan(name, "train", 2, tuple(sources))
    job = Job(str(tmp_path), recipe, **{"organs": SEGTHOR} | rules)
    return plan, job, shards.write(plan, job)


def read(tmp_path, part):
    path = files.join(str(tmp_path), part.shard.file)
    return list(records.slices(path))


def plain(part):
    return json.loads(json.dumps(dataclasses.asdict(part)))


def test_records_are_every_slice_of_every_patient_as_prepared(tmp_path, sources):
    _, _, part = write(tmp_path, sources)
    found = {(record.patient, record.z): record for record in read(tmp_path, part)}
    assert len(found) == part.shard.records == 3 * 16
    for source in sources:
        ct, contours = nifti.read(source.ct), scans.read_labels(source.labels, organs=SEGTHOR)
        expected = prepare(ct, RECIPE, contours)
        for z in range(16):
            record = found[source.name, z]
            np.testing.assert_array_equal(record.image, expected.image(z, RECIPE))
            np.testing.assert_array_equal(record.labels, expected.labels[z])
            np.testing.assert_allclose(record.affine, ct.grid.lps_affine(), rtol=1e-6)
            assert record.scan_shape == ct.zyx.shape[::-1]
            assert record.contoured == (1, 1, 1, 1)
            box = (*expected.placement.first_px, *expected.placement.step_px)
            assert record.box_px == pytest.approx(box)
            assert (record.level_hu, record.width_hu) == (50, 350)


def test_slices_are_permuted_across_patients_and_by_the_seed(tmp_path, sources):
    orders = []
    for seed in (0, 1):
        _, _, part = write(tmp_path / str(seed), sources, seed=seed)
        orders.append([(r.patient, r.z) for r in read(tmp_path / str(seed), part)])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) != orders[0]
    pairs = zip(orders[0], orders[0][1:], strict=False)
    neighbours = sum(a[0] == b[0] and abs(a[1] - b[1]) == 1 for a, b in pairs)
    assert neighbours < 10  # in order there would be 45


def test_the_shard_is_named_after_its_content_and_the_part_describes_it(tmp_path, sources):
    plan, job, part = write(tmp_path, sources)
    shard = part.shard
    path = str(tmp_path / shard.file)
    assert files.sha256(path) == shard.sha256 and files.size(path) == shard.bytes
    assert shard.file == f"shards/train-fold2-01-{shard.sha256[:8]}.tfrecord"
    stored = shards.Part.load(job.output, plan.name)
    assert stored.shard == part.shard and stored.scans == part.scans
    assert plain(stored) == plain(part)
    assert sorted(p.name for p in (tmp_path / "shards").iterdir()) == [files.name(path)]
    assert [row.patient for row in part.patients] == [s.name for s in sources]
    assert part.patients[0].slices == 16


def test_the_same_patients_give_the_same_bytes_in_any_order_and_place(tmp_path, sources):
    expected = write(tmp_path / "a", sources)[2].shard.sha256
    for source in sources:
        shutil.copytree(files.parent(source.ct), tmp_path / "copy" / "train" / source.name)
    copies = find(str(tmp_path / "copy"), organs=SEGTHOR)[::-1]
    assert write(tmp_path / "b", copies)[2].shard.sha256 == expected


def test_rejected_patients_leave_no_record_and_alone_no_file(tmp_path, sources):
    broken = dataclasses.replace(sources[1], ct=str(tmp_path / "none.nii"))
    _, _, part = write(tmp_path / "a", [sources[0], broken, sources[2]])
    assert part.shard.patients == (sources[0].name, sources[2].name)
    assert [row.patient for row in part.rejected] == [broken.name]
    assert part.rejected[0].findings[0].code == "file_missing"
    assert {r.patient for r in read(tmp_path / "a", part)} == set(part.shard.patients)
    _, _, part = write(tmp_path / "b", [broken])
    assert part.shard is None
    assert not (tmp_path / "b" / "shards").exists()


def test_the_key_changes_with_whatever_changes_the_shard(tmp_path, sources):
    plan, job, part = write(tmp_path, sources)
    assert shards.digest_plan(plan, job) == part.key
    assert shards.digest_plan(plan, dataclasses.replace(job, output="elsewhere")) == part.key
    others = [
        (plan, dataclasses.replace(job, seed=1)),
        (plan, dataclasses.replace(job, recipe=Recipe(**TINY_RECIPE, context=5))),
        (plan, dataclasses.replace(job, severities=(("metal", "ignore"),))),
        (plan, dataclasses.replace(job, label_values=(("heart", 2),))),
        (dataclasses.replace(plan, patients=plan.patients[1:]), job),
        (dataclasses.replace(plan, split="validation"), job),
        (
            dataclasses.replace(
                plan, patients=(dataclasses.replace(sources[0], same_scan_as="x"), *sources[1:])
            ),
            job,
        ),
    ]
    keys = {shards.digest_plan(*other) for other in others}
    assert len(keys) == len(others) and part.key not in keys
    files.makedirs(str(tmp_path / "again"))
    moved = shutil.copy(sources[0].ct, str(tmp_path / "again" / "ct.nii.gz"))
    plan = dataclasses.replace(plan, patients=(dataclasses.replace(sources[0], ct=moved),))
    before = shards.digest_plan(plan, job)
    with open(moved, "ab") as stream:
        stream.write(b"\0")
    assert shards.digest_plan(plan, job) != before


def test_other_label_values_become_ours_and_the_rest_background(tmp_path, sources):
    source = sources[0]
    contours = file_order.read(source.labels)
    lut = np.array([0, 7, 200, 9, 4], np.uint8)
    other = lut[contours.array]
    other[0, 0, :3] = 33  # an organ that nobody asked for
    path = str(tmp_path / "other.nii.gz")
    file_order.write(path, other, contours.grid)
    values = (("esophagus", 7), ("heart", 200), ("trachea", 9), ("aorta", 4))
    renamed = dataclasses.replace(source, labels=path)
    _, _, part = write(tmp_path / "b", [renamed], label_values=values)
    _, _, expected = write(tmp_path / "a", [source])
    assert part.shard.sha256 == expected.shard.sha256


def test_level_and_centre_come_from_masks_where_the_contours_lack_the_organ(tmp_path, sources):
    recipe = Recipe(**TINY_RECIPE, window_level="mean:heart", crop_center="organs:heart")
    whole = write(tmp_path / "a", sources[:1], recipe=recipe)[2]
    contours = file_order.read(sources[0].labels)
    esophagus = np.where(contours.array == 1, 1, 0).astype(np.uint8)
    file_order.write(str(tmp_path / "eso.nii.gz"), esophagus, contours.grid)
    partial = dataclasses.replace(
        sources[0], labels=str(tmp_path / "eso.nii.gz"), organs=("esophagus",)
    )
    without = write(tmp_path / "b", [partial], recipe=recipe)[2]
    assert without.rejected[0].findings[0].code == "cannot_prepare"
    masked = dataclasses.replace(partial, masks=sources[0].labels)
    found = write(tmp_path / "c", [masked], recipe=recipe)[2].patients[0]
    assert found.level_hu == whole.patients[0].level_hu != 50
    assert found.placement == whole.patients[0].placement
    assert {
        r.contoured
        for r in read(tmp_path / "c", shards.Part.load(str(tmp_path / "c"), "train-fold2-01"))
    } == {(1, 0, 0, 0)}


def made_by_formula(folder):
    """A patient that no library's random numbers can change."""
    x, y, z = np.meshgrid(np.arange(50), np.arange(44), np.arange(9), indexing="ij")
    hu = np.full(x.shape, -1000, np.int16)
    body = ((x - 25) / 21) ** 2 + ((y - 22) / 17) ** 2 < 1
    hu[body] = (20 + 7 * x + 3 * y * z % 101)[body]
    labels = np.zeros(hu.shape, np.uint8)
    for label, (left, front) in enumerate(((20, 28), (24, 14), (15, 20), (31, 25)), 1):
        labels[left : left + 4 + label, front : front + 5, label : 4 + label] = label
    affine = np.array([[-7.1, 0, 0, 90], [0, -6.9, 0, 80], [0, 0, 9.0, -40], [0, 0, 0, 1.0]])
    ct = save(f"{folder}/ct.nii.gz", hu, affine)
    return Patient("P", ct, save(f"{folder}/gt.nii.gz", labels, affine), organs=SEGTHOR.names)


ORIENTATIONS = [
    "".join(pair[flip] for pair, flip in zip(order, flips, strict=True))
    for order in itertools.permutations(("LR", "PA", "SI"))
    for flips in itertools.product((0, 1), repeat=3)
]


def stored_as(axcodes, path, folder) -> str:
    """A copy of a NIfTI file in another order of axes, made by nibabel."""
    image = nibabel.load(path)
    wanted = nibabel.orientations.axcodes2ornt(axcodes)
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), wanted)
    copy = folder / f"{axcodes}_{Path(path).name}"
    nibabel.save(image.as_reoriented(turn), copy)
    return str(copy)


@pytest.mark.parametrize("level", ["50", "mean:heart,aorta", "median:trachea"])
@pytest.mark.parametrize(
    "choices", [{"pixel_mm": 7}, {"pixel_mm": 0, "crop_center": "organs:heart"}]
)
def test_one_patient_stored_in_any_of_48_orientations_gives_the_same_shard(
    tmp_path, level, choices
):
    source = made_by_formula(tmp_path)
    tilt = np.deg2rad(4)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    for path, dtype in ((source.ct, np.float32), (source.labels, np.uint8)):
        image = nibabel.load(path)
        voxels = np.asarray(image.dataobj)
        if dtype == np.float32:  # a sum of such values depends on their order
            voxels = voxels + np.random.default_rng(0).normal(0, 9, voxels.shape)
        affine = image.affine.copy()
        affine[:3, :3] = turn @ affine[:3, :3]
        affine[:3, 3] = 91.23, -57.377, 12.04999
        nibabel.save(nibabel.Nifti1Image(voxels.astype(dtype), affine), path)
    ignored = tuple((code, "ignore") for code in sorted(set(findings.CODES) - findings.FATAL))
    recipe = Recipe(crop_mm=200, window_level=level, **choices)
    written = set()
    for axcodes in ORIENTATIONS:
        files_of = (stored_as(axcodes, path, tmp_path) for path in (source.ct, source.labels))
        part = write(
            tmp_path,
            [Patient("P", *files_of, organs=SEGTHOR.names)],
            recipe=recipe,
            severities=ignored,
        )[2]
        written.add((part.shard.sha256, part.patients[0].level_hu, str(part.patients[0].placement)))
    assert len(written) == 1


@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "SAL"])
def test_contours_whose_affine_was_lost_are_taken_voxel_by_voxel_where_that_is_only_warned_of(
    tmp_path, axcodes
):
    source = made_by_formula(tmp_path)
    ct, labels = (stored_as(axcodes, path, tmp_path) for path in (source.ct, source.labels))
    lost = tmp_path / "lost.nii"
    nibabel.save(nibabel.Nifti1Image(np.asarray(nibabel.load(labels).dataobj), np.eye(4)), lost)
    ignored = tuple((code, "ignore") for code in sorted(set(findings.CODES) - findings.FATAL))
    digests = set()
    for path in (labels, str(lost)):
        part = write(tmp_path, [Patient("P", ct, path, organs=SEGTHOR.names)], severities=ignored)[
            2
        ]
        digests.add(part.shard.sha256)
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "1cd56314cfedc1ec"),
        ({"pixel_mm": 0}, "99aa5799daa0883a"),
        ({"pixel_mm": 4.3, "context": 1, "window_level": "median:heart,aorta"}, "d894f0d1aa2c125c"),
    ],
)
def test_the_bytes_of_a_known_patient_are_pinned(tmp_path, changes, expected):
    """Where they change on purpose, raise `shards.VERSION`, or datasets would mix both."""
    ignored = tuple((code, "ignore") for code in sorted(set(findings.CODES) - findings.FATAL))
    recipe = Recipe(**{"crop_mm": 200, "pixel_mm": 7, **changes})
    source = made_by_formula(tmp_path)
    part = write(tmp_path, [source], recipe=recipe, severities=ignored)[2]
    assert (shards.VERSION, part.shard.sha256[:16]) == (6, expected)
