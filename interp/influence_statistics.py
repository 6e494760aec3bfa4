"""What influences look like: their tail, where they concentrate, and whether they find what is known to matter.

Scores are [Q, N], one row per query and one column per training sequence; positive ones raise the query's probability.
The quantities are those of Grosse et al., Studying Large Language Model Generalization with Influence Functions, 2023,
arXiv 2308.03296.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Num

from core.checks import FINITE, Count, Fraction, OpenFraction, checked
from core.errors import ConfigError
from core.stats import central, exponential_rate


class Tail(NamedTuple):
    """A power law P(X > x) = (x / threshold)^-exponent, fitted to the values of each query above a threshold."""

    exponent: Float[np.ndarray, " Q"]
    """Hill's estimator."""
    low: Float[np.ndarray, " Q"]
    high: Float[np.ndarray, " Q"]
    threshold: Float[np.ndarray, " Q"]
    n: int
    """Values above the threshold."""
    versus_exponential: Float[np.ndarray, " Q"]
    """Vuong's z for the power law against an exponential tail: positive where the power law fits better."""


@checked
def tail(scores: Num[np.ndarray, "*Q N"], quantile: OpenFraction = 0.99, level: OpenFraction = 0.95) -> Tail:
    """The exponent of the upper tail of each query's scores, with an exact interval for a true power law.

    With x_0 the threshold and x_1, ..., x_n the values above it: exponent = n / sum_i log(x_i / x_0) (Hill, 1975), and
    2 n true / estimated is chi-squared with 2 n degrees of freedom.

    Args:
      scores: influences, of one query or several.
      quantile: the threshold is the largest score that is not among the n = (1 - quantile) N highest.
      level: coverage of the interval.

    Raises:
      ConfigError: where fewer than two values lie above the threshold, or it is not positive, or all are equal.
    """
    scores = np.atleast_2d(np.asarray(scores, float))
    n = round((1 - quantile) * scores.shape[1])
    if not 2 <= n < scores.shape[1]:
        raise ConfigError(
            f"{n} of {scores.shape[1]} scores lie above the quantile {quantile}; it takes 2 to all but one"
        )
    highest = -np.sort(-scores, axis=1)[:, : n + 1]
    threshold = highest[:, n]
    fits = (threshold > 0) & (highest[:, 0] > threshold)
    if not fits.all():
        query = int(np.argmin(fits))
        raise ConfigError(
            f"the {n} highest scores of query {query} lie between {threshold[query]:g} and {highest[query, 0]:g}; "
            "a power law takes positive values that differ"
        )
    logs, excess = np.log(highest[:, :n] / threshold[:, None]), highest[:, :n] - threshold[:, None]
    exponent, mean = 1 / logs.mean(1), excess.mean(1)
    _, low, high = exponential_rate(logs.mean(1), n, level)
    power = (np.log(exponent / threshold) - (exponent + 1) * logs.T).T
    ratio = power - (-np.log(mean) - excess.T / mean).T
    return Tail(exponent, low, high, threshold, n, np.sqrt(n) * ratio.mean(1) / ratio.std(1))


@checked
def positive_share(
    scores: Annotated[Num[np.ndarray, "Q N"], FINITE], tops: Sequence[Fraction] = (0.01, 0.05, 0.1)
) -> Float[np.ndarray, "Q P"]:
    """The share of each query's total positive influence that its highest sequences cover.

    Args:
      scores: influences.
      tops: shares of the sequences; at least one sequence is taken.

    Returns:
      A share per query and top; NaN where no score is positive.
    """
    positive = np.maximum(np.asarray(scores, float), 0)
    covered = np.cumsum(-np.sort(-positive, axis=1), axis=1)
    counts = [max(1, round(top * positive.shape[1])) for top in tops]
    total = covered[:, -1:]
    return np.divide(
        covered[:, np.array(counts) - 1], total, out=np.full((len(total), len(counts)), np.nan), where=total > 0
    )


@checked
def recall(
    scores: Annotated[Num[np.ndarray, "Q N"], FINITE], own: Bool[np.ndarray, "Q N"], n: Count | None = None
) -> Float[np.ndarray, " Q"]:
    """The share of a query's own sequences among its n highest; NaN where it has none.

    Args:
      scores: influences.
      own: which sequences should be found for each query.
      n: how many are looked at; as many as the query owns where None, so that 1 is reached by a perfect ranking.
    """
    own = np.asarray(own, bool)
    order = np.argsort(-np.asarray(scores, float), axis=1, kind="stable")
    owned = own.sum(1)
    looked = np.arange(own.shape[1]) < (owned if n is None else np.full_like(owned, n))[:, None]
    found = np.sum(np.take_along_axis(own, order, 1) & looked, axis=1)
    return np.divide(found, owned, out=np.full(len(owned), np.nan), where=owned > 0)


@checked
def token_overlap(
    query_tokens: ArrayLike,
    tokens: ArrayLike,
    content: ArrayLike,
) -> Float[np.ndarray, " Q"]:
    """Mean Jaccard index of the content tokens of a query and of each of its top sequences.

    Args:
      query_tokens: tokens [Q, S] of the queries.
      tokens: tokens [Q, k, T] of the k highest sequences of each query, as ``tokens[top]``.
      content: which tokens [V] count; leave padding and frequent words out. Two empty sets have overlap 0.
    """
    counted = np.asarray(content, bool)
    query = _present(np.asarray(query_tokens), counted)[:, None]
    found = np.stack([_present(row, counted) for row in np.asarray(tokens)])
    both, either = np.sum(query & found, -1), np.sum(query | found, -1)
    return np.mean(both / np.maximum(either, 1), axis=1)


def _present(tokens: Int[np.ndarray, "n T"], content: Bool[np.ndarray, " V"]) -> Bool[np.ndarray, "n V"]:
    present = np.zeros((len(tokens), content.size), bool)
    present[np.arange(len(tokens))[:, None], tokens] = True
    return present & content


@checked
def group_means(scores: Float[np.ndarray, "Q N"], members: Bool[np.ndarray, "Q N"]) -> Float[np.ndarray, " Q"]:
    """The mean score of a group of sequences for each query; NaN where the group is empty."""
    members = np.asarray(members, bool)
    count = members.sum(1)
    total = np.sum(np.where(members, scores, 0.0), axis=1)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


class Ratio(NamedTuple):
    """A ratio of two means over queries, with a bootstrap interval."""

    ratio: float
    low: float
    high: float
    n: int
    """Queries that have a value in either mean."""


@checked
def ratio_of_means(
    numerator: Num[np.ndarray, " Q"],
    denominator: Num[np.ndarray, " Q"],
    level: OpenFraction = 0.95,
    resamples: Count = 9999,
) -> Ratio:
    """The mean of one quantity over that of another, with percentiles over resampled queries.

    Queries are resampled with both of their values, so that pairs stay together; NaN is left out of the means, so that
    queries may have one value only. For word order: group means of flipped-order over those of same-order sequences.

    Args:
      numerator: one value per query, or NaN.
      denominator: one value per query, or NaN.
      level: coverage of the interval.
      resamples: how many.

    Raises:
      ConfigError: where one of them has no value, or the denominator's mean is not positive.
    """
    pairs = np.stack([np.asarray(numerator, float), np.asarray(denominator, float)])
    pairs = pairs[:, ~np.isnan(pairs).all(0)]
    if np.isnan(pairs).all(1).any() or not np.nanmean(pairs[1]) > 0:
        raise ConfigError("a ratio needs values in numerator and denominator, and a positive mean in the denominator")
    n = pairs.shape[1]
    drawn = np.random.default_rng(0).integers(0, n, (resamples, n))
    low, high = central(_ratio(pairs[:, drawn]), level)
    return Ratio(float(_ratio(pairs)), float(low), float(high), n)


def _ratio(pairs: Float[np.ndarray, "2 *r n"]) -> Float[np.ndarray, "*r"]:
    """NaN where a resample has no value above or below."""
    count = np.sum(~np.isnan(pairs), -1)
    above, below = np.divide(np.nansum(pairs, -1), count, out=np.full(count.shape, np.nan), where=count > 0)
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)


class Concentration(NamedTuple):
    """How much of the attribution of each sequence falls on marked tokens."""

    share: Float[np.ndarray, " n"]
    """Of the absolute attribution; NaN where a sequence has none."""
    expected: Float[np.ndarray, " n"]
    """What an even spread over the real tokens would give."""


@checked
def concentration(
    token_scores: Float[np.ndarray, "n T"], marked: Bool[np.ndarray, "n T"], mask: Bool[np.ndarray, "n T"]
) -> Concentration:
    """The share of the absolute token attributions on marked tokens, beside that of an even spread.

    Args:
      token_scores: attributions to the positions of some sequences; padding does not count.
      marked: the tokens in question.
      mask: real tokens.
    """
    mask, marked = np.asarray(mask, bool), np.asarray(marked, bool) & np.asarray(mask, bool)
    weight = np.where(mask, np.abs(np.asarray(token_scores, float)), 0)
    total = weight.sum(1)
    share = np.divide(np.sum(weight * marked, axis=1), total, out=np.full(len(total), np.nan), where=total > 0)
    return Concentration(share, marked.sum(1) / np.maximum(mask.sum(1), 1))


@checked
def layer_shares(
    layer_scores: Mapping[str, Num[np.ndarray, "Q N"]], group: Callable[[str], str], k: Count
) -> dict[str, Float[np.ndarray, " Q"]]:
    """The share of each group of layers in the summed influence of every query's k highest sequences; they add to one.

    Args:
      layer_scores: scores by layer, which add to the total.
      group: name of the group of a layer.
      k: how many sequences; NaN for queries whose influence on them is not positive in sum.
    """
    total = np.sum([np.asarray(scores, float) for scores in layer_scores.values()], axis=0)
    top = np.argsort(-total, axis=1, kind="stable")[:, :k]
    covered = np.take_along_axis(total, top, 1).sum(1)
    shares: dict[str, np.ndarray] = {}
    for name, scores in layer_scores.items():
        part = np.take_along_axis(np.asarray(scores, float), top, 1).sum(1)
        part = np.divide(part, covered, out=np.full_like(covered, np.nan), where=covered > 0)
        shares[group(name)] = shares.get(group(name), 0.0) + part
    return shares
