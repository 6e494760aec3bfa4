"""What holds for every learner: one result however it is dispatched, one compilation, any platform."""

import re
from collections import Counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core.layout import lay_out
from core.learner import accumulate, replicate_seeds, seed_keys
from core.loop import scan_steps
from core.parallel import data_mesh, data_parallel, pmap_parallel, unreplicate
from tests.examples import EXAMPLES
from tests.keys import drawn_twice, draws

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
    "drawn_points",
    "discs",
    "rep4ex_features",
    "rep4ex_constrained",
    "rep4ex_ivae",
    "effect_clusters_relaxed",
    "tarnet",
    "engression",
    "outcome_regression",
    "additive_regression",
    "effect_regression",
    "scan_symbols",
    "scan_supervised",
    "pool_of_codes",
    "pool_of_vaes",
    "sae_sweep",
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


def test_no_key_serves_two_draws(example):
    state = jax.eval_shape(example.learner.init, example.key, example.batch)
    for fn, start in ((example.learner.init, example.key), (example.learner.update, state)):
        assert not drawn_twice(draws(fn, start, example.batch))


def test_scanned_steps_equal_single_ones(example, plain):
    state, metrics = jax.jit(scan_steps(example.learner, STEPS).update)(plain.start, example.batch)
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


FEWER_DEVICES = {
    **dict.fromkeys(
        ("jepa", "jepa_averaged_target", "mae"), (1, "moments of the population, which no axis of examples adds up")
    ),
    "pool_of_clusters": (2, "two runs; the examples of a batch lie along different axes of its leaves"),
}
"""Learners that do not use all four devices, how many they use, and why."""

SEVERAL_EXCHANGES = {
    **dict.fromkeys(("lightgcn", "dgcf"), "sums over the edges of a graph, which devices share"),
    **dict.fromkeys(("dccf", "sgl", "simgcl"), "edges, and a contrast with all examples of the batch"),
    **dict.fromkeys(("rep4ex", "rep4ex_constrained", "rep4ex_features", "rep4ex_ivae"), "moments of the global batch"),
    **dict.fromkeys(("sae_topk", "sae_batch_topk", "sae_gated", "sae_transcoder"), "variance of the global batch"),
    **dict.fromkeys(("bert4rec", "gru4rec", "sasrec", "sasrec_prenorm"), "the number of places with a target"),
    **dict.fromkeys(("effect_clusters", "effect_clusters_relaxed", "tarnet"), "standardisation by the global batch"),
    "regression_stopped": "the score of held-out examples",
    "causal_diffae": "the number of labelled examples",
    **dict.fromkeys(("pool_of_codes", "pool_of_vaes", "pool_of_clusters"), "metrics of all runs"),
    "sae_sweep": "variance of the global batch",
    "growth_em": "maximisations that follow one another",
    "ekfac_top": "scores of all examples, to be ranked",
}
"""Learners whose step asks more of the other devices than their gradients, and for what."""


def exchanges(program: str) -> Counter:
    """How often devices exchange what, by the compiled program."""
    kinds = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
    return Counter(re.findall(rf" ({kinds})(?:-start)?\(", program))


def test_all_devices_share_a_step_and_exchange_gradients_once(request, example, plain):
    name = request.node.callspec.params["example"]
    laid = lay_out(example.learner, plain.start, example.batch)
    assert laid.devices == (FEWER_DEVICES[name][0] if name in FEWER_DEVICES else 4)
    start = jax.tree.map(jnp.copy, plain.start)  # the step takes the memory of what it is given
    state, batch = laid.place_state(start), laid.place_data(example.batch)
    update = laid.program(1, False).lower(state, batch).compile()
    if name not in SEVERAL_EXCHANGES:
        assert exchanges(update.as_text()) == ({"all-reduce": 1} if laid.devices > 1 else {})
    state, metrics = run(update, state, batch)
    assert_trees_close(laid.local(state), plain.end[0])
    assert_trees_close(jax.tree.map(lambda leaf: leaf[-1], metrics), plain.end[1])


def test_a_pool_over_devices_equals_single_runs(example, plain):
    pool = replicate_seeds(example.learner, 6)
    start = jax.jit(pool.init)(jnp.stack([example.key, *jax.random.split(jax.random.key(17), 5)]), example.batch)
    laid = lay_out(pool, start, example.batch)
    state, metrics = laid.program(STEPS, False)(laid.place_state(start), laid.place_data(example.batch))
    assert jax.tree.leaves(metrics)[0].shape[:2] == (STEPS, 6)
    assert_trees_close(jax.tree.map(lambda leaf: leaf[0], laid.local(state)), plain.end[0])
    assert_trees_close(jax.tree.map(lambda leaf: leaf[-1, 0], metrics), plain.end[1])


IN_PASSES = {"gpfa": {"all-reduce": 1, "all-gather": 2}, "mm_gpvae": {"all-reduce": 2}}
"""Exchanges of learners whose passes XLA's partitioner does not reduce to one sum of gradients."""


@pytest.mark.slow
def test_a_step_in_passes_gathers_no_batch_on_a_mesh(request, example, plain):
    name = request.node.callspec.params["example"]
    if not hasattr(example.learner, "gradients") or name in FEWER_DEVICES or name in SEVERAL_EXCHANGES:
        pytest.skip("its step is no sum of gradients over examples")
    learner = data_parallel(accumulate(example.learner, 2, example.batch_axes), data_mesh(), example.batch_axes)
    program = learner.update.lower(jax.tree.map(jnp.copy, plain.start), example.batch).compile()
    assert exchanges(program.as_text()) == IN_PASSES.get(name, {"all-reduce": 1})


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_update_lowers_for_every_platform(example, platform):
    state = jax.eval_shape(example.learner.init, example.key, example.batch)
    lowered = jax.jit(example.learner.update).trace(state, example.batch).lower(lowering_platforms=(platform,))
    assert "func.func public @main" in lowered.as_text()


def test_seed_keys_are_the_keys_of_the_seeds():
    keys = seed_keys([3, 5])
    assert (jax.random.key_data(keys[1]) == jax.random.key_data(jax.random.key(5))).all()
