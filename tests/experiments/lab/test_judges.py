"""Judges: one rule in both directions, paired seeds, nothing dropped in silence."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError
from core.stats import summary, within
from experiments.lab import (
    Statistic,
    count,
    every,
    every_seed,
    geometric,
    larger,
    mean,
    median,
    numbers,
    ordered,
    rank_correlations,
    share,
    slopes,
    smaller,
    statistic,
)


def frame(values, metric="error", method="ours", seeds=None, **coords):
    seeds = range(len(values)) if seeds is None else seeds
    return pd.DataFrame({"metric": metric, "method": method, "seed": list(seeds), "value": list(values), **coords})


def both(ours, theirs, **more):
    return pd.concat([frame(ours, **more), frame(theirs, method="theirs", **more)], ignore_index=True)


OURS, THEIRS = numbers("error", method="ours"), numbers("error", method="theirs")


@pytest.mark.parametrize(
    ("values", "met", "misses"),
    [
        ([1.0, 1.1, 0.9, 1.05, 0.95], True, False),
        ([2.0, 2.1, 1.9, 2.05, 1.95], False, False),
        ([1.0, 1.9, 1.2, 2.2, 0.9], None, False),
        ([1.0, 1.9, 1.4, 2.2, 1.3], None, True),
        ([1.0, 1.1, 0.9, 1.05], None, False),
    ],
)
def test_an_interval_within_the_limits_is_met_outside_not_met_and_open_between(values, met, misses):
    verdict = mean(OURS, most=1.5)(frame(values))
    assert (verdict.met, verdict.misses) == (met, misses)
    assert bool(verdict.value) == (len(values) >= 5)


@given(st.lists(st.floats(-10, 10), min_size=5, max_size=12), st.floats(-5, 5), st.floats(0, 5))
def test_the_verdict_is_that_of_the_interval(values, least, width):
    verdict, found = mean(OURS, least, least + width)(frame(values)), summary(values)
    assert verdict.met == within(found.interval, least, least + width)
    assert verdict.misses == (verdict.met is None and not least <= found.value <= least + width)


def test_differences_and_ratios_pair_equal_seeds():
    rows = both([3.0, 1.0, 2.0], [1.0, 2.0, 4.0])
    rows.loc[3:, "seed"] = [1, 0, 2]
    assert (OURS - THEIRS).of(rows).to_list() == [1.0, 0.0, -2.0]
    assert (OURS / THEIRS).of(rows).to_list() == [1.5, 1.0, 0.5]
    assert (2 * OURS + THEIRS).of(rows).to_list() == [8.0, 3.0, 8.0]
    assert abs(OURS - THEIRS).of(rows).to_list() == [1.0, 0.0, 2.0]
    assert larger(OURS, THEIRS).of(rows).to_list() == [3.0, 1.0, 4.0]
    assert smaller(OURS, THEIRS).of(rows).to_list() == [2.0, 1.0, 2.0]


def test_a_seed_that_one_side_lacks_leaves_the_item_open_and_is_named():
    rows = both([1.0, 1.1, 1.2, 1.1, 1.0, 1.2], [9.0, 9.1, 9.2, 9.1, 9.3, 9.0]).drop(index=[8])
    for judge in (mean(OURS - THEIRS, most=0), mean(larger(OURS, THEIRS), least=2), every_seed(OURS - THEIRS, most=0)):
        verdict = judge(rows)
        assert verdict.met is None
        assert "no number of seed 2" in verdict.value


@pytest.mark.parametrize("judge", [
    mean(OURS, most=2), geometric(OURS, most=2), median(OURS, most=2), every_seed(OURS, most=2),
    share(OURS, lambda x: x < 2, seeds=6), count(OURS, lambda x: x < 2, 0.5),
])  # fmt: skip
def test_a_seed_that_failed_leaves_the_item_open(judge):
    values = [1.0, 1.1, 0.9, 1.05, 0.95, 1.0, 1.02]
    assert judge(frame(values)).met is not None or isinstance(judge, type(share(OURS)))
    assert judge(frame([*values, math.nan])).met is None


def test_a_seed_that_occurs_twice_is_refused():
    with pytest.raises(DataError, match="several records of seed 0"):
        mean(OURS)(frame([1.0, 2.0], seeds=[0, 0]))
    rows = frame([1.0, 2.0], seeds=[0, 0], epoch=[1, 2])
    assert numbers("error", epoch=2).of(rows).to_list() == [2.0]
    rows.loc[0, "epoch"] = np.nan
    assert numbers("error", epoch=None).of(rows).to_list() == [1.0]


def test_nothing_is_judged_before_it_is_measured():
    for judge in (mean(OURS), mean(OURS - THEIRS), every(mean(OURS), mean(THEIRS)), count(OURS, np.isfinite, 1),
                  mean(slopes("error", "n")), mean(larger(OURS, THEIRS))):  # fmt: skip
        verdict = judge(frame([1.0, 2.0], metric="other"))
        assert (verdict.met, verdict.value) == (None, "")


def test_five_values_have_no_interval_of_a_median():
    verdict = median(OURS, most=9, seeds=5)(frame([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert verdict.met is None
    assert "no 95 % interval" in verdict.value
    assert median(OURS, most=9)(frame([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])).met is True


def test_shares_have_the_exact_interval_and_counts_are_the_claims_own():
    rows = frame([0.0] * 2 + [1.0] * 18)
    found = share(OURS, lambda x: x > 0.5, least=0.6)(rows)
    assert found.met is True
    assert found.interval == pytest.approx((0.683, 0.988), abs=1e-3)
    assert share(OURS, lambda x: x > 0.5, least=0.8)(rows).met is None
    assert count(OURS, lambda x: x > 0.5, 0.9)(rows).met is True
    assert count(OURS, lambda x: x > 0.5, 0.95)(rows).met is False


def test_every_seed_may_be_at_the_limit():
    assert every_seed(OURS, most=0)(frame([0.0] * 5)).met is True
    assert every_seed(OURS, most=0)(frame([0.0] * 4 + [1e-9])).met is False


def test_a_geometric_mean_of_a_zero_is_open():
    verdict = geometric(OURS, most=2)(frame([1.0, 1.5, 0.0, 1.2, 1.0]))
    assert (verdict.met, verdict.value) == (None, f"{OURS.name}: not above 0 of seed 2")


def test_every_seed_is_met_by_all_and_missed_by_one():
    assert every_seed(OURS, most=2)(frame([1.0, 1.5, 2.0, 0.0, 1.0])).met is True
    verdict = every_seed(OURS, most=2)(frame([1.0, 1.5, 2.5, 0.0, 1.0]))
    assert verdict.met is False
    assert "2.5" in verdict.value


def test_all_parts_must_hold_and_one_decides_against():
    good, bad = [1.0, 1.1, 0.9, 1.05, 0.95], [5.1, 5.0, 4.9, 5.05, 4.95]
    rows = both(good, bad)
    assert every(mean(OURS, most=2), mean(THEIRS, least=2))(rows).met is True
    assert every(mean(OURS, most=2), mean(THEIRS, most=2))(rows).met is False
    assert every(mean(OURS, most=2), mean(THEIRS, most=5))(rows).met is None
    assert ordered(OURS, THEIRS, gap=3)(rows).met is True
    assert ordered(THEIRS, OURS)(rows).met is False


def test_slopes_and_rank_correlations_are_of_each_seed():
    n = np.array([10.0, 100.0, 1000.0])
    rows = pd.concat([frame(n ** -(0.5 + seed / 10), seeds=[seed] * 3, n=n) for seed in range(5)])
    assert slopes("error", "n", log=True).of(rows).to_list() == pytest.approx([-0.5, -0.6, -0.7, -0.8, -0.9])
    assert rank_correlations("error", "n").of(rows).to_list() == [-1.0] * 5
    rows.loc[rows["n"] == 10, "value"] = np.inf
    assert rank_correlations("error", "n").of(rows).to_list() == [-1.0] * 5


def test_declared_statistics_are_judged_over_what_they_repeat():
    rows = frame([1.0] * 30 + [0.0] * 10, seeds=[0] * 40, person=range(40), **{"class": [0, 1] * 20})
    q = numbers("error", per=("person", "class"))
    found = statistic(q, Statistic("balanced share", over="person"), least=0.5, seeds=40)(rows)
    assert found.met is True
    assert "(40)" in found.value


def test_several_numbers_of_a_seed_become_one():
    rows = frame([1.0, 3.0, 5.0, 7.0], seeds=[0, 0, 1, 1], member=[0, 1, 0, 1])
    assert numbers("error", per=("seed", "member")).per_seed().of(rows).to_dict() == {0: 2.0, 1: 6.0}


def test_judges_say_in_words_what_they_judge():
    assert mean(OURS, least=0.5).words == "mean of error, ours, at least 0.5; 5 or more"
    assert "at most 2" in every(mean(OURS, most=2)).words
