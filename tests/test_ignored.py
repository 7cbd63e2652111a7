"""Voxels that are not annotated: left out of organs, figures, audit, scores and disputes."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from cases import TINY_RECIPE, save, save_patient, tiny_patient
from damage import healthy_phantom
from programs import run_entry

from beam_jobs import checks
from beam_jobs.driver import Settings, build
from segthor import audit, effort, figures, ignored, inputs, metrics, records, relabel
from segthor.errors import InputError
from segthor.manifest import Dataset
from segthor.organs import SEGTHOR, Organs
from segthor.patients import Patient
from segthor.recipe import Recipe, prepare
from segthor.volume import Grid, LabelMap, Volume
from serving.prediction import candidates, out_of_fold
from serving.scoring import pairs, suspicion, viewer
from tests import file_order

STORED = 9  # the value of ignored voxels in the files of these tests
NNUNET = {"background": 0, "esophagus": 1, "heart": 2, "trachea": 3, "aorta": 4, "ignore": STORED}
VALUES = tuple((name, NNUNET[name]) for name in SEGTHOR.names)
IGNORE = ((ignored.NAME, STORED),)
NATIVE = {"crop_mm": 64.0, "pixel_mm": 0.0}  # the scan's own pixels


def lps_grid(shape_zyx):
    """A grid of 1 mm voxels that lies as arrays in memory do."""
    return Grid(shape_zyx[::-1], np.diag([-1.0, -1.0, 1.0, 1.0]))


def marked(labels, axis=0):
    """A copy of contours in whose upper half nothing is annotated."""
    labels = np.array(labels)
    labels[(slice(None),) * axis + (slice(labels.shape[axis] // 2, None),)] = STORED
    return labels


def save_nnunet(folder, count=4, labels=NNUNET):
    """Phantoms in nnU-Net's layout; the second one's upper half is not annotated."""
    for number in range(1, count + 1):
        made = tiny_patient(number)
        contours = made.labels if number != 2 else marked(made.labels, 2)
        save(folder / f"imagesTr/P{number}_0000.nii.gz", made.hu, made.affine)
        save(folder / f"labelsTr/P{number}.nii.gz", contours, made.affine)
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))


def slices_of(folder, patient):
    """The labels of a patient's records, [Z, H, W]."""
    dataset = Dataset.load(str(folder))
    path = f"{folder}/{dataset.shard_of(patient).file}"
    found = {one.z: one.labels for one in records.slices(path) if one.patient == patient}
    return np.stack([found[z] for z in sorted(found)])


def run(source, output, recipe=NATIVE, **values):
    build(
        Settings(
            str(source), str(output), Recipe(**recipe, context=1), **{"organs": SEGTHOR} | values
        ),
        (),
    )
    return Dataset.load(str(output))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nnunet")
    save_nnunet(folder / "raw")
    return folder, run(folder / "raw", folder / "dataset", folds=2)


def test_records_hold_the_label_of_ignored_voxels_where_they_were_planted(built):
    folder, dataset = built
    assert dataset.has_ignored and dataset.label_values == (*VALUES, *IGNORE)
    zyx = Grid(tiny_patient(2).labels.shape, tiny_patient(2).affine).to_zyx
    expected = zyx(marked(tiny_patient(2).labels, 2))
    found = slices_of(folder / "dataset", "P2")
    (row,) = [row for row in dataset.patients if row.patient == "P2"]
    top, left = (int(px) for px in row.placement.first_px)
    for z, (plane, true) in enumerate(zip(found, expected, strict=True)):
        inner = plane[-top : -top + true.shape[0], -left : -left + true.shape[1]]
        np.testing.assert_array_equal(inner, np.where(true == STORED, ignored.LABEL, true), str(z))
    assert (found == ignored.LABEL).any()
    assert not (slices_of(folder / "dataset", "P1") == ignored.LABEL).any()
    checks.verify(str(folder / "dataset"))


def test_an_organ_beside_ignored_voxels_has_no_figures_and_is_named(built):
    _, dataset = built
    rows = {row.patient: row for row in dataset.patients}
    cut = {f.message.split(":")[0] for f in rows["P2"].audit.findings if f.code == "organ_cut"}
    assert cut and not cut & set(rows["P2"].audit.organs)
    assert set(rows["P2"].audit.organs) | cut == set(SEGTHOR.names) == set(rows["P2"].organs)
    assert not any(f.code == "organ_cut" for f in rows["P1"].audit.findings)


def test_a_flag_names_the_value_as_nnunets_file_does(built, tmp_path):
    """Alone it leaves the organs' values as they are; with organs' it stands beside them."""
    folder, _ = built
    made = tiny_patient(2)
    save_patient(tmp_path / "own", "P1", tiny_patient(1))
    save_patient(tmp_path / "own", "P2", dataclasses.replace(made, labels=marked(made.labels, 2)))
    for values in (IGNORE, (*VALUES, *IGNORE)):
        output = tmp_path / f"out{len(values)}"
        dataset = run(tmp_path / "own", output, label_values=values, validation_fraction=0.5)
        assert dataset.has_ignored
        found = slices_of(output, "P2")
        np.testing.assert_array_equal(found, slices_of(folder / "dataset", "P2"))


def test_resampling_makes_no_organ_of_ignored_voxels():
    """They are a label like any other: the largest wins, and nothing lies between two labels."""
    made = tiny_patient(2)
    grid = Grid(made.labels.shape, made.affine)
    stored = marked(made.labels, 1)
    labels, _ = relabel.to_labels(grid.to_zyx(stored), IGNORE, organs=SEGTHOR)
    volume, plain = Volume(grid.to_zyx(made.hu), grid), np.where(labels == ignored.LABEL, 0, labels)
    recipe = Recipe(**TINY_RECIPE, context=1)
    prepared = prepare(volume, recipe, LabelMap(labels, grid, SEGTHOR))
    organs_alone = prepare(volume, recipe, LabelMap(plain, grid, SEGTHOR))
    organs_there = (prepared.labels > 0) & (prepared.labels != ignored.LABEL)
    assert set(np.unique(prepared.labels)) == {*range(5), ignored.LABEL}
    np.testing.assert_array_equal(prepared.labels[organs_there], organs_alone.labels[organs_there])
    assert prepared.labels_outside == organs_alone.labels_outside


def test_voxels_outside_the_box_are_counted_without_ignored_ones():
    labels = np.zeros((4, 200, 200), np.uint8)
    labels[1, 100, 100], labels[1, 2, 2] = 2, ignored.LABEL
    hu = np.full(labels.shape, 30, np.int16)
    volume = Volume(hu, lps_grid(labels.shape))
    prepared = prepare(volume, Recipe(**NATIVE), LabelMap(labels, volume.grid, SEGTHOR))
    assert prepared.labels_outside == 0


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_values_become_labels(kind):
    stored = np.array([[[0, 1, 2, STORED]]], kind)
    for values, expected in ((IGNORE, [0, 1, 2, 255]), ((("heart", 1), *IGNORE), [0, 2, 0, 255])):
        labels, findings = relabel.to_labels(stored, values, organs=SEGTHOR)
        assert labels.ravel().tolist() == expected and not findings and labels.dtype == np.uint8
    assert relabel.to_labels(stored, (), organs=SEGTHOR)[0] is None
    assert stored.ravel().tolist() == [0, 1, 2, STORED]
    _, findings = relabel.to_labels(np.full((2, 2, 2), STORED, kind), IGNORE, organs=SEGTHOR)
    assert [one.code for one in findings] == ["labels_empty"]


TAKEN = Organs((*SEGTHOR.rows[:3], dataclasses.replace(SEGTHOR["aorta"], label=255)))


@pytest.mark.parametrize(
    "values, table, message",
    [
        ((*VALUES, ("ignore", 2)), SEGTHOR, "flag: ignore=2 is the value of heart"),
        ((("ignore", 0),), SEGTHOR, "flag: ignore=0 is the value of the background"),
        ((("ignore", 9),), TAKEN, "ignore needs the label 255, which aorta has"),
    ],
)
def test_a_value_that_is_not_its_own_is_refused(values, table, message):
    with pytest.raises(InputError, match=message):
        ignored.check(values, table, "flag")
    ignored.check(VALUES, TAKEN, "flag")


def test_a_file_or_a_manifest_that_contradicts_itself_is_one_line(built, tmp_path):
    save_nnunet(tmp_path, 1, NNUNET | {"ignore": 2})
    with pytest.raises(InputError, match="dataset.json: ignore=2 is the value of heart"):
        inputs.find(str(tmp_path), organs=SEGTHOR)
    folder, _ = built
    text = json.loads((folder / "dataset" / "dataset.json").read_text())
    text["label_values"][-1][1] = 2
    (tmp_path / "dataset.json").write_text(json.dumps(text))
    with pytest.raises(InputError, match="ignore=2 is the value of heart"):
        Dataset.load(str(tmp_path))


def test_an_organ_of_the_label_255_stays_an_organ_where_nothing_is_ignored():
    zyx = np.zeros((4, 4, 4), np.uint8)
    zyx[1:3, 1:3, 1:3] = 255
    labels = LabelMap(zyx, lps_grid(zyx.shape), TAKEN)
    assert not labels.has_ignored and labels.left_out is None
    volume = Volume(zyx.astype(np.int16), labels.grid)
    assert set(figures.measure_organs(volume, labels)) == {"aorta"}


def test_the_audit_judges_no_organ_by_a_part_of_it():
    made = healthy_phantom()
    grid = Grid(made.labels.shape, made.affine)
    volume = Volume(grid.to_zyx(made.hu), grid)
    cut, _ = relabel.to_labels(grid.to_zyx(marked(made.labels, 2)), IGNORE, organs=SEGTHOR)
    lacking = LabelMap(np.where(cut == ignored.LABEL, 0, cut), grid, SEGTHOR)
    labels = LabelMap(cut, grid, SEGTHOR)

    def rejects(labels):
        measured, names = figures.measure_organs(volume, labels), figures.find_cut_organs(labels)
        findings = audit.organ_findings(measured, SEGTHOR.names, SEGTHOR, names)
        return {one.code for one in findings if one.severity == "reject"}

    assert rejects(lacking) and not rejects(labels)
    assert figures.find_cut_organs(lacking) is None


def random_maps(seed):
    """Two label maps that are alike, and what of them is left out."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((7, 9, 8), np.uint8)
    truth[2:6, 2:7, 2:6] = 1
    truth[1:3, 6:9, 0:3] = 2
    predicted = np.where(rng.random(truth.shape) < 0.1, rng.integers(0, 3, truth.shape), truth)
    left_out = rng.random(truth.shape) < 0.05
    left_out[:, :, 5:] = True
    return predicted.astype(np.uint8), truth, left_out


def surfaces(mask, left_out):
    """(all surface voxels, those beside an annotated voxel outside) of a mask, one by one."""
    whole, counted = [], []
    for place in map(tuple, np.argwhere(mask)):
        outside = []
        for axis, step in itertools.product(range(3), (-1, 1)):
            beside = tuple(p + step * (a == axis) for a, p in enumerate(place))
            inside = all(0 <= p < n for p, n in zip(beside, mask.shape, strict=True))
            if not inside or not mask[beside]:
                outside.append(not (inside and left_out[beside]))
        whole += [place] if outside else []
        counted += [place] if any(outside) else []
    return np.array(whole), np.array(counted or whole)


@pytest.mark.parametrize("seed", range(6))
def test_scores_equal_brute_force_over_annotated_voxels(seed):
    predicted, truth, left_out = random_maps(seed)
    spacing_mm = np.array((3.0, 1.1, 0.9))
    for label, score in metrics.score(predicted, truth, spacing_mm, (1, 2), left_out).items():
        one, other = ((a == label) & ~left_out for a in (predicted, truth))
        (whole, counted), (true_whole, true_counted) = (surfaces(m, left_out) for m in (one, other))

        def nearest(points, targets):
            apart = (points[:, None] - targets[None]) * spacing_mm
            return np.sqrt((apart**2).sum(-1)).min(1)

        both = np.concatenate([nearest(counted, true_whole), nearest(true_counted, whole)])
        assert score.dice == pytest.approx(2 * (one & other).sum() / (one.sum() + other.sum()))
        assert score.hausdorff_mm == pytest.approx(both.max())
        assert score.mean_surface_distance_mm == pytest.approx(both.mean())
        assert score.surface_dice_2mm == pytest.approx((both <= 2 + 1e-4).mean())
        means = [
            nearest(np.argwhere(a), np.argwhere(b)).mean() for a, b in ((one, other), (other, one))
        ]
        assert score.average_hausdorff_mm == pytest.approx(max(means))


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_predicted_in_ignored_voxels_changes_no_score(seed):
    predicted, truth, left_out = random_maps(seed)
    rng = np.random.default_rng(seed)
    other = np.where(left_out, rng.integers(0, 3, truth.shape), predicted).astype(np.uint8)
    marked_truth = np.where(left_out, 255, truth).astype(np.uint8)
    limits = {1: 1.0, 2: 3.0}
    expected = (
        metrics.score(predicted, truth, (3, 1, 1), (1, 2), left_out),
        effort.measure(predicted, truth, (3, 1, 1), limits, left_out),
    )
    assert expected == (
        metrics.score(other, marked_truth, (3, 1, 1), (1, 2), left_out),
        effort.measure(other, marked_truth, (3, 1, 1), limits, left_out),
    )
    nothing = np.zeros_like(left_out)
    assert metrics.score(predicted, truth, (3, 1, 1), (1, 2), nothing) == metrics.score(
        predicted, truth, (3, 1, 1), (1, 2)
    )
    assert effort.measure(predicted, truth, (3, 1, 1), limits, nothing) == effort.measure(
        predicted, truth, (3, 1, 1), limits
    )


def test_a_contour_that_ends_at_ignored_voxels_takes_no_effort():
    truth = np.zeros((3, 20, 20), np.uint8)
    truth[:, 5:15, 5:15] = 1
    left_out = np.zeros(truth.shape, bool)
    left_out[:, :, 10:] = True
    predicted = np.where(left_out, 0, truth).astype(np.uint8)  # stops where annotation does
    none = effort.measure(predicted, truth, (3, 1, 1), {1: 0.0}, left_out)[1]
    assert none == effort.Effort(0.0, 0)
    assert effort.measure(predicted, truth, (3, 1, 1), {1: 0.0})[1].added_path_mm > 0
    score = metrics.score(predicted, truth, (3, 1, 1), (1,), left_out)[1]
    assert score.dice == score.surface_dice_1mm == 1 and score.hausdorff_mm == 0


def test_a_mask_all_of_whose_surface_lies_at_ignored_voxels_still_has_distances():
    truth = np.zeros((5, 5, 5), np.uint8)
    truth[2, 2, 2] = 1
    left_out = np.ones(truth.shape, bool)
    left_out[2, 2, 2] = left_out[2, 2, 4] = False
    predicted = np.zeros_like(truth)
    predicted[2, 2, 4] = 1
    score = metrics.score(predicted, truth, (1, 1, 1), (1,), left_out)[1]
    assert score.dice == 0 and score.hausdorff_mm == 2


@pytest.fixture(scope="module")
def predictions(built, tmp_path_factory):
    """Label maps that equal the contours where these are annotated, and are an organ elsewhere."""
    folder, _ = built
    output = tmp_path_factory.mktemp("predictions")
    for number in range(1, 5):
        made = tiny_patient(number)
        labels = np.array(made.labels)
        if number == 2:
            labels[marked(labels, 2) == STORED] = SEGTHOR["heart"].label
        save(output / f"P{number}.nii.gz", labels, made.affine)
    return folder, output


@pytest.mark.parametrize("labels", ["raw", "dataset"])
def test_evaluate_scores_the_annotated_voxels_alone(predictions, tmp_path, labels):
    folder, given = predictions
    done = evaluate_in(given, folder / labels, tmp_path)
    scores = json.loads((tmp_path / "scores.json").read_text())["patients"]["P2"]
    assert done == 0 and set(scores) == set(SEGTHOR.names)
    for row in scores.values():
        assert row["dice"] == row["surface_dice_1mm"] == 1 and row["hausdorff_mm"] == 0
        assert row["added_path_mm"] == 0 and row["slices_to_touch"] == 0


def evaluate_in(given, labels, output) -> int:
    done = run_entry("serving.evaluate", predictions=given, labels=labels, output=output)
    assert done.returncode == 0, done.stderr
    return done.returncode


def truth_and_prediction(predictions):
    folder, given = predictions
    raw = pairs.contours_of(str(folder / "raw"), organs=SEGTHOR)
    (contours,) = [one for one in raw if one.name == "P2"]
    return pairs.read(contours, Patient("P2", "", str(given / "P2.nii.gz")), organs=SEGTHOR)


def test_tuning_and_the_page_leave_them_out(predictions):
    predicted, truth = truth_and_prediction(predictions)
    scored = candidates.score_candidates(predicted, truth, ("heart", "aorta"))
    assert scored["heart"][0].dice == scored["aorta"][0].dice == 1
    scan = Volume(np.zeros(truth.zyx.shape, np.int16), truth.grid)
    labels, whole = SEGTHOR.labels(SEGTHOR.names), tuple(slice(0, n) for n in scan.zyx.shape)
    shown = viewer._pictures(scan, predicted.zyx, truth, labels, whole)
    assert set(shown["sliceDice"]) <= {1.0, None}


def test_predictions_with_an_organ_of_that_label_are_refused(built):
    folder, _ = built
    with pytest.raises(InputError, match="ignore needs the label 255, which aorta has"):
        pairs.contours_of(str(folder / "raw"), organs=TAKEN)


def test_nothing_is_in_dispute_in_ignored_voxels():
    truth = np.zeros((4, 20, 20), np.uint8)
    truth[:, 4:9, 4:9] = 2
    predicted, sure = truth.copy(), np.ones(truth.shape, bool)
    predicted[:, 12:18, 12:18] = 2
    heart = SEGTHOR["heart"]
    prediction, mm = out_of_fold.SurePrediction(predicted, sure), (3, 1, 1)
    dispute = suspicion.measure("P", file_order.on_grid(truth, mm), prediction, heart, SEGTHOR)
    assert dispute.share > 0.4
    marked_truth = truth.copy()
    marked_truth[:, 10:, 10:] = ignored.LABEL
    contours = file_order.on_grid(marked_truth, mm)
    dispute = suspicion.measure("P", contours, prediction, heart, SEGTHOR)
    assert dispute.share == 0 and dispute.slices == ()
