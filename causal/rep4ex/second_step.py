"""Step 2 on arrays, whatever the codes came from: a ridge on random Fourier features in float64, and its questions.

It is solved anew for every question, so that what is kept is a pytree of arrays. Numbers of actions are rounded up to a
power of two, each of which is compiled once.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from causal.rep4ex.control import (
    NOTHING,
    Outcome,
    Stage,
    additive_ridge,
    check_second_stage,
    conditional,
    first_stage,
    interventional,
    random_fourier,
)
from causal.rep4ex.diagnostics import Strength, bootstrap, outside_support, strength
from core.checks import Count, Fraction, NonNegative, OpenFraction, Positive, checked
from core.errors import ConfigError

Answers = Float[np.ndarray, " j"]


@checked
@dataclasses.dataclass(frozen=True)
class Ridge:
    """Settings of the regression."""

    features: Count = 300
    """Of nu and of psi each."""
    length: Positive = 2.5
    """Their length-scale, in deviations of V_phi."""
    ridge: NonNegative = 1e-6
    """In units of the number of rows."""
    control: bool = True
    """Whether there is a control function; without it confounding is left in."""

    def fit(self, w: Float[Array, "n d"], a: Float[Array, "n k"], y: Float[Array, " n"]) -> tuple[Stage, Outcome]:
        """The first stage and the regression of Y."""
        stage = first_stage(w, a)
        basis = random_fourier(jax.random.key(0), w.shape[1], self.features, self.length)
        return stage, additive_ridge(stage, w, y, basis, basis if self.control else NOTHING, self.ridge)


@flax.struct.dataclass
class SecondStep:
    """Rows and how Y is regressed on them; a pytree."""

    w: Float[np.ndarray, "n d"]
    """Codes, or true latents."""
    a: Float[np.ndarray, "n k"]
    y: Float[np.ndarray, " n"]
    settings: Ridge = flax.struct.field(pytree_node=False, default=Ridge())

    @classmethod
    def of(
        cls, w: Float[np.ndarray, "n d"], a: Float[np.ndarray, "n k"], y: Float[np.ndarray, " n"],
        settings: Ridge = Ridge(),
    ) -> "SecondStep":  # fmt: skip
        """Rows after all checks.

        Raises:
          ConfigError: where nothing can be fitted.
        """
        check_second_stage(w, a, y)
        return cls(w, a, y, settings)

    def uncontrolled(self) -> "SecondStep":
        """The same rows without the control function."""
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, control=False))

    def effect(self, actions: Float[np.ndarray, "j k"]) -> Answers:
        """E[Y | do(A = a)] for every action."""
        return self._asked(_effect, actions)

    def effect_given(self, codes: Float[np.ndarray, "j d"], actions: Float[np.ndarray, "j k"]) -> Answers:
        """E[Y | X = x, do(A = a)] row by row, from the codes of x."""
        return self._asked(_effect_given, codes, actions)

    @checked
    def interval(
        self, key: Key[Array, ""], actions: Float[np.ndarray, "j k"], draws: Count = 100, level: OpenFraction = 0.95
    ) -> tuple[Answers, Answers]:
        """Limits of E[Y | do(A = a)] by the bootstrap, with these codes."""
        return self._asked(partial(_interval, draws, level, key), actions)

    def outside(self, actions: Float[np.ndarray, "j k"]) -> Answers:
        """The share of what an action leads to that lies outside of the codes seen, see :func:`outside_support`."""
        return self._asked(_outside, actions)

    def strength(self) -> Strength:
        """How strongly actions move the codes."""
        return strength_of(self.w, self.a)

    def _asked(self, question: Any, *about: np.ndarray) -> Any:
        count = len(about[0])
        size = 1 << max(count - 1, 1).bit_length()
        with jax.enable_x64(True):
            padded = (np.pad(part, ((0, size - count), (0, 0))) for part in about)
            answer = question(self.settings, *wide(self.w, self.a, self.y, *padded))
            return jax.tree.map(lambda each: np.asarray(each)[:count], answer)


def wide(*parts: Any) -> tuple[Array, ...]:
    """In float64, under ``jax.enable_x64``."""
    return tuple(jnp.asarray(part, jnp.float64) for part in parts)


@partial(jax.jit, static_argnums=0)
def _effect(settings: Ridge, w, a, y, actions):
    return interventional(*settings.fit(w, a, y), actions)


@partial(jax.jit, static_argnums=0)
def _effect_given(settings: Ridge, w, a, y, codes, actions):
    return conditional(*settings.fit(w, a, y), codes, actions)


@partial(jax.jit, static_argnums=(0, 1, 3))
def _interval(draws: int, level: float, key, settings: Ridge, w, a, y, actions):
    return bootstrap(key, lambda *rows: interventional(*settings.fit(*rows), actions), (w, a, y), draws).interval(level)


@partial(jax.jit, static_argnums=0)
def _outside(settings: Ridge, w, a, y, actions):
    return outside_support(first_stage(w, a), w, actions)


def strength_of(w: Float[np.ndarray, "n d"], a: Float[np.ndarray, "n k"]) -> Strength:
    """:func:`causal.rep4ex.strength` of codes as they are, in float64."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, _strength(*wide(w, a)))


@jax.jit
def _strength(w, a):
    return strength(first_stage(w, a), a)


@checked
def best_at_outer_actions(step: SecondStep, choices: Sequence[Ridge], share: Fraction = 0.5) -> SecondStep:
    """The step with those settings which, fitted to rows of inner actions, best predict the outcomes of outer ones.

    What is asked of the step is to extrapolate, so that is what settings are chosen by: outer are the ``share`` of rows
    whose actions lie farthest from the mean (Mahalanobis), and the error there is that of E[Y | do(A = a)] against Y.
    Noise in Y adds the same to all on average.

    Raises:
      ConfigError: where there is nothing to choose from, or too few rows on either side.
    """
    n, k = step.a.shape
    inner = n - round(share * n)
    if not choices or min(inner, n - inner) <= k + step.w.shape[1] + 1:
        raise ConfigError(f"{len(choices)} settings and {inner} inner of {n} rows do not suffice for a choice")
    centred = step.a - step.a.mean(axis=0)
    distance = np.einsum("nk,kl,nl->n", centred, np.linalg.inv(centred.T @ centred / n), centred)
    order = np.argsort(distance, kind="stable")
    near, far = order[:inner], order[inner:]
    errors = [
        np.mean((step.y[far] - SecondStep(step.w[near], step.a[near], step.y[near], each).effect(step.a[far])) ** 2)
        for each in choices
    ]
    return dataclasses.replace(step, settings=choices[int(np.argmin(errors))])
