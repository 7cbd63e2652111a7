"""Evidence of a prediction, beside plain loops and by what it must rise with."""

import numpy as np
import pytest

from segthor.figures import OrganFigures
from serving.prediction.facts import Change
from serving.review import evidence
from serving.review.evidence import Observer, organ_evidence

ORGANS = ("heart", "aorta")


def softmax(scores):
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    return (shares / shares.sum(-1, keepdims=True)).astype(np.float32)


def chances(slices=3, size=12, seed=0, sharp=3.0):
    return softmax(sharp * np.random.default_rng(seed).normal(size=(slices, size, size, 3)))


def discs(slices=8, size=32, sharp=8.0, radius=8.0):
    """One organ: a cylinder with an edge as sharp as told."""
    y, x = np.mgrid[:size, :size] - size / 2
    inside = sharp * (radius - np.hypot(x, y)) / radius
    scores = np.stack([np.zeros_like(inside), inside], -1)
    return softmax(np.repeat(scores[None], slices, 0))


def slowly(plane):
    """The first five rows of counts, pixel by pixel."""
    height, width, number = plane.shape
    counts = np.zeros((5, number))
    winner = plane.argmax(-1)
    winner[plane[..., 0] >= 0.95] = 0
    for y in range(height):
        for x in range(width):
            if plane[y, x, 0] >= 0.95:
                continue
            k, p = winner[y, x], plane[y, x].max()
            beside = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            known = [(a, b) for a, b in beside if 0 <= a < height and 0 <= b < width]
            border = any(winner[at] != k for at in known)
            counts[:, k] += (1, p, border, p * border, 0)
            counts[4] += plane[y, x]
    return counts


def test_counts_are_those_of_a_plain_loop():
    values = chances()
    counts = Observer(ORGANS, 5)
    counts.add(range(1, 4), ORGANS, values, [values])
    for n in range(3):
        expected = slowly(values[n])
        for k, name in enumerate(ORGANS, 1):
            np.testing.assert_allclose(
                counts.slice_counts[name][1 + n, :5], expected[:, k], rtol=1e-5
            )
    assert not counts.slice_counts["heart"][[0, 4]].any()


def evidence_of(values, members=()):
    counts = Observer(("heart",), len(values))
    counts.add(range(len(values)), ("heart",), values, list(members) or [values])
    return organ_evidence(counts.slice_counts["heart"])


def test_a_sure_organ_has_less_of_every_doubt_than_an_unsure_one():
    sure, unsure = evidence_of(discs(sharp=30)), evidence_of(discs(sharp=3))
    for name in ("uncertainty", "border_uncertainty", "expected_loss"):
        assert 0 <= sure[name] < unsure[name] <= 1, name
    assert sure["slices"] == []


def test_the_expected_loss_is_that_of_truths_drawn_from_the_probabilities():
    """Pixels drawn alone: Dice over the whole organ is then near the ratio of the means."""
    values = discs(sharp=6)
    found, rng = values.argmax(-1) == 1, np.random.default_rng(0)
    dice = []
    for _ in range(200):
        truth = (rng.random(values.shape[:3]) < values[..., 1]) & (values[..., 0] < 0.95)
        dice.append(2 * (truth & found).sum() / (truth.sum() + found.sum()))
    assert evidence_of(values)["expected_loss"] == pytest.approx(1 - np.mean(dice), abs=0.01)


def test_slices_that_are_unsure_are_named_from_one():
    values = discs(sharp=30)
    values[5] = discs(1, sharp=0.3)[0]
    found = evidence_of(values)
    assert (found["slices"], found["weak_slices"]) == ([6], 1)


def test_members_that_disagree_are_found_where_they_do():
    here, there = discs(sharp=30), discs(sharp=30)
    there[2:4] = np.roll(there[2:4], 10, axis=2)
    mean = (here + there) / 2
    found = evidence_of(mean, [here, there])
    assert found["disagreeing_slices"] == 2
    assert set(found["slices"]) == {3, 4}
    alike = evidence_of(here, [here, here])
    assert (alike["disagreement"], alike["disagreeing_slices"]) == (0, 0)
    assert evidence_of(here, [here])["disagreement"] is None
    masks = [one.argmax(-1) == 1 for one in (here, there)]
    ours = mean.argmax(-1) == 1
    shared = sum((ours & mask).sum() for mask in masks)
    either = sum((ours.sum() + mask.sum()) / 2 for mask in masks)
    assert found["disagreement"] == pytest.approx(1 - shared / either, abs=1e-4)


def test_averaged_models_are_as_sure_as_they_are_on_average():
    members = [chances(seed=1), chances(seed=2)]
    counts = Observer(ORGANS, 3)
    counts.add(range(3), ORGANS, sum(members) / 2, members)
    for n in range(3):
        expected = (slowly(members[0][n]) + slowly(members[1][n])) / 2
        for k, name in enumerate(ORGANS, 1):
            np.testing.assert_allclose(counts.slice_counts[name][n, :5], expected[:, k], rtol=1e-5)
    apart, one = discs(sharp=30), np.roll(discs(sharp=30), 6, axis=2)
    sure, alone = evidence_of((apart + one) / 2, [apart, one]), evidence_of(apart)
    for name in ("uncertainty", "border_uncertainty", "expected_loss"):
        assert sure[name] == alone[name], name  # their mean would look unsure where they differ


def test_an_organ_that_is_not_there_has_no_evidence():
    counts = Observer(ORGANS, 4)
    counts.add(range(4), ("heart",), discs(4, sharp=30), [discs(4, sharp=30)])
    measured = {"heart": OrganFigures(500.0, 90.0, 40.0, 2, 1, (0.0, 0.0, 0.0))}
    found = counts.finish(measured, {"heart": Change(500.0, 0.0)}).organs
    assert found["aorta"] == {}
    heart = found["heart"]
    assert (heart["removed_share"], heart["surplus_pieces"], heart["gaps"]) == (0.5, 1, 1)
    assert counts.finish({}, {}).organs["heart"] == {}


def test_features_are_in_one_order_and_never_negative():
    given = dict.fromkeys(evidence.OF_ORGAN, -2.0)
    found = evidence.features({"slice_mm": [3.0, -5.0]}, given)
    assert found.tolist() == [2.0] * len(evidence.OF_ORGAN) + [5.0] + [0.0] * 6
    assert found.dtype == np.float32
