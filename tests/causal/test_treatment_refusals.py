"""What the functions that judge effects refuse, naming the argument."""

# pyright: reportArgumentType=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal import treatment_effects as te
from core.errors import ConfigError

KEY, N = jax.random.key(0), 12
ONES = jnp.ones(N)
T, SCORES = jnp.arange(N) % 2, jax.random.normal(jax.random.key(1), (N,))
MANY, ONE = te.Clusters.single(N), te.Clusters(jnp.zeros(N, int), 1)
NAN = SCORES.at[3].set(jnp.nan)

REFUSED = {
    "rate of NaN priority": (lambda: te.rate_estimate(KEY, NAN, SCORES, MANY), r"priority has nan at \[3\]"),
    "rate of NaN scores": (lambda: te.rate_estimate(KEY, SCORES, NAN, MANY), r"scores has nan at \[3\]"),
    "rate of other scores": (lambda: te.rate_estimate(KEY, SCORES, SCORES[:5], MANY), "n is 5 here and 12 in priority"),
    "rate draws 0": (lambda: te.rate_estimate(KEY, SCORES, SCORES, MANY, 0), "draws must be"),
    "ranking of NaN": (lambda: te.ranking(NAN), "priority has nan"),
    "key a number": (lambda: te.rate_estimate(0, SCORES, SCORES, MANY), "key must be a random key"),
    "one cluster": (lambda: te.mean(SCORES, ONE), "at least 2 clusters"),
    "one arm": (lambda: te.difference_in_means(ONES, SCORES, MANY), "t is 1 for every unit"),
    "dr_scores propensity 0": (
        lambda: te.dr_scores(T, SCORES, SCORES, SCORES, 0.0),
        "propensity must be a number above",
    ),
    "dr_scores propensity 1 of one unit": (
        lambda: te.dr_scores(T, SCORES, SCORES, SCORES, jnp.full(N, 0.5).at[2].set(1.0)),
        r"propensity must hold numbers above 0 and below 1, but has 1.0 at \[2\]",
    ),
    "dr_scores outcome NaN": (lambda: te.dr_scores(T, NAN, SCORES, SCORES, 0.5), "y has nan"),
    "evaluate cost NaN": (lambda: te.evaluate(KEY, SCORES, SCORES, MANY, float("nan")), "cost must be a number"),
    "value cost NaN": (lambda: te.policy_value(SCORES > 0, SCORES, MANY, float("nan")), "cost must be a number"),
    "treat of numbers": (lambda: te.policy_value(SCORES, SCORES, MANY), "treat must hold True and False"),
    "cost of treating 0": (lambda: te.affordable(SCORES, 0.5, 0.0), "cost must be a number above 0"),
    "budget -1": (lambda: te.affordable(SCORES, -1.0), "budget must be"),
    "groups 0": (lambda: te.quantile_groups(SCORES, 0), "groups must be"),
    "a group beyond": (lambda: te.group_effects(jnp.full(N, 5), SCORES, MANY), "group.0. is 5, but there are 5 groups"),
    "level 95": (
        lambda: te.toc_band(KEY, SCORES, SCORES, MANY, jnp.array([0.5]), level=95),
        "level must be a number above 0 and below 1",
    ),
    "shares beyond 1": (lambda: te.toc_band(KEY, SCORES, SCORES, MANY, jnp.array([2.0])), "shares must hold numbers"),
    "one resample": (lambda: te.bootstrapped(lambda w: w.sum(), jnp.ones((1, N))), "a spread needs at least 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arguments_are_refused_by_name(case):
    call, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        call()


@settings(max_examples=10, deadline=None)
@given(value=st.integers(-100, 100), scale=st.sampled_from([0.01, 1.0, 100.0]))
def test_a_priority_that_ranks_nobody_has_a_rate_of_exactly_zero(value, scale):
    found = te.rate_estimate(KEY, jnp.full(N, value / 7), scale * SCORES + value, MANY, 20)
    for estimate in found:
        assert float(estimate.value) == float(estimate.se) == 0


def test_rates_average_over_ties():
    """By all orders of the two tied units."""
    priority, scores = jnp.array([3.0, 2.0, 2.0, 1.0]), jnp.array([1.0, 5.0, -2.0, 0.5])
    found = te.rate(te.ranking(priority), scores)
    broken = [te.rate(te.ranking(priority.at[i].add(0.5)), scores) for i in (1, 2)]
    for name in ("autoc", "qini"):
        np.testing.assert_allclose(
            getattr(found, name), np.mean([getattr(one, name) for one in broken]), rtol=1e-5, atol=1e-6
        )
