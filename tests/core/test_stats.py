"""Statistics over seeds: agreement with textbook values and SciPy, and sane behaviour at the edges."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from core.stats import all_of, holm, paired, rank_correlation, share, summary, within

SLEEP_DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
"""Student's sleep data (1908)."""


def test_t_interval_has_the_textbook_value():
    result = summary([4.0, 5.0, 6.0])  # t_{0.975, 2} = 4.302653, s = 1
    np.testing.assert_allclose([result.mean, result.std, result.n], [5, 1, 3])
    np.testing.assert_allclose(result.half_width, 4.302653 / np.sqrt(3), rtol=1e-6)


def test_paired_t_test_gives_students_sleep_result():
    result = paired(SLEEP_DRUG_2, SLEEP_DRUG_1)
    np.testing.assert_allclose(result.difference, 1.58)
    np.testing.assert_allclose([result.low, result.high], [0.7001142, 2.4598858], rtol=1e-6)
    np.testing.assert_allclose(result.p_ttest, 0.00283289, rtol=1e-5)


def test_wilcoxon_is_exact_for_few_pairs():
    np.testing.assert_allclose(paired([1.1, 2.3, 3.2, 4.6, 5.5], [1, 2, 3, 4, 5]).p_wilcoxon, 2 * 0.5**5)


def test_t_interval_covers_at_its_level():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (2000, 4))
    covered = [s.low <= 3.0 <= s.high for s in map(summary, draws)]
    assert stats.binomtest(sum(covered), len(covered), 0.95).pvalue > 0.01


def test_bootstrap_interval_is_reproducible_and_close_to_t_for_many_values():
    values = np.random.default_rng(1).normal(size=300)
    first, again, t = summary(values, method="bootstrap"), summary(values, method="bootstrap"), summary(values)
    assert first == again
    np.testing.assert_allclose([first.low, first.high], [t.low, t.high], atol=0.01)


@pytest.mark.parametrize("method", ["t", "bootstrap"])
def test_one_value_has_no_interval(method):
    result = summary([0.25], method=method)
    assert (result.mean, result.n) == (0.25, 1)
    assert np.isnan([result.low, result.high, result.std]).all()
    assert np.isnan(paired([1.0], [0.5]).p_ttest)


@pytest.mark.parametrize("method", ["t", "bootstrap"])
def test_identical_values_have_an_interval_of_no_width(method):
    result = summary([0.1] * 5, method=method)
    assert result.low == result.mean == result.high


def test_a_spread_too_small_for_its_variance_to_be_told_from_zero_does_not_warn():
    result = summary([0.0, 1e-200])
    assert result.low <= result.mean <= result.high


def test_methods_that_never_differ_are_not_told_apart():
    result = paired([0.3, 0.1, 0.2], [0.3, 0.1, 0.2])
    assert (result.difference, result.p_ttest, result.p_wilcoxon) == (0, 1, 1)


def test_a_constant_difference_is_certain_to_the_t_test():
    assert paired([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]).p_ttest == 0
    assert paired([0.3, 0.4, 0.6], [0.1, 0.2, 0.4]).p_ttest == 0  # equal but for rounding


def test_a_value_that_is_not_finite_has_no_interval():
    assert np.isnan(summary([1.0, np.nan]).low)
    assert np.isnan(paired([1.0, np.nan], [1.0, 2.0]).p_wilcoxon)


def test_nothing_to_summarise_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        summary([])
    with pytest.raises(ValueError, match="equal lengths"):
        paired([1.0, 2.0], [1.0])


def test_holm_gives_the_known_adjustment():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


def test_holm_passes_over_tests_that_could_not_be_made():
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni(p):
    p = np.array(p)
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, len(p) * p)).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8), st.floats(-1e3, 1e3), st.floats(0.1, 10))
def test_summary_moves_and_scales_with_the_values(values, shift, scale):
    moved, plain = summary(np.array(values) * scale + shift), summary(values)
    expected = np.array([plain.mean, plain.low, plain.high]) * scale + shift
    np.testing.assert_allclose([moved.mean, moved.low, moved.high], expected, rtol=1e-6, atol=1e-6)


def test_an_interval_lies_within_limits_outside_of_them_or_decides_nothing():
    assert within((0.2, 0.3), 0.1, 0.3) is True
    assert within((0.2, 0.3), least=0.4) is False
    assert within((0.2, 0.3), most=0.1) is False
    assert within((0.2, 0.3), least=0.25) is None
    assert within((0.0, 0.0), least=0.0) is None
    assert within((1.0, 1.0), 0.8, 1.2) is True
    assert within((math.nan, math.nan), 0.1, 0.3) is None
    assert [all_of(a) for a in ((True, True), (True, None), (None, False))] == [True, None, False]


def test_rank_correlation_is_that_of_ranks_and_nothing_where_one_is_constant():
    x = np.array([1.0, 2.0, 3.0, 10.0])
    assert rank_correlation(x, np.exp(x)) == pytest.approx(1.0)
    assert rank_correlation(x, -x) == pytest.approx(-1.0)
    assert rank_correlation(x, np.ones(4)) == 0.0


@pytest.mark.parametrize(("happened", "trials"), [(0, 5), (3, 10), (90, 100)])
def test_shares_have_the_limits_of_their_formulas(happened, trials):
    z, p = 1.959963984540054, happened / trials
    middle, half = p + z**2 / (2 * trials), z * np.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    found = share(happened, trials)
    np.testing.assert_allclose(
        found.interval, np.array([middle - half, middle + half]) / (1 + z**2 / trials), atol=1e-12
    )
    exact = share(happened, trials, method="exact")
    assert (exact.value, exact.n) == (p, trials)
    np.testing.assert_allclose(stats.binom.cdf(happened, trials, exact.high), 0.025, rtol=1e-6)
    if happened:
        np.testing.assert_allclose(stats.binom.sf(happened - 1, trials, exact.low), 0.025, rtol=1e-6)
