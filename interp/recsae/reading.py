"""From activity to concepts that were checked: what units stand for, and the most confident of them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from core.checks import Count, Natural, checked
from interp.recsae.concepts import Concepts, Interpreter
from interp.recsae.validation import Activity, Confidence, confidence, one_per_item, stratified, strongest

LEAST = 10
"""Active instances of a half without which a unit is not judged."""


class Read(NamedTuple):
    """Units with their concepts and how far these hold."""

    units: Int[np.ndarray, " kept"]
    """Columns of ``new``; those with enough active instances."""
    concepts: Concepts
    new: Activity
    """On instances that did not suggest the concepts."""
    halves: tuple[np.ndarray, np.ndarray]
    """Rows of ``new``."""
    confidence: tuple[Confidence, Confidence]
    """On each half."""

    @property
    def judged(self) -> Bool[np.ndarray, " kept"]:
        """Units with enough active instances in both halves."""
        first, second = self.confidence
        return (first.checked >= LEAST) & (second.checked >= LEAST)


@checked
def read(
    interpreter: Interpreter,
    old: Activity,
    items: Int[np.ndarray, " old"],
    new: Activity,
    new_items: Int[np.ndarray, " new"],
    *,
    top: Count,
    count: Count,
    seed: Natural,
) -> Read:
    """Concepts of units from some instances, and their confidence on each half of others.

    Args:
      interpreter: says concepts and predicts by them.
      old: activity on the instances that suggest concepts.
      items: the last item of each of them.
      new: activity on the others.
      new_items: the last item of each.
      top: instances from which a concept is read, each of an item of its own.
      count: active instances of a half on which it is checked, and as many inactive ones.
      seed: of the halves, and of the instances that are checked.
    """
    units, strong = strongest(one_per_item(old, items), top)
    concepts = interpreter.describe(items[strong])
    rng = np.random.default_rng(seed)
    first, second = np.array_split(rng.permutation(new.shape[0]), 2)

    def of(half: np.ndarray) -> Confidence:
        return confidence(interpreter, concepts, units, new, new_items, half, rng, count=count)

    return Read(units, concepts, new, (first, second), (of(first), of(second)))


class Confident(NamedTuple):
    """The most confident units and instances of the second half in which they are active."""

    units: Int[np.ndarray, " s"]
    concepts: Int[np.ndarray, " s"]
    """Their places among the concepts."""
    rows: Int[np.ndarray, "s n"]
    """-1 where there are fewer."""


@checked
def most_confident(found: Read, count: Count, seed: Natural, instances: Count = 24) -> Confident:
    """Judged units by confidence on the first half, with active instances of the second."""
    order = np.argsort(-np.where(found.judged, np.nan_to_num(found.confidence[0].low), -1.0), kind="stable")
    order = order[: min(count, int(found.judged.sum()))]
    inside = np.zeros(found.new.shape[0], bool)
    inside[found.halves[1]] = True
    part = found.new.tocsr().multiply(inside[:, None]).tocsc()
    part.eliminate_zeros()
    rows = stratified(np.random.default_rng(seed), part, found.units[order], instances)
    return Confident(found.units[order], order, rows)
