"""What the stages cost as width, depth, length and number of training examples grow."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from core.bench import first_call
from core.learner import with_sampler
from core.lm import Decoder, DecoderConfig
from core.loop import scan_steps
from experiments.influence.problems import sequence_task
from experiments.system import Context
from interp import ekfac

DATASET = "cost"
STAGES = ("covariances", "eigendecomposition", "eigenvalue correction", "scores")
VOCABULARY, BATCH, QUERIES = 64, 16, 8


@dataclasses.dataclass(frozen=True)
class Size:
    """A decoder and its training set."""

    width: int = 64
    depth: int = 2
    length: int = 64
    examples: int = 64


GROWN: dict[str, tuple[int, ...]] = {
    "width": (64, 128, 256), "depth": (1, 2, 4), "length": (32, 64, 128), "examples": (64, 128, 256),
}  # fmt: skip
"""By axis, the values that it takes while the others stay."""


class Stages:
    """The stages of one size as compiled functions."""

    def __init__(self, size: Size):
        model = Decoder(DecoderConfig(VOCABULARY, size.width, size.depth, size.width // 16, max_length=size.length))
        rng = np.random.default_rng(0)
        shape = (size.examples, size.length + 1)
        rows = {"tokens": jnp.asarray(rng.integers(VOCABULARY, size=shape), jnp.int32), "mask": jnp.ones(shape, bool)}
        params = jax.jit(model.init)(jax.random.key(0), rows["tokens"][0, :-1])["params"]
        task, example = sequence_task(model), jax.tree.map(lambda leaf: leaf[0], rows)
        found = ekfac.capture(task.outputs, params, example, r"layers/(attention|mlp)/")
        prepared = {n: jnp.ones((QUERIES, b.stack, b.rows, b.columns)) for n, b in found.blocks.items()}
        self.size, self.found, self.data = size, found, ekfac.whole(params, rows)
        basis = ekfac.standard_basis(found)
        turned = {n: ekfac.Eigen(*_rotations(b), basis[n].values) for n, b in found.blocks.items()}
        self.steps = ekfac.steps_of(self.data, BATCH)
        self.cover = ekfac.covariance(found, task, ekfac.sampled())
        self.correct = ekfac.eigenvalue_correction(found, task, ekfac.sampled())
        self.at = {"covariances": params, "eigenvalue correction": (params, turned)}
        self.scores = jax.jit(
            lambda params, prepared, rows: ekfac.in_batches(
                lambda batch: ekfac.pairwise(found, task, params, prepared, batch), rows, BATCH
            )
        )
        self.scored = params, prepared, rows

    def passes(self, stage: str) -> tuple[Any, Any]:
        """One of the two passes over the data as a jitted function, and its arguments."""
        learner = with_sampler({"covariances": self.cover, "eigenvalue correction": self.correct}[stage],
                               ekfac.sweep(BATCH))  # fmt: skip
        data = jax.tree.map(jnp.asarray, self.data._replace(params=self.at[stage]))
        start = jax.jit(learner.init)(jax.random.key(0), data)
        return jax.jit(scan_steps(learner, self.steps).update), (start, data)

    def flops(self, stage: str) -> float:
        """Of one batch, as XLA counts them, times the number of batches."""
        learner = {"covariances": self.cover, "eigenvalue correction": self.correct}[stage]
        rows = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:BATCH], self.data._replace(params=None))
        batch = rows._replace(params=self.at[stage])
        state = jax.eval_shape(learner.init, jax.random.key(0), batch)
        counted: Any = jax.jit(learner.update).lower(state, batch).compile().cost_analysis()
        return counted["flops"] * self.steps

    def temporary_bytes(self) -> int:
        """Memory that scoring takes beyond its arguments and results."""
        analysis: Any = self.scores.lower(*self.scored).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    def seconds(self) -> dict[str, float]:
        """Of every stage, compiled: the best of three."""
        found: dict[str, float] = {}
        sums = None
        for stage in ("covariances", "eigenvalue correction"):
            run, arguments = self.passes(stage)
            state, _ = run(*arguments)
            sums = state if stage == "covariances" else sums
            found[stage] = best_of(lambda run=run, arguments=arguments: run(*arguments)[0].examples)
        found["eigendecomposition"] = best_of(lambda: ekfac.eigenbasis(self.found, sums))  # type: ignore[arg-type]
        self.scores(*self.scored)
        found["scores"] = best_of(lambda: self.scores(*self.scored))
        return {stage: found[stage] for stage in STAGES}


def study(config: Any, context: Context, seed: int) -> None:
    """Notes seconds and slopes along every axis."""
    del config
    note = functools.partial(context.record, dataset=DATASET, seed=seed)
    for axis, values in GROWN.items():
        measured = []
        for value in values:
            measured.append(Stages(dataclasses.replace(Size(), **{axis: value})).seconds())
            for stage, seconds in measured[-1].items():
                note(method=f"{axis} {value}", metric=f"{stage}, s", value=seconds)
        for stage in STAGES:
            slope = float(np.polyfit(np.log(values), np.log([m[stage] for m in measured]), 1)[0])
            note(method=f"slope in {axis}", metric=f"{stage}, s", value=slope)


def best_of(fn: Any, repeats: int = 3) -> float:
    """Seconds of the fastest of some calls."""
    return min(first_call(fn) for _ in range(repeats))


def _rotations(block: ekfac.Block):
    rng = np.random.default_rng(0)

    def basis(width):
        each = [np.linalg.qr(rng.normal(size=(width, width)))[0] for _ in range(block.stack)]
        return jnp.asarray(np.stack(each)[:, None], jnp.float32)

    return basis(block.rows), basis(block.columns)
