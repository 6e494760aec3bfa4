"""Are concepts true of sequences that did not suggest them? Confidence by precision and recall, and coherence.

Activity is a sparse matrix [instances, units], an entry where a unit is active.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Int

from core.checks import Count, checked
from core.stats import wilson
from interp.recsae.concepts import Concepts, Interpreter

Activity = Any
"""A ``scipy.sparse.csc_matrix``, whose types the checkers of types do not follow."""


class Confidence(NamedTuple):
    """How well concepts tell active from inactive instances, a number for each unit; NaN where nothing was checked."""

    precision: Float[np.ndarray, " units"]
    recall: Float[np.ndarray, " units"]
    f1: Float[np.ndarray, " units"]
    low: Float[np.ndarray, " units"]
    """Lower 97.5 % bound of F1."""
    chance: Float[np.ndarray, " units"]
    """F1 expected of the same predictions where activity is shuffled."""
    checked: Int[np.ndarray, " units"]
    """Active instances checked, and as many inactive ones."""

    def interpretable(self, threshold: float = 0.5) -> Bool[np.ndarray, " units"]:
        """Units whose F1 surely exceeds the threshold and what chance gives."""
        return self.low > np.maximum(threshold, self.chance)


@checked
def strongest(activity: Activity, count: Count) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, "kept n"]]:
    """The instances that activate each unit most, strongest first, for the units with at least so many."""
    units, starts, order = _ranked(activity)
    kept = np.flatnonzero(units >= count)
    return kept, activity.indices[order[starts[kept, None] + np.arange(count)]]


@checked
def one_per_item(activity: Activity, items: Int[np.ndarray, " instances"]) -> Activity:
    """For each unit the strongest instance of each item only.

    Instances that end in the same item share all of its attributes, and agree on each of them by no merit of the unit.
    """
    found = activity.tocoo()
    order = np.lexsort((-found.data, items[found.row], found.col))
    unit, item = found.col[order], items[found.row][order]
    new = np.ones(len(order), bool)
    new[1:] = (unit[1:] != unit[:-1]) | (item[1:] != item[:-1])
    kept = order[new]
    return scipy.sparse.csc_matrix((found.data[kept], (found.row[kept], found.col[kept])), activity.shape)


def _ranked(activity: Activity) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Active instances per unit, where each unit's begin, and all by unit and falling activation."""
    counts = np.diff(activity.indptr)
    owner = np.repeat(np.arange(activity.shape[1]), counts)
    return counts, activity.indptr[:-1], np.lexsort((activity.indices, -activity.data, owner))


@checked
def stratified(rng: np.random.Generator, activity: Activity, units: Int[np.ndarray, " u"], count: Count):
    """Active instances of each unit, one from each of ``count`` quantiles of activation: rows [u, count].

    Units with fewer active instances have all of them, the rest -1.
    """
    counts, starts, order = _ranked(activity)
    counts, starts = counts[units, None], starts[units, None]
    spread = ((np.arange(count) + rng.random((len(units), count))) * counts / count).astype(int)
    place = np.where(counts >= count, spread, np.arange(count))
    rows = activity.indices[order[np.minimum(starts + place, max(len(order) - 1, 0))]]
    return np.where(place < counts, rows, -1)


@checked
def inactive(
    rng: np.random.Generator, activity: Activity, units: Int[np.ndarray, " u"], count: Count, rows: np.ndarray
):
    """Random instances among ``rows`` in which each unit is not active: [u, count], -1 where too few were found."""
    drawn = rng.choice(rows, (len(units), 4 * count))
    owner = np.repeat(np.arange(activity.shape[1]), np.diff(activity.indptr))
    active = np.sort(owner * activity.shape[0] + activity.indices)
    wanted = units[:, None] * activity.shape[0] + drawn
    at = np.minimum(np.searchsorted(active, wanted), max(len(active) - 1, 0))
    free = active[at] != wanted if len(active) else np.ones(wanted.shape, bool)
    first = np.argsort(~free, axis=1, kind="stable")[:, :count]
    return np.where(np.take_along_axis(free, first, 1), np.take_along_axis(drawn, first, 1), -1)


@checked
def confidence(
    interpreter: Interpreter,
    concepts: Concepts,
    units: Int[np.ndarray, " u"],
    activity: Activity,
    items: Int[np.ndarray, " instances"],
    rows: Int[np.ndarray, " part"],
    rng: np.random.Generator,
    *,
    count: Count = 40,
) -> Confidence:
    """Checks concept i, of unit ``units[i]``, on active and inactive instances of a part, half and half.

    Args:
      interpreter: who described the units.
      concepts: the descriptions.
      units: their units, columns of ``activity``.
      activity: of all instances.
      items: the last item of each instance.
      rows: the instances of the part.
      rng: for the choice of instances.
      count: active instances to check per unit, and inactive ones.
    """
    inside = np.zeros(activity.shape[0], bool)
    inside[rows] = True
    part = activity.tocsr().multiply(inside[:, None]).tocsc()
    part.eliminate_zeros()
    on = stratified(rng, part, units, count)
    off = inactive(rng, part, units, count, rows)
    off[(on < 0)] = -1
    on[(off < 0)] = -1
    described = np.arange(len(units))
    says_on, says_off = (interpreter.predict(concepts, described, items[np.maximum(at, 0)]) for at in (on, off))
    return scores((says_on & (on >= 0)).sum(1), (says_off & (off >= 0)).sum(1), (on >= 0).sum(1))


@checked
def scores(hits: Int[np.ndarray, " u"], false: Int[np.ndarray, " u"], checked: Int[np.ndarray, " u"]) -> Confidence:
    """Precision, recall and F1 from predictions on ``checked`` active and as many inactive instances.

    F1 = 2J / (1 + J), J = TP / (TP + FP + FN) a proportion, whose bound is Wilson's. If activity is shuffled, half of
    what is predicted is right: F1 = q / (q + 1/2) for a share q of positive predictions.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        union = checked + false
        jaccard, low = hits / union, wilson(hits, union).low
        share = (hits + false) / (2 * checked)
        return Confidence(hits / (hits + false), hits / checked, _f1(jaccard), _f1(low), share / (share + 0.5), checked)


def _f1(jaccard):
    return 2 * jaccard / (1 + jaccard)


@checked
def coherence(classes: Int[np.ndarray, "units n"]) -> Float[np.ndarray, " units"]:
    """The share of the commonest class among the top instances of each unit."""
    same = classes[:, :, None] == classes[:, None, :]
    return same.sum(axis=2).max(axis=1) / classes.shape[1]


@checked
def group_f1(activity: Activity, groups: Int[np.ndarray, " instances"], count: Count) -> Float[np.ndarray, " groups"]:
    """For each planted group the largest F1 over units of "active" against "the instance is of the group"."""
    truth: Any = scipy.sparse.csr_matrix((np.ones(len(groups)), (groups, np.arange(len(groups)))), (count, len(groups)))
    both = np.asarray((truth @ (activity > 0).astype(float)).todense())
    sizes = np.asarray(truth.sum(axis=1)).ravel()[:, None] + np.diff(activity.indptr)
    return (2 * both / np.maximum(sizes, 1)).max(axis=1)


@checked
def correlations(activity: Activity, target: Float[np.ndarray, " instances"]) -> Float[np.ndarray, " units"]:
    """Pearson correlation of each unit's activation with a number of the instance; 0 for silent units."""
    n, y = activity.shape[0], target - target.mean()
    mean = np.asarray(activity.mean(axis=0)).ravel()
    square = np.asarray(activity.multiply(activity).mean(axis=0)).ravel() - mean**2
    covariance = np.asarray(activity.T @ y).ravel() / n
    return np.where(square > 0, covariance / np.sqrt(np.maximum(square, 1e-30) * np.mean(y**2)), 0.0)
