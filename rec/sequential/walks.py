"""Sequences with known concepts: a walk over groups of items.

A user stays in the group of the last item with probability ``stay`` and else jumps to a group drawn from preferences of
her own, p ~ Dirichlet(concentration); within a group items follow Zipf's law. The truth is the group of the last item.
"""

from typing import NamedTuple, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from core.checks import Count, Fraction, Natural, NonNegative, Positive, check_arguments, checked
from core.datasets.interactions import Sequences
from core.errors import ConfigError
from rec.sequential.histories import PAD


class World(NamedTuple):
    """How sequences come about."""

    users: Count = 5000
    items: Count = 1000
    groups: Count = 40
    stay: Fraction = 0.8
    concentration: Positive = 0.1
    shortest: Natural = 5
    more: NonNegative = 10.0
    """Mean of the Poisson number of items beyond the shortest length."""
    longest: Count = 40


class Walks(NamedTuple):
    """Drawn sequences and the truth about their items."""

    items: Int[Array, "users longest"]
    """Left-padded."""
    groups: Int[Array, " items"]
    """The group of each item; numbers of items tell nothing about it."""
    preferences: Float[Array, "users groups"]


@checked
def draw_walks(key: Key[Array, ""], world: World) -> Walks:
    """All sequences of a world, as a function of the key.

    Raises:
      ConfigError: for a world that cannot be.
    """
    check_arguments("World", get_type_hints(World, include_extras=True), world._asdict())
    if world.items % world.groups:
        raise ConfigError(f"{world.items} items cannot be shared equally by {world.groups} groups; choose a multiple")
    size = world.items // world.groups
    names, taste, lengths, steps = jax.random.split(key, 4)
    name = jax.random.permutation(names, world.items)
    preferences = jax.random.dirichlet(taste, jnp.full(world.groups, world.concentration), (world.users,))
    log_preferences = jnp.log(jnp.maximum(preferences, 1e-30))
    zipf = -jnp.log1p(jnp.arange(size, dtype=jnp.float32))

    def step(group, key):
        moves, jump, item = jax.random.split(key, 3)
        new = jax.random.categorical(jump, log_preferences, axis=-1)
        stays = jax.random.bernoulli(moves, world.stay, group.shape) & (group >= 0)
        group = jnp.where(stays, group, new)
        return group, name[group * size + jax.random.categorical(item, zipf, shape=group.shape)]

    nowhere = jnp.full(world.users, -1)
    _, items = jax.lax.scan(step, nowhere, jax.random.split(steps, world.longest))
    length = jnp.minimum(world.shortest + jax.random.poisson(lengths, world.more, (world.users,)), world.longest)
    there = jnp.arange(world.longest) >= world.longest - length[:, None]
    groups = jnp.zeros(world.items, jnp.int32).at[name].set(jnp.arange(world.items) // size)
    return Walks(jnp.where(there, items.T, PAD), groups, preferences)


@checked
def as_sequences(items: Int[Array, "users longest"], num_items: Count) -> Sequences:
    """Left-padded rows in the form of a data set; all but the last two items of a row are for training."""
    padded = np.asarray(items)
    lengths = (padded != PAD).sum(axis=1)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = padded[padded != PAD].astype(np.int32)
    return Sequences(indptr, flat, np.maximum(lengths - 2, 0).astype(np.int32), (len(padded), num_items))
