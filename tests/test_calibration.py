"""Calibration: what it learns from rows, how it is stored, and the worsened scans it learns on."""

import json

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import roc_auc_score

from segthor import json_files
from segthor.errors import InputError
from serving.review import expectation as calibration
from serving.review import fit, worsen
from serving.review.evidence import FEATURES, OF_ORGAN, OF_SCAN, features
from tests import file_order
from tests.cases import tiny_patient


def made_rows(patients=80, scans=6, seed=0, organ="heart"):
    """Rows whose Dice falls with uncertainty and with slice thickness, and is noisy."""
    rng, rows = np.random.default_rng(seed), []
    for patient in range(patients):
        for number in range(scans):
            worse = rng.gamma(1, 0.12) if number else rng.uniform(0, 0.05)
            row = dict.fromkeys(OF_ORGAN, 0.0) | {"uncertainty": round(worse, 4)}
            dice = float(np.clip(0.95 - worse + rng.normal(0, 0.02), 0, 1))
            scan = {name: [1.0, round(float(rng.normal()), 2)] for name in OF_SCAN}
            rows.append({"patient": str(patient), "kind": fit.AS_IT_IS if number == 0 else "noise",
                         "organ": organ, "found": True, "drawn": True, "dice": dice,
                         "surface_dice": dice ** 2, "scan": scan, "evidence": row})  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def calibrated():
    return fit.calibrate(made_rows(), ("heart",))[0]


@pytest.fixture
def version(tmp_path):
    (tmp_path / "assets").mkdir()
    json_files.write(str(tmp_path / "assets/model.json"), {"format": 1, "digest": "0123"})
    return str(tmp_path)


def test_numpy_evaluates_what_scikit_learn_fitted(calibrated):
    rows = made_rows()
    given = np.stack([features(row["scan"], row["evidence"]) for row in rows])
    weights = fit._weights(np.array([row["kind"] for row in rows]))
    for score, one in (("dice", calibrated.organs["heart"].dice),
                       ("surface_dice", calibrated.organs["heart"].surface_dice)):  # fmt: skip
        true = [row[score] for row in rows]
        forest = RandomForestRegressor(**fit._SETTINGS).fit(given, true, weights)
        ours = [one.expected(row) for row in given[::7]]
        np.testing.assert_allclose(ours, forest.predict(given[::7]), atol=1e-5)


def test_it_is_the_same_after_storing(calibrated, version):
    assert calibration.load(version) is None
    calibrated.save(version)
    assert calibration.load(version) == calibrated


def test_worse_evidence_never_raises_the_expectation(calibrated):
    one, rng = calibrated.organs["heart"].dice, np.random.default_rng(3)
    for _ in range(60):
        row = rng.gamma(1, 0.3, len(FEATURES)).astype(np.float32)
        worse = row + np.where(rng.random(len(row)) < 0.3, 1, 0).astype(np.float32)
        assert one.expected(worse) <= one.expected(row) + 1e-6


def test_the_lower_bound_holds_for_nine_in_ten_fresh_patients(calibrated):
    fresh = made_rows(patients=400, seed=9)
    one = calibrated.organs["heart"].dice
    holds = []
    for row in fresh:
        expected = one.expected(features(row["scan"], row["evidence"]))
        holds.append(row["dice"] >= one.lower(expected))
    assert 0.87 <= np.mean(holds) <= 0.95


def test_the_bound_of_good_scans_does_not_follow_from_worsened_ones_that_look_as_good():
    """Five worsened scans of a patient beside one as it is, all with the same evidence."""

    def alike(patients, seed):
        rows = made_rows(patients=patients, seed=seed)
        for row in rows:
            shift = 0 if row["kind"] == fit.AS_IT_IS else -0.1
            row["dice"] += row["evidence"]["uncertainty"] + shift  # undoes what evidence tells
            row["evidence"]["uncertainty"] = 0.0
        return rows

    made = fit.calibrate(alike(120, 0), ("heart",))[0].organs["heart"].dice
    own = [row for row in alike(400, 9) if row["kind"] == fit.AS_IT_IS]
    lower = [made.lower(made.expected(features(r["scan"], r["evidence"]))) for r in own]
    assert np.mean(lower) > 0.82  # rows of equal weight would put it near 0.8
    shares = fit._weights(np.array([row["kind"] for row in alike(120, 0)]))
    assert shares[::6].sum() == pytest.approx(0.8 * shares.sum())


def test_a_range_falls_short_by_what_nine_tenths_of_its_weight_do():
    rng = np.random.default_rng(5)
    true, weights = rng.random(200).round(3), rng.choice((0.25, 1.0), 200)
    expected = np.full(200, 0.5)
    edges, (limit,) = fit._shortfalls(expected, true, weights)
    short, total = expected - true, weights.sum() + weights.max()
    assert edges == () or edges == (0.5,)
    assert weights[short <= limit + 1e-9].sum() >= 0.9 * total
    assert weights[short < limit - 1e-9].sum() < 0.9 * total


def test_the_threshold_catches_the_share_that_was_asked_for(calibrated):
    organ, fresh = calibrated.organs["heart"], made_rows(patients=400, seed=9)
    bad = [row for row in fresh if row["dice"] < calibration.BAD_DICE]
    shares = []
    for recall in (0.5, 0.8, 0.95):
        limit = organ.threshold(recall)
        found = [organ.dice.expected(features(r["scan"], r["evidence"])) <= limit for r in bad]
        shares.append(np.mean(found))
        assert shares[-1] >= recall - 0.05
    assert shares == sorted(shares) and shares[0] < 0.75


def test_too_few_bad_ones_set_no_threshold(calibrated):
    organ = calibrated.organs["heart"]
    few = calibration.OrganFit(organ.dice, organ.surface_dice, organ.expected_of_bad[:9])
    assert few.threshold(0.95) is None


def test_auroc_is_scikit_learns():
    rng = np.random.default_rng(0)
    bad = rng.random(200) < 0.3
    expected = (rng.normal(size=200) - bad).round(1)  # with ties
    assert fit.auroc(expected, bad) == pytest.approx(roc_auc_score(bad, -expected), abs=1e-4)
    assert fit.auroc(expected, np.zeros(200, bool)) is None


def test_too_few_patients_are_told():
    with pytest.raises(InputError, match="heart: found in 18 scans of 3 patients; expected"):
        fit.calibrate(made_rows(patients=3), ("heart",))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda v: v.pop("seen"), "seen"),
        (lambda v: v.update(format=9), "another version"),
        (lambda v: v.update(model="4567"), "of this very model, found another's; remove it, or"),
        (lambda v: v.pop("model"), "of this very model, found another's"),
        (lambda v: v["organs"]["heart"]["dice"].update(trees=[]), "a tree is invalid"),
        (lambda v: v["organs"]["heart"]["dice"]["trees"][0]["left"].__setitem__(0, 9999), "a tree"),
        (lambda v: v["organs"]["heart"]["dice"]["edges"].append(0.5), "the ranges are invalid"),
    ],
)
def test_a_damaged_review_json_is_one_line(calibrated, version, damage, message):
    calibrated.save(version)
    path = calibration.directory.asset(version, "review.json")
    value = json.loads(open(path).read())
    damage(value)
    json_files.write(path, value)
    with pytest.raises(InputError, match=message) as caught:
        calibration.load(version)
    assert "review.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "ASL"])
@pytest.mark.parametrize("kind", worsen.KINDS)
def test_a_worsened_scan_keeps_its_organs_where_they_are(kind, axcodes):
    made = tiny_patient(3, axcodes=axcodes)
    scan, before = made.volume, made.hu.copy()
    worse, labels = worsen.worsen_scan(kind, scan, made.label_map, np.random.default_rng(0))
    assert worse.zyx.shape == labels.zyx.shape == worse.grid.shape_zyx == labels.grid.shape_zyx
    assert worse.zyx.dtype == np.int16 and labels.zyx.dtype == np.uint8
    np.testing.assert_array_equal(made.hu, before)
    stored = file_order.of(labels)
    moved = _mean_place(made.labels, made.affine, stored.array, stored.grid.affine)
    changed = worse.zyx.shape != scan.zyx.shape or (worse.zyx != scan.zyx).mean() > 0.001
    assert changed and moved.max() <= 0.5 * max(worse.spacing_mm) + 1e-6
    again = worsen.worsen_scan(kind, scan, made.label_map, np.random.default_rng(0))
    np.testing.assert_array_equal(again[0].zyx, worse.zyx)


def _mean_place(labels, affine, worse, worse_affine):
    """How far in mm each voxel that is labelled in the worse map lies from one of its label."""
    far = []
    inverse = np.linalg.inv(affine)
    for value in np.unique(worse[worse > 0]):
        index = np.argwhere(worse == value)
        place = index @ worse_affine[:3, :3].T + worse_affine[:3, 3]
        back = place @ inverse[:3, :3].T + inverse[:3, 3]
        near = np.clip(np.rint(back).astype(int), 0, np.array(labels.shape) - 1)
        hit = labels[tuple(near.T)] == value
        beside = np.linalg.norm((near - back) * np.linalg.norm(affine[:3, :3], axis=0), axis=1)
        assert hit.mean() > 0.5
        far.append(beside.max())
    return np.array(far)


def test_thicker_slices_are_thicker_and_a_smaller_view_smaller():
    made = tiny_patient(3)
    scan, labels = made.volume, made.label_map
    thick = worsen.worsen_scan("slices", scan, labels, np.random.default_rng(1))[0]
    assert thick.spacing_mm[0] >= 2 * scan.spacing_mm[0]
    cut = worsen.worsen_scan("cut", scan, labels, np.random.default_rng(1))[0]
    assert cut.zyx.size < made.hu.size
    assert cut.grid.spacing_mm == pytest.approx(scan.grid.spacing_mm)
