"""Whether a ranking of units finds those with large effects: TOC, AUTOC and Qini coefficient with errors.

Yadlowsky, Fleming, Shah, Brunskill, Wager, Evaluating treatment prioritization rules via rank-weighted average
treatment effects, JASA 2025, arXiv 2111.07966.
"""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from causal.treatment_effects.inference import Clusters, Column, Estimate, bootstrapped, half_samples
from core.checks import OpenFraction, checked
from core.kinds import Range

Draws = Annotated[int, Range(2)]
"""Half-samples whose spread is an error."""


class Ranking(NamedTuple):
    """Units by priority, the highest first."""

    order: Int[Array, " n"]
    first: Int[Array, " n"]
    """In this order: the place of the first unit of equal priority."""
    last: Int[Array, " n"]


@checked
def ranking(priority: Column) -> Ranking:
    """Sorts units once, for any number of statistics."""
    order = jnp.argsort(-priority, stable=True)
    falling = -priority[order]
    first, last = (jnp.searchsorted(falling, falling, side=side) for side in ("left", "right"))
    return Ranking(order, first, last - 1)


class Toc(NamedTuple):
    """The targeting operator characteristic, at every unit in the order of the ranking."""

    share: Float[Array, " n"]
    """Of all weight, down to this unit."""
    gain: Float[Array, " n"]
    """Mean score down to this unit less the mean score of all."""
    weight: Float[Array, " n"]


@checked
def toc(ranked: Ranking, scores: Column, weights: Column | None = None) -> Toc:
    """TOC_j = mean(G of the top j) - mean(G), G averaged within ties.

    Args:
      ranked: see :func:`ranking`.
      scores: unbiased for the units' effects, see :func:`causal.treatment_effects.scores.dr_scores`.
      weights: of the units; zero leaves one out, all count alike if None.
    """
    w = jnp.ones_like(scores) if weights is None else weights[ranked.order].astype(scores.dtype)
    below, total = jnp.cumsum(w), jnp.cumsum(w * scores[ranked.order])

    def within_tie(cumulated):
        """Sums before and down to the end of each unit's tie."""
        before = jnp.where(ranked.first > 0, cumulated[ranked.first - 1], 0.0)
        return before, cumulated[ranked.last]

    (w_before, w_end), (before, end) = within_tie(below), within_tie(total)
    mean = (end - before) / jnp.maximum(w_end - w_before, 1e-12)
    # In this form a tie of everybody has a gain of exactly 0, whatever the rounding of sums.
    top = mean + (before - w_before * mean) / jnp.maximum(below, 1e-12)
    return Toc(below / below[-1], jnp.where(below > 0, top - total[-1] / below[-1], 0.0), w / below[-1])


class Rate(NamedTuple):
    """Rank-weighted average treatment effects."""

    autoc: Any
    """Mean of TOC_j: a logarithmic weight, for effects of few units."""
    qini: Any
    """Mean of (j/n) TOC_j: a linear weight, for effects of many."""


@checked
def rate(ranked: Ranking, scores: Column, weights: Column | None = None) -> Rate:
    """AUTOC and Qini coefficient; exactly 0 where all units have one priority, which ranks nobody."""
    curve = toc(ranked, scores, weights)
    return Rate(jnp.sum(curve.weight * curve.gain), jnp.sum(curve.weight * curve.share * curve.gain))


@checked
def rate_estimate(
    key: Key[Array, ""], priority: Column, scores: Column, clusters: Clusters, draws: Draws = 200
) -> Rate:
    """Both with standard errors from half-samples of the clusters; the units are sorted once for all of them."""
    ranked = ranking(priority)
    return bootstrapped(lambda w: rate(ranked, scores, w), half_samples(key, clusters, draws))


class Band(NamedTuple):
    """TOC at given shares of the units, with a band that covers the whole curve."""

    share: Float[Array, " q"]
    gain: Estimate
    critical: Float[Array, ""]
    """The band is ``value ± critical se``."""


@checked
def toc_band(
    key: Key[Array, ""],
    priority: Column,
    scores: Column,
    clusters: Clusters,
    shares: Annotated[Float[Array, " q"], Range(0, 1)],
    draws: Draws = 200,
    level: OpenFraction = 0.95,
) -> Band:
    """The curve and a uniform band: the largest deviation over all shares, in standard errors, by half-samples."""
    shares = jnp.asarray(shares)
    ranked = ranking(priority)

    def at(weights):
        curve = toc(ranked, scores, weights)
        return curve.gain[jnp.clip(jnp.searchsorted(curve.share, shares - 1e-6), 0, scores.shape[0] - 1)]

    spread = jax.vmap(at)(half_samples(key, clusters, draws))
    value, se = at(jnp.ones_like(scores)), jnp.std(spread, axis=0, ddof=1)
    largest = jnp.max(jnp.abs(spread - value) / jnp.maximum(se, 1e-12) * (se > 0), axis=1)
    return Band(shares, Estimate(value, se), jnp.quantile(largest, level))
