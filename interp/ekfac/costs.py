"""What the stages of EK-FAC cost on a decoder: operations, memory and seconds by width, depth, length and examples."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from core.bench import first_call
from core.checks import Count, checked
from core.learner import with_sampler
from core.lm import Decoder, DecoderConfig
from core.loop import scan_steps
from interp import ekfac
from interp.likelihoods import next_token_task

STAGES = ("covariances", "eigendecomposition", "eigenvalue correction", "scores")
VOCABULARY, BATCH, QUERIES = 64, 16, 8
WHERE = r"layers/(attention|mlp)/"


@checked
@dataclasses.dataclass(frozen=True)
class Size:
    """A decoder and its training set."""

    width: Count = 64
    depth: Count = 2
    length: Count = 64
    examples: Count = 64


class Stages:
    """The stages of one size as compiled functions."""

    def __init__(self, size: Size):
        model = Decoder(DecoderConfig(VOCABULARY, size.width, size.depth, size.width // 16, max_length=size.length))
        rng = np.random.default_rng(0)
        shape = (size.examples, size.length + 1)
        self.rows = {"tokens": rng.integers(VOCABULARY, size=shape).astype(np.int32), "mask": np.ones(shape, bool)}
        self.size, self.steps = size, -(-size.examples // BATCH)
        self.init = lambda: model.init(jax.random.key(0), self.rows["tokens"][0, :-1])["params"]
        task, example = next_token_task(model), jax.tree.map(lambda leaf: leaf[0], self.rows)
        self.found = found = ekfac.capture(task.outputs, jax.eval_shape(self.init), example, WHERE)
        self.stages = {
            "covariances": ekfac.covariance(found, task, ekfac.sampled()),
            "eigenvalue correction": ekfac.eigenvalue_correction(found, task, ekfac.sampled()),
        }
        self.scores = jax.jit(
            lambda params, prepared, rows: ekfac.in_batches(
                lambda batch: ekfac.pairwise(found, task, params, prepared, batch), rows, BATCH
            )
        )

    @functools.cached_property
    def at(self) -> dict[str, Any]:
        """By stage, where its gradients are taken: parameters, with bases for the second."""
        params, basis = jax.jit(self.init)(), ekfac.standard_basis(self.found)
        turned = {n: ekfac.Eigen(*_rotations(b), basis[n].values) for n, b in self.found.blocks.items()}
        return {"covariances": params, "eigenvalue correction": (params, turned)}

    @property
    def scored(self) -> tuple[Any, Any, Any]:
        """Arguments of the scores."""
        blocks = self.found.blocks.items()
        prepared = {n: jnp.ones((QUERIES, b.stack, b.rows, b.columns)) for n, b in blocks}
        return self.at["covariances"], prepared, jax.tree.map(jnp.asarray, self.rows)

    def passes(self, stage: str) -> tuple[Any, Any]:
        """One of the two passes over the data as a jitted function, and its arguments."""
        learner = with_sampler(self.stages[stage], ekfac.sweep(BATCH))
        data = jax.tree.map(jnp.asarray, ekfac.whole(self.at[stage], self.rows))
        start = jax.jit(learner.init)(jax.random.key(0), data)
        return jax.jit(scan_steps(learner, self.steps).update), (start, data)

    def operations(self) -> float:
        """Of the pass for covariances: those of one batch, as XLA counts them, times the number of batches."""
        learner = self.stages["covariances"]
        rows = jax.tree.map(lambda leaf: leaf[:BATCH], self.rows)
        batch = jax.eval_shape(lambda: ekfac.whole(self.init(), rows))
        state = jax.eval_shape(learner.init, jax.random.key(0), batch)
        counted: Any = jax.jit(learner.update).lower(state, batch).cost_analysis()
        return counted["flops"] * self.steps

    def temporary_bytes(self) -> int:
        """Memory that scoring takes beyond its arguments and results."""
        analysis: Any = self.scores.lower(*self.scored).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    def seconds(self, repeats: int = 5) -> dict[str, list[float]]:
        """Of every stage, compiled, once per repeat."""
        found: dict[str, list[float]] = {}
        sums = None
        for stage in ("covariances", "eigenvalue correction"):
            run, arguments = self.passes(stage)
            state, _ = run(*arguments)
            sums = state if stage == "covariances" else sums
            found[stage] = _timed(lambda run=run, arguments=arguments: run(*arguments)[0].examples, repeats)
        found["eigendecomposition"] = _timed(lambda: ekfac.eigenbasis(self.found, sums), repeats)  # type: ignore[arg-type]
        arguments = self.scored
        self.scores(*arguments)
        found["scores"] = _timed(lambda: self.scores(*arguments), repeats)
        return {stage: found[stage] for stage in STAGES}


def _timed(fn: Any, repeats: int) -> list[float]:
    return [first_call(fn) for _ in range(repeats)]


def _rotations(block: ekfac.Block):
    rng = np.random.default_rng(0)

    def basis(width):
        each = [np.linalg.qr(rng.normal(size=(width, width)))[0] for _ in range(block.stack)]
        return jnp.asarray(np.stack(each)[:, None], jnp.float32)

    return basis(block.rows), basis(block.columns)
