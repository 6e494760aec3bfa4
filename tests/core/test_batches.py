import json

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from hypothesis import given, settings

from core.batches import GrainBatches, common_length, epoch_sampler, permuted
from core.errors import ConfigError, DataError
from core.fit import fit
from core.learner import gradient_learner, replicate_seeds, seed_keys, with_sampler


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 300), st.integers(0, 2**31))
def test_permuted_is_a_permutation_of_any_size(size, seed):
    image = permuted(jax.random.key(seed), jnp.arange(size), size)
    assert sorted(image.tolist()) == list(range(size))


@pytest.mark.parametrize("size", [3, 6, 8, 16])
def test_every_pair_of_images_is_equally_likely(size):
    draws = 20_000
    keys = jax.random.split(jax.random.key(0), draws)
    images = jax.vmap(lambda key: permuted(key, jnp.arange(size), size))(keys)
    counts = np.bincount(images[:, 0] * size + images[:, 1], minlength=size**2).reshape(size, size)
    off_diagonal = counts[~np.eye(size, dtype=bool)]
    assert not counts.trace()
    assert scipy.stats.chisquare(off_diagonal).pvalue > 0.001


def test_an_epoch_visits_every_example_once_and_epochs_differ():
    data = {"x": jnp.arange(12), "y": jnp.arange(12) * 2}
    sample = jax.jit(epoch_sampler(4))
    batches = [sample(data, jax.random.key(3), step) for step in range(6)]
    first, second = (np.concatenate([b["x"] for b in batches[i : i + 3]]) for i in (0, 3))
    assert sorted(first) == sorted(second) == list(range(12))
    assert list(first) != list(second)
    assert all((b["y"] == 2 * b["x"]).all() for b in batches)


def test_the_last_partial_batch_is_left_out_and_no_example_repeats():
    sample = jax.jit(epoch_sampler(4))
    seen = np.concatenate([sample(jnp.arange(11), jax.random.key(0), step) for step in range(2)])
    assert len(set(seen.tolist())) == 8


def test_padding_behind_the_examples_is_never_drawn():
    sample = jax.jit(epoch_sampler(3, num_examples=9))
    seen = np.concatenate([sample(jnp.arange(16), jax.random.key(0), step) for step in range(3)])
    assert sorted(seen) == list(range(9))
    with pytest.raises(ConfigError, match="17 examples cannot be drawn from 16"):
        epoch_sampler(3, num_examples=17)(jnp.arange(16), jax.random.key(0), 0)


def test_arrays_of_the_host_closed_over_by_a_jitted_step_are_drawn_from():
    data, sample = np.arange(8), epoch_sampler(8)
    assert sorted(jax.jit(lambda key, step: sample(data, key, step))(jax.random.key(0), 1)) == list(range(8))


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ConfigError, match="13 examples cannot be drawn from 12"):
        epoch_sampler(13)(jnp.arange(12), jax.random.key(0), 0)


def test_arrays_of_unequal_length_are_refused_by_name():
    with pytest.raises(DataError, match=r"'y': \(3,\)"):
        common_length({"x": jnp.zeros(4), "y": jnp.zeros(3)})


def mean_learner():
    def loss(params, key, batch):
        return jnp.mean((params - batch["x"]) ** 2), {}

    return gradient_learner(lambda key, batch: jnp.zeros(()), loss, optax.sgd(0.1))


def test_seeds_draw_their_own_epochs():
    learner = replicate_seeds(with_sampler(mean_learner(), epoch_sampler(2)), 2)
    data = {"x": jnp.arange(8.0)}
    state, _ = fit(learner, data, key=seed_keys([0, 1]), steps=3)
    single, _ = fit(with_sampler(mean_learner(), epoch_sampler(2)), data, key=jax.random.key(1), steps=3)
    np.testing.assert_allclose(state.params[1], single.params, rtol=1e-6)
    assert state.params[0] != state.params[1]


SOURCE = [{"x": np.float32(i)} for i in range(20)]


@pytest.mark.parametrize("position", [0, 2, 3, 7])
def test_grain_batches_resume_at_any_position_across_epochs(position):
    batches = GrainBatches(SOURCE, 6, seed=5)
    for _ in range(position):
        next(batches)
    saved = json.loads(json.dumps(batches.get_state()))
    expected = [next(batches)["x"] for _ in range(5)]
    resumed = GrainBatches(SOURCE, 6, seed=5)
    resumed.set_state(saved)
    for batch in expected:
        np.testing.assert_array_equal(next(resumed)["x"], batch)


def test_grain_epochs_visit_each_example_once_in_new_orders():
    batches = GrainBatches(SOURCE, 5, seed=1)
    epochs = [np.concatenate([next(batches)["x"] for _ in range(4)]) for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20))
    assert list(epochs[0]) != list(epochs[1])


def test_processes_read_disjoint_shares():
    shares = [
        {float(x) for _ in range(5) for x in next(b)["x"]}
        for b in [GrainBatches(SOURCE, 2, shard=(i, 2)) for i in (0, 1)]
    ]
    assert not shares[0] & shares[1]
    assert len(shares[0] | shares[1]) == 20


def test_processes_begin_each_epoch_together_where_shares_are_unequal():
    source = [{"x": np.float32(i)} for i in range(11)]
    first, second = (GrainBatches(source, 1, shard=(i, 2)) for i in (0, 1))
    for _ in range(6):
        epoch = [float(next(b)["x"][0]) for _ in range(5) for b in (first, second)]
        assert len(set(epoch)) == 10


def test_threads_change_nothing():
    batches = [GrainBatches(SOURCE, 6, seed=2, threads=threads) for threads in (0, 3)]
    for _ in range(7):
        np.testing.assert_array_equal(*(next(b)["x"] for b in batches))
    assert batches[0].get_state() == batches[1].get_state()


def test_too_few_examples_for_a_batch_are_refused():
    with pytest.raises(ConfigError, match="20 in 4 shards"):
        GrainBatches(SOURCE, 6, shard=(0, 4))


def test_training_from_grain_resumes_to_the_same_bits(tmp_path):
    def train(steps, workdir=None):
        return fit(
            mean_learner(), GrainBatches(SOURCE, 4), key=jax.random.key(0), steps=steps, workdir=workdir, chunk=3
        )

    train(6, tmp_path)
    assert train(18, tmp_path).state.params == train(18).state.params
