"""Concepts: what the instances that activate a unit most have in common, in words.

Two interpreters, one interface. :func:`by_attributes` is deterministic and needs no model: the concept is the
attribute, or pair of attributes, whose share among the top instances is surely larger than elsewhere.
:func:`by_language` asks a language model through functions that the caller gives.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import scipy.stats
from jaxtyping import Bool, Float, Int, Num

from core.checks import Count, Natural, Positive, checked, require_indices
from core.stats import from_error

PRIOR = 1.0
"""Pseudo-instances with the overall share, added to the top instances."""


class Concepts(NamedTuple):
    """A description of each unit."""

    names: tuple[str, ...]
    key: Any
    """What the interpreter needs to predict: attribute numbers [units, 2] (-1: none), or texts."""
    q: Float[np.ndarray, " units"]
    """Adjusted p-values, where there are any; NaN otherwise."""


class Interpreter(NamedTuple):
    """How units are described, and how a description tells where its unit is active."""

    describe: Callable[[Int[np.ndarray, "units n"]], Concepts]
    """``top items of each unit -> concepts``."""
    predict: Callable[[Concepts, Int[np.ndarray, " rows"], Int[np.ndarray, "rows s"]], Bool[np.ndarray, "rows s"]]
    """``(concepts, units, items of a row) -> whether the unit should be active``."""


@checked
def lift(
    k: Num[np.ndarray, "*n"], n: Count, K: Num[np.ndarray, "*n"], M: Count, prior: Positive = PRIOR
) -> tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]]:
    """log(P(a | top) / P(a)) and a lower 97.5 % bound of it.

    With p = K / M: P(a | top) = (k + prior p) / (n + prior), the log of which has the variance
    1 / (k + prior p) - 1 / (n + prior).

    Args:
      k: top instances with the attribute.
      n: top instances.
      K: instances with the attribute.
      M: instances.
      prior: pseudo-instances with the overall share.
    """
    p = np.maximum(K, 1e-12) / M
    have, total = k + prior * p, n + prior
    value = np.log(have / total / p)
    return value, from_error(value, np.sqrt(np.maximum(1 / have - 1 / total, 0.0))).low


@checked
def fisher(k: Int[np.ndarray, "*n"], n: Natural, K: Int[np.ndarray, "*n"], M: Count) -> Float[np.ndarray, "*n"]:
    """Fisher's exact p-value, one-sided: k or more of n instances drawn from M of which K have the attribute."""
    return scipy.stats.hypergeom.sf(np.asarray(k) - 1, M, K, n)


@checked
def by_attributes(
    present: Any,
    names: Sequence[str],
    items: Int[np.ndarray, " instances"],
    *,
    pairs_of: Count = 4,
) -> Interpreter:
    """Concepts from metadata: the attribute or conjunction of two with the largest lower bound of lift.

    p-values are Fisher's for the chosen concept, times the number of candidates (Bonferroni), adjusted over units
    (Benjamini and Hochberg).

    Args:
      present: items by attributes, a ``scipy.sparse.csr_matrix``.
      names: of the attributes.
      items: the last items of all instances, for the overall shares.
      pairs_of: conjunctions are formed among so many of the best single attributes.

    Raises:
      ConfigError: for items without attributes.
    """
    require_indices("by_attributes: items", items, present.shape[0], "items")
    weights = np.bincount(items, minlength=present.shape[0]).astype(float)
    overall, instances = np.asarray(present.T @ weights).ravel(), int(weights.sum())
    table = present.toarray()

    def describe(top: Int[np.ndarray, "units n"]) -> Concepts:
        units, n = top.shape
        rows = np.arange(units)
        selection: Any = scipy.sparse.csr_matrix(
            (np.ones(top.size), (np.repeat(rows, n), top.ravel())), (units, len(table))
        )
        counts = np.asarray((selection @ present.astype(float)).todense())
        bounds = lift(counts, n, overall, instances)[1]
        best = np.argsort(-bounds, axis=1, kind="stable")[:, : min(pairs_of, bounds.shape[1])]
        key = np.stack([best[:, 0], np.full(units, -1)], 1)
        bound, k, K = bounds[rows, best[:, 0]], counts[rows, best[:, 0]], overall[best[:, 0]]
        for i in range(best.shape[1]):
            for j in range(i + 1, best.shape[1]):
                a, b = best[:, i], best[:, j]
                both = (table[top, a[:, None]] & table[top, b[:, None]]).sum(axis=1)
                all_both = _shared(table, weights, a, b)
                new = lift(both, n, all_both, instances)[1]
                better = new > bound + 1e-9
                key[better] = np.stack([a, b], 1)[better]
                bound, k, K = (np.where(better, x, y) for x, y in ((new, bound), (both, k), (all_both, K)))
        candidates = table.shape[1] + best.shape[1] * (best.shape[1] - 1) // 2
        p = np.minimum(1.0, candidates * fisher(k.astype(int), n, K.astype(int), instances))
        return Concepts(tuple(_name(names, pair) for pair in key), key, scipy.stats.false_discovery_control(p))

    def predict(concepts: Concepts, units: Int[np.ndarray, " rows"], items: Int[np.ndarray, "rows s"]):
        return has_concept(table, concepts.key[units], items)

    return Interpreter(describe, predict)


def has_concept(table: Bool[np.ndarray, "items a"], key: Int[np.ndarray, "rows 2"], items: Int[np.ndarray, "rows s"]):
    """Whether items have both attributes of a concept, or the one that it has."""
    first, second = key[:, :1], key[:, 1:]
    return table[items, first] & ((second < 0) | table[items, np.maximum(second, 0)])


def _shared(table, weights, a: Int[np.ndarray, " units"], b: Int[np.ndarray, " units"]) -> Float[np.ndarray, " units"]:
    """Instances with both attributes, each pair counted once."""
    pairs, place = np.unique(np.stack([a, b], 1), axis=0, return_inverse=True)
    counts = np.array([weights[table[:, i] & table[:, j]].sum() for i, j in pairs])
    return counts[place.ravel()]


def _name(names: Sequence[str], pair: Int[np.ndarray, "2"]) -> str:
    return " and ".join(names[int(index)] for index in pair if index >= 0)


@checked
def by_language(
    describe: Callable[[Sequence[str]], str],
    judge: Callable[[str, Sequence[str]], Sequence[bool]],
    texts: Sequence[str],
) -> Interpreter:
    """Concepts from a language model, the route of the paper; the endpoint is the caller's.

    Args:
      describe: texts of the top instances of a unit -> what they share, in a few words.
      judge: (description, texts) -> which of them it fits.
      texts: of the items.
    """

    def describe_all(top: Int[np.ndarray, "units n"]) -> Concepts:
        names = tuple(describe([texts[int(item)] for item in row]) for row in top)
        return Concepts(names, names, np.full(len(names), np.nan))

    def predict(concepts: Concepts, units: Int[np.ndarray, " rows"], items: Int[np.ndarray, "rows s"]):
        answers = [
            judge(concepts.key[unit], [texts[int(i)] for i in row]) for unit, row in zip(units, items, strict=True)
        ]
        return np.array(answers, bool).reshape(items.shape)

    return Interpreter(describe_all, predict)
