"""Statistics over seeds: agreement with textbook values and SciPy, and sane behaviour at the edges."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from core.stats import all_of, holm, paired, rank_correlation, share, sign_test, summary, within

SLEEP_DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
"""Student's sleep data (1908)."""


def test_t_interval_has_the_textbook_value():
    result = summary([4.0, 5.0, 6.0])  # t_{0.975, 2} = 4.302653, s = 1
    np.testing.assert_allclose([result.value, result.error, result.n], [5, 1 / np.sqrt(3), 3])
    assert result.kind == "mean over 3 seeds, Student's interval"
    np.testing.assert_allclose(result.half_width, 4.302653 / np.sqrt(3), rtol=1e-6)


def test_paired_t_test_gives_students_sleep_result():
    result = paired(SLEEP_DRUG_2, SLEEP_DRUG_1)
    np.testing.assert_allclose(result.value, 1.58)
    np.testing.assert_allclose([result.low, result.high], [0.7001142, 2.4598858], rtol=1e-6)
    np.testing.assert_allclose(result.p_ttest, 0.00283289, rtol=1e-5)


def test_wilcoxon_is_exact_for_few_pairs():
    np.testing.assert_allclose(paired([1.1, 2.3, 3.2, 4.6, 5.5], [1, 2, 3, 4, 5]).p_wilcoxon, 2 * 0.5**5)


def test_t_interval_covers_at_its_level():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (2000, 4))
    covered = [s.low <= 3.0 <= s.high for s in map(summary, draws)]
    assert stats.binomtest(sum(covered), len(covered), 0.95).pvalue > 0.01


def test_one_value_has_no_interval():
    result = summary([0.25])
    assert (result.value, result.n) == (0.25, 1)
    assert np.isnan([result.low, result.high, result.error, result.half_width]).all()
    assert np.isnan(paired([1.0], [0.5]).p_value)


def test_equal_values_have_an_interval_only_where_their_number_gives_it_the_coverage():
    five, six = summary([0.1] * 5), summary([0.1] * 6)
    assert np.isnan(five.interval).all()
    assert six.low == six.value == six.high
    assert six.level == 1 - 2**-5
    assert np.isnan(six.half_width)


def test_a_spread_too_small_for_its_variance_to_be_told_from_zero_does_not_warn():
    result = summary([0.0, 1e-200])
    assert result.low <= result.value <= result.high


def test_methods_that_never_differ_are_not_told_apart():
    result = paired([0.3, 0.1, 0.2], [0.3, 0.1, 0.2])
    assert (result.value, result.p_value, result.p_wilcoxon) == (0, 1, 1)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_equal_differences_allow_for_no_t_test_but_for_one_of_signs(n):
    result = paired(np.arange(n) + 1.0, np.arange(n))
    assert np.isnan(result.p_ttest)
    assert result.p_value == 2.0 ** (1 - n)
    assert np.isnan(result.low) == (n < 6)
    rounded = paired([0.3, 0.4, 0.6], [0.1, 0.2, 0.4])
    assert rounded.p_value == 0.25


def test_a_value_that_is_not_finite_has_no_interval():
    assert np.isnan(summary([1.0, np.nan]).low)
    assert np.isnan(paired([1.0, np.nan], [1.0, 2.0]).p_wilcoxon)


def test_nothing_to_summarise_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        summary([])
    with pytest.raises(ValueError, match="equal lengths, not 2 and 1"):
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


def test_an_interval_lies_within_limits_outside_of_them_or_decides_nothing():
    assert within((0.2, 0.3), 0.1, 0.3) is True
    assert within((0.2, 0.3), least=0.4) is False
    assert within((0.2, 0.3), most=0.1) is False
    assert within((0.2, 0.3), least=0.25) is None
    assert within((0.0, 0.0), least=0.0) is None
    assert within((1.0, 1.0), 0.8, 1.2) is True
    assert within((math.nan, math.nan), 0.1, 0.3) is None
    assert [all_of(a) for a in ((True, True), (True, None), (None, False))] == [True, None, False]


def test_the_sign_test_is_one_sided_and_leaves_ties_out():
    assert sign_test(np.array([-1.0] * 8 + [0.0] * 40)) == pytest.approx(0.5**8)
    assert sign_test(np.array([-1.0] * 3 + [1.0])) == pytest.approx((1 + 4) / 16)
    assert sign_test(np.zeros(5)) == 1.0
    assert sign_test(np.ones(9)) == 1.0


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
