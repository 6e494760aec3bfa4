"""The data of several seeds, which are trained as one program: shared, or a draw of each seed's own, stacked."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from core.checks import Fraction, checked
from core.datasets.interactions import Interactions, hold_out
from core.learner import Params
from rec.graph import RecGraph
from rec.intents import Intents
from rec.ranking import HeldOut, Ranking


class Draw(NamedTuple):
    """A data set, with what is known about it."""

    interactions: Interactions
    truth: Intents | None = None
    false_edges: Bool[np.ndarray, " train"] | None = None
    split: Interactions | None = None
    """The training items apart, some of them as test part, where these choose when to stop."""
    kept: Bool[np.ndarray, " train"] | slice = slice(None)
    """Which of the training items are learned from."""

    @property
    def learned(self) -> Interactions:
        """What models are trained on."""
        return self.split or self.interactions

    @property
    def shape(self) -> tuple[int, ...]:
        """Draws of equal shape can be stacked."""
        if self.split is None:
            return (len(self.interactions.train_items),)
        learned, held_out = np.diff(self.split.train_indptr), np.diff(self.split.test_indptr)
        return int(learned.sum()), int(learned.max()).bit_length(), int(np.count_nonzero(held_out)), int(held_out.sum())

    @checked
    def held_out(self, share: Fraction) -> "Draw":
        """The same data with a share of the training items held out, the same for all seeds of one data set."""
        split, kept = hold_out(self.interactions, share)
        return self._replace(split=split, kept=kept)


class Sample(NamedTuple):
    """The data of some seeds: each its own draw of equal shape, or all the same."""

    seeds: tuple[int, ...]
    draws: tuple[Draw, ...]

    @property
    def is_shared(self) -> bool:
        """Whether all seeds train on the same data."""
        return all(draw is self.draws[0] for draw in self.draws)

    def of(self, seeds: tuple[int, ...]) -> "Sample":
        """The part of some seeds."""
        return Sample(seeds, tuple(self.draws[self.seeds.index(seed)] for seed in seeds))

    def of_equal_shape(self) -> list["Sample"]:
        """The seeds that one program can train together: false edges and held-out items may differ in number."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for seed, draw in zip(self.seeds, self.draws, strict=True):
            groups.setdefault(draw.shape, []).append(seed)
        return [self.of(tuple(seeds)) for seeds in groups.values()]

    def each(self, build: Callable[[Interactions], Any]) -> list[Any]:
        """What is built from the learned data of every seed; one where they are shared."""
        return [build(draw.learned) for draw in (self.draws[:1] if self.is_shared else self.draws)]

    def stacked(self, built: list[Any]) -> Any:
        """The same as one tree, stacked where seeds differ."""
        return built[0] if self.is_shared else jax.tree.map(lambda *leaves: jnp.stack(leaves), *built)


def validation(
    sample: Sample, apply: Callable[..., Any], graph: RecGraph, metric: str
) -> tuple[Callable[[Params, Any], Float[Array, " seeds"]], Any]:
    """How held-out training items are ranked, as :func:`core.early_stopping.stop_by_validation` takes it.

    Args:
      sample: draws with items held out.
      apply: ``(params, graph) -> nodes`` (:class:`rec.graph.Nodes`).
      graph: of the learned items, stacked where seeds differ.
      metric: of :class:`rec.ranking.Ranking`, e.g. "ndcg@20".

    Returns:
      ``(params, data) -> means over users, by seed`` for stacked params, and the data.
    """
    ranking = Ranking(sample.draws[0].learned)

    def one(own: Any) -> Float[Array, ""]:
        params, (graph, held_out) = own
        return jnp.mean(ranking.on_device(apply(params, graph), held_out)[metric])

    def score(params: Params, data: Any) -> Float[Array, " seeds"]:
        if sample.is_shared:
            return jax.lax.map(lambda own: one((own, data)), params)
        return jax.lax.map(one, (params, data))

    return score, (graph, sample.stacked(sample.each(HeldOut.build)))
