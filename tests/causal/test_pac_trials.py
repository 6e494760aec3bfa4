"""Trials on random SEMs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal import pac_invariance as pac
from causal.linear_sems import population, soft


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def test_random_tasks_have_a_target_with_parents_and_sites_that_have_some():
    tasks = jax.jit(jax.vmap(lambda key: pac.random_task(key, 8, 3)))(jax.random.split(jax.random.key(0), 50))
    B, sites = np.asarray(tasks.sem.B), np.asarray(tasks.sites)
    has_parents = (B != 0).any(axis=2)
    assert has_parents[:, -1].all()
    assert not sites[:, -1].any()
    assert (sites.sum(axis=1) == 3).all()
    enough = has_parents[:, :-1].sum(axis=1) >= 3
    assert enough.any()
    assert not (sites & ~has_parents)[enough].any()


def test_only_the_subsets_that_pass_every_one_of_the_first_environments_count():
    distance = np.array([[[0.1, 0.9], [0.1, 0.1], [0.9, 0.1]]])
    found = pac.worst_that_passes(distance, np.array([0.3, 0.7]), (1, 2, 3), 0.5)
    np.testing.assert_array_equal(found, [[0.3, 0.3, 0.0]])


def test_distances_vanish_for_subsets_that_are_invariant():
    sem = pac.figure_sem()
    found = pac.repeated_distances(soft(sem, pac.figure_sites()), sem, pac.TARGET, 3, block=2)(jax.random.key(0), 4)
    masks = np.asarray(pac.feature_masks(7, pac.TARGET))
    parents = [i for i, mask in enumerate(masks) if set(np.flatnonzero(mask)) == {1, 3}]
    assert found.shape == (4, 3, 63)
    assert found[:, :, parents].max() < 1e-6
    assert found.max() > 0.1


def test_noise_on_mixtures_breaks_invariance_that_holds_without():
    sem, mask = pac.figure_sem(), jnp.isin(jnp.arange(7), jnp.asarray([1, 3]))
    spread = pac.noisy_mixing(sem, soft(sem, pac.figure_sites()), pac.TARGET, mask, 9, 20)
    none, some = jax.jit(spread)(jax.random.key(0), jnp.asarray([0.0, 1e-3]))
    assert none < 1e-9
    assert some > 1e-3


def test_survivors_hold_the_true_pair_where_one_is_invariant():
    B = jnp.zeros((4, 4)).at[3, 0].set(1.0).at[3, 1].set(1.0).at[2, 3].set(1.0)
    sem = pac.figure_sem()._replace(B=B, mean=jnp.zeros(4), scale=jnp.eye(4))
    moments = jax.vmap(population)(
        jax.vmap(lambda s: sem._replace(scale=jnp.diag(jnp.asarray([s, 1.0, s, 1.0]))))(jnp.asarray([0.5, 1.0, 2.0]))
    )
    found = pac.survivors(moments._replace(n=jnp.full(3, 1e4)), 0.05)
    np.testing.assert_array_equal(found["pair of least spread"], [True, True, False, False])
    assert int(found["pair of least pooled error"].sum()) == 2
