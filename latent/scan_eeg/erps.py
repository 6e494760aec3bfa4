"""A generator of event-related potentials with planted clinical factors.

Two conditions (neutral, positive) at three midline sites, 256 samples of 4 ms from -248 ms:

    ERP = N1 + P2 + P3 + condition * LPP + drift,   g(m, s) = exp(-(t - m)^2 / 2 s^2)

Age delays N1 and P3, sex changes N1's amplitude, anxiety P2's and depression the late positive potential (LPP). Trials
add pink noise and alpha waves, half common to the sites.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from core.checks import Count, checked
from core.learner import stream

TIMES = -248.0 + 4.0 * jnp.arange(256)
"""ms after stimulus onset."""
SITES = ("Fz", "Cz", "Pz")
CONDITIONS = ("neutral", "positive")
LABELS = ("age", "sex", "depression", "anxiety", "random")
FACTORS = ("N1 latency", "N1 amplitude", "P2 amplitude", "P3 amplitude", "LPP amplitude", "drift")
_WEIGHTS = jnp.array([[1.0, 0.8, 0.5], [0.9, 1.0, 0.6], [0.4, 0.7, 1.0], [0.4, 0.8, 1.0], [1.0, 1.0, 1.0]])
"""Of N1, P2, P3, LPP and drift at the sites."""


class People(NamedTuple):
    """Who they are, and the factors of their ERPs in the order of ``FACTORS``."""

    age: Float[Array, " n"]
    sex: Int[Array, " n"]
    depression: Int[Array, " n"]
    anxiety: Int[Array, " n"]
    random: Int[Array, " n"]
    """A label which nothing in the ERP depends on."""
    factors: Float[Array, "n 6"]

    def labels(self) -> Int[Array, "n 5"]:
        """In the order of ``LABELS``; age is split at the middle of its range, its population median."""
        old = (self.age > 46.5).astype(jnp.int32)
        return jnp.stack([old, self.sex, self.depression, self.anxiety, self.random], axis=1)


class Recording(NamedTuple):
    """What is measured of each person, and what would be without noise; baseline-corrected."""

    erp: Float[Array, "n 6 256"]
    single: Float[Array, "n kept 6 256"]
    """The first trials of the average."""
    clean: Float[Array, "n 6 256"]


@checked
def draw_people(key: Key[Array, ""], n: Count) -> People:
    """Independent people."""
    keys = jax.random.split(key, 6)
    age = jax.random.uniform(keys[0], (n,), minval=18.0, maxval=75.0)
    odds = zip(keys[1:5], (0.5, 0.4, 0.4, 0.5), strict=True)
    sex, depression, anxiety, random = (jax.random.bernoulli(k, p, (n,)).astype(jnp.int32) for k, p in odds)
    e = jax.random.normal(keys[5], (6, n))
    factors = [
        125 + 28 * (age - 46) / 28 + 6 * e[0],
        -5 - 2.6 * sex + 1.2 * e[1],
        4 - 2.6 * anxiety + 1.2 * e[2],
        7 + 2 * e[3],
        3.5 - 3 * depression + 1.2 * e[4],
        2.5 * e[5],
    ]
    return People(age, sex, depression, anxiety, random, jnp.stack(factors, axis=1))


def clean_erps(people: People) -> Float[Array, "n 6 256"]:
    """Neutral sites, then positive ones, without noise; not baseline-corrected."""
    latency, n1, p2, p3, lpp, slope = (column[:, None] for column in people.factors.T)
    t, late = TIMES[None], 15 * (people.age[:, None] - 46) / 28
    waves = [
        n1 * _bump(t, latency, 28),
        p2 * _bump(t, latency + 95, 38),
        p3 * _bump(t, 350 + late, 80),
        lpp * jax.nn.sigmoid((t - 380) / 40) * jnp.exp(-jnp.maximum(t - 600, 0) / 500),
        slope * t / 1000,
    ]
    at_sites = jnp.stack(waves)[:, :, None, :] * _WEIGHTS[:, None, :, None]
    neutral = at_sites.at[3].set(0).sum(0)
    return jnp.concatenate([neutral, at_sites.sum(0)], axis=1)


def _bump(t, centre, width):
    return jnp.exp(-((t - centre) ** 2) / (2 * width**2))


@checked
def noise(key: Key[Array, ""], trials: Count) -> Float[Array, "trials 6 256"]:
    """Pink noise of deviation 4.5 and alpha waves of amplitude 3; 0.6 of what is common to sites + 0.8 of one's own."""
    pink_key, phase_key = jax.random.split(key)
    shape = (trials, 2, 4)
    frequencies = jnp.maximum(jnp.fft.rfftfreq(256, 4e-3), 0.8)
    parts = jax.random.normal(pink_key, (2, *shape, frequencies.shape[0])) / frequencies
    pink = jnp.fft.irfft(jax.lax.complex(parts[0], parts[1]), 256)
    pink = 4.5 * pink / jnp.std(pink, axis=-1, keepdims=True)
    phase = jax.random.uniform(phase_key, (*shape, 1), maxval=2 * jnp.pi)
    traces = pink + 3 * jnp.sin(2 * jnp.pi * 10 * TIMES / 1000 + phase)
    return (0.6 * traces[:, :, :1] + 0.8 * traces[:, :, 1:]).reshape(trials, 6, 256)


@checked
def record(key: Key[Array, ""], people: People, trials: Count = 40, kept: Count = 8) -> Recording:
    """Averages of ``trials`` trials per person and condition, with the first ``kept`` of them."""
    clean = clean_erps(people)

    def single(arguments):
        one_key, signal = arguments
        measured = baseline_corrected(signal + noise(one_key, trials))
        return measured.mean(0), measured[:kept]

    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(clean.shape[0]))
    erp, first = jax.lax.map(single, (keys, clean), batch_size=25)
    return Recording(erp, first, baseline_corrected(clean))


def baseline_corrected(x: Float[Array, "*b 256"]) -> Float[Array, "*b 256"]:
    """Less the mean before the stimulus."""
    return x - jnp.mean(x[..., :62], axis=-1, keepdims=True)


def scaled(train: Float[Array, "n c t"], *others: Float[Array, "..."]) -> tuple[Float[Array, "..."], ...]:
    """All divided by the one standard deviation of the first: amplitudes between people stay what they are."""
    scale = jnp.std(train)
    return tuple(x / scale for x in (train, *others))


class World(NamedTuple):
    """People with averages and single trials, in units of the training averages' deviation."""

    erp: Float[Array, "people 6 256"]
    single: Float[Array, "people kept 6 256"]
    clean: Float[Array, "people 6 256"]
    labels: Int[Array, "people 5"]
    factors: Float[Array, "people 6"]


class Worlds(NamedTuple):
    """Those to learn from, and others for testing."""

    train: World
    test: World


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def draw_world(seed: int, train: int, test: int, trials: int, kept: int) -> Worlds:
    """The people of a seed.

    Args:
      seed: of people and noise.
      train: how many to learn from.
      test: how many for testing.
      trials: per average.
      kept: of these as single trials.
    """
    people_key, noise_key = jax.random.split(stream(jax.random.key(seed), "world"))
    people = draw_people(people_key, train + test)
    recording = record(noise_key, people, trials, kept)
    _, erp, single, clean = scaled(recording.erp[:train], *recording)
    whole = World(erp, single, clean, people.labels(), people.factors)
    first: World = jax.tree.map(lambda leaf: leaf[:train], whole)
    rest: World = jax.tree.map(lambda leaf: leaf[train:], whole)
    return Worlds(first, rest)
