"""What holds for every learner: one result however it is dispatched, one compilation, any platform."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core.learner import replicate_seeds, seed_keys
from core.loop import scan_steps
from core.parallel import data_mesh, data_parallel, pmap_parallel, unreplicate
from tests.examples import EXAMPLES

STEPS = 3


VARIANTS = {
    "bert4rec",
    "gru4rec",
    "sgl",
    "simgcl",
    "growth_direct",
    "sae_batch_topk",
    "sae_gated",
    "sae_transcoder",
    "sasrec_prenorm",
    "label_diffusion",
    "scm_vae",
    "scan_operators",
    "rep4ex_features",
    "rep4ex_constrained",
    "rep4ex_ivae",
    "effect_clusters_relaxed",
    "tarnet",
}
"""Learners that share their training step with another example; slow ones, for the time that compiling them takes."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name in VARIANTS)) for name in sorted(EXAMPLES)],
)
def example(request):
    return EXAMPLES[request.param]()


class Plain(NamedTuple):
    """A few jitted steps."""

    start: Any
    end: tuple[Any, Any]
    """State and metrics."""
    traces: int
    """How often the update was traced."""


@pytest.fixture(scope="module")
def plain(example):
    traces = []

    def update(state, batch):
        traces.append(1)
        return example.learner.update(state, batch)

    start = jax.jit(example.learner.init)(example.key, example.batch)
    return Plain(start, run(jax.jit(update), start, example.batch), len(traces))


def run(update, state, batch):
    metrics = {}
    for _ in range(STEPS):
        state, metrics = update(state, batch)
    return state, metrics


def assert_trees_close(a, b, rtol=2e-4, atol=2e-6):
    def compare(x, y):
        if jnp.issubdtype(jnp.asarray(x).dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=rtol, atol=atol)

    jax.tree.map(compare, a, b)


def test_update_is_compiled_once(plain):
    assert plain.traces == 1


@pytest.mark.parametrize("loop", ["scan", "host", pytest.param("unroll", marks=pytest.mark.slow)])
def test_every_loop_gives_the_same_result(example, plain, loop):
    looped = scan_steps(example.learner, STEPS, loop=loop)
    update = looped.update if loop == "host" else jax.jit(looped.update)
    state, metrics = update(jax.tree.map(jnp.copy, plain.start), example.batch)  # the host loop consumes its state
    assert_trees_close(state, plain.end[0])
    assert_trees_close(jax.tree.map(lambda leaf: leaf[-1], metrics), plain.end[1])


def test_mesh_equals_jit(example, plain):
    learner = data_parallel(example.learner, data_mesh(), example.batch_axes)
    assert jax.device_count() == 4
    state, metrics = run(learner.update, learner.init(example.key, example.batch), example.batch)
    assert_trees_close(state, plain.end[0])
    assert_trees_close(metrics, plain.end[1])


def test_pmap_equals_jit(example, plain):
    learner = pmap_parallel(example.learner, example.batch_axes)
    state, metrics = run(learner.update, learner.init(example.key, example.batch), example.batch)
    assert_trees_close(unreplicate(state), plain.end[0])
    assert_trees_close(jax.tree.map(lambda leaf: leaf[3], state), plain.end[0])
    assert_trees_close(metrics, plain.end[1])


def test_seeds_by_vmap_equal_single_runs(example, plain):
    learner = replicate_seeds(example.learner, 2)
    keys = jnp.stack([example.key, jax.random.key(17)])
    state, metrics = run(jax.jit(learner.update), jax.jit(learner.init)(keys, example.batch), example.batch)
    assert_trees_close(jax.tree.map(lambda leaf: leaf[0], state), plain.end[0])
    assert_trees_close(jax.tree.map(lambda leaf: leaf[0], metrics), plain.end[1])


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_update_lowers_for_every_platform(example, platform):
    state = jax.eval_shape(example.learner.init, example.key, example.batch)
    lowered = jax.jit(example.learner.update).trace(state, example.batch).lower(lowering_platforms=(platform,))
    assert "func.func public @main" in lowered.as_text()


def test_seed_keys_are_the_keys_of_the_seeds():
    keys = seed_keys([3, 5])
    assert (jax.random.key_data(keys[1]) == jax.random.key_data(jax.random.key(5))).all()
