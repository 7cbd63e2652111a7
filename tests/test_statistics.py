"""Intervals and paired tests against full enumeration, scipy, and the laws that they obey."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from segthor import statistics

DICE = [0.81, 0.84, 0.86, 0.79, 0.9, 0.88, 0.83, 0.77]


def test_interval_equals_that_of_all_resamples_of_four_values():
    values = [0.0, 1.0, 3.0, 10.0]
    means = [np.mean(sample) for sample in itertools.product(values, repeat=4)]
    expected = np.percentile(means, [2.5, 97.5])
    assert statistics.bootstrap_interval(values) == pytest.approx(expected, abs=0.26)


def test_interval_equals_scipys_percentile_bootstrap():
    expected = scipy.stats.bootstrap((DICE,), np.mean, method="percentile", n_resamples=10_000)
    low, high = statistics.bootstrap_interval(DICE)
    assert low == pytest.approx(expected.confidence_interval.low, abs=0.002)
    assert high == pytest.approx(expected.confidence_interval.high, abs=0.002)


def test_interval_covers_the_mean_of_95_in_100_samples():
    rng = np.random.default_rng(0)
    intervals = [statistics.bootstrap_interval(rng.normal(5, 2, 50), seed) for seed in range(300)]
    covered = np.mean([low <= 5 <= high for low, high in intervals])
    assert 0.91 <= covered <= 0.98  # three standard errors about 0.945, what 50 values give


def test_interval_is_repeated_by_its_seed_and_changed_by_another():
    values = np.random.default_rng(0).random(40)
    assert statistics.bootstrap_interval(values, 3) == statistics.bootstrap_interval(values, 3)
    assert statistics.bootstrap_interval(values, 3) != statistics.bootstrap_interval(values, 4)


def test_interval_moves_and_scales_with_its_values():
    low, high = statistics.bootstrap_interval(DICE)
    moved = statistics.bootstrap_interval(np.multiply(DICE, 10) + 3)
    assert moved == pytest.approx((low * 10 + 3, high * 10 + 3))


def test_interval_of_one_patient_has_no_width():
    assert statistics.bootstrap_interval([0.7]) == (0.7, 0.7)


@pytest.mark.parametrize("values", [[], [1, math.inf], [1, math.nan], [1, None]])
def test_interval_of_what_has_no_mean_is_refused(values):
    with pytest.raises(ValueError, match="values: expected at least one and all finite"):
        statistics.bootstrap_interval(values)


def test_summary_leaves_out_what_is_not_finite_and_counts_it():
    summary = statistics.summarise([4.0, math.inf, 1.0, None, 2.0, math.nan])
    assert (summary.count, summary.left_out) == (3, 3)
    assert summary.mean == pytest.approx(7 / 3)
    assert summary.median == 2
    assert (summary.low, summary.high) == statistics.bootstrap_interval([4.0, 1.0, 2.0])


@pytest.mark.parametrize("values", [[], [math.inf, None]])
def test_summary_of_nothing_finite_has_no_mean(values):
    expected = statistics.Summary(0, len(values), None, None, None, None)
    assert statistics.summarise(values) == expected


def enumerated_p_value(differences):
    """Two-sided: the share of all choices of signs whose rank sum is at least as extreme."""
    differences = np.array(differences)[np.nonzero(differences)]
    ranks = scipy.stats.rankdata(np.abs(differences))
    middle = ranks.sum() / 2
    observed = abs(ranks[differences > 0].sum() - middle)
    signs = np.array(list(itertools.product([0, 1], repeat=len(ranks))))
    return np.mean(np.abs(signs @ ranks - middle) >= observed - 1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_p_value_equals_that_of_all_choices_of_signs(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0.3, 1, 9), rng.normal(0, 1, 9)
    assert statistics.paired_test(a, b).p_value == pytest.approx(enumerated_p_value(a - b))


def test_comparison_the_other_way_round_changes_signs_alone():
    other = [0.8, 0.8, 0.87, 0.75, 0.91, 0.85, 0.8, 0.7]
    forth, back = statistics.paired_test(DICE, other), statistics.paired_test(other, DICE)
    assert back.mean_difference == pytest.approx(-forth.mean_difference)
    assert back.p_value == pytest.approx(forth.p_value)
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low), abs=0.002)
    assert forth.low < forth.mean_difference < forth.high


def test_equal_runs_do_not_differ():
    assert statistics.paired_test(DICE, DICE) == statistics.PairedTest(8, 0, 0, 0, 0, 1)


def test_a_gain_in_every_patient_is_found_and_six_patients_are_the_fewest():
    def p_value(patients):
        a = np.arange(patients) / 7 + 1
        return statistics.paired_test(a, np.zeros(patients)).p_value

    assert p_value(5) == pytest.approx(2 / 2**5)  # not below 0.05
    assert p_value(6) == pytest.approx(2 / 2**6)


def test_pairs_with_a_missed_organ_are_left_out_and_counted():
    result = statistics.paired_test([1, math.inf, 3, None, 5], [0, 1, math.inf, 1, 3])
    assert (result.count, result.left_out) == (2, 3)
    assert result.mean_difference == pytest.approx(1.5)


def test_nothing_to_compare_gives_no_numbers():
    expected = statistics.PairedTest(0, 1, None, None, None, None)
    assert statistics.paired_test([math.inf], [1]) == expected


def test_runs_on_unequal_numbers_of_patients_are_refused():
    with pytest.raises(ValueError, match="one value per patient, got 8 and 7"):
        statistics.paired_test(DICE, DICE[1:])
