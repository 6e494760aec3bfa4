"""Both steps as one estimator of arrays: ``Rep4Ex(coder).fit(key, x, a, y).effect(actions)``.

The same program trains one encoder, those of bootstrap samples of the rows, and those of folds.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Real

from causal.rep4ex.moments import Moments, Scale, v_statistic, whitened
from causal.rep4ex.networks import Coder, encode
from causal.rep4ex.pools import Way, train_encoders
from causal.rep4ex.representation import Batch, Standardised, standardise
from causal.rep4ex.second_step import Answers, Ridge, SecondStep
from causal.treatment_effects import Estimate
from core.checks import Count, NonNegative, OpenFraction, Positive, checked
from core.errors import ConfigError
from core.learner import Params, stream
from core.pools import Pool

Matrix = Real[np.ndarray, "n _"]
Vector = Real[np.ndarray, " n"]


class Data(NamedTuple):
    """All rows, and which train the encoder and which choose among restarts."""

    x: Matrix
    a: Matrix
    y: Vector
    rows: Standardised
    train: Int[np.ndarray, " t"]
    held: Int[np.ndarray, " h"]


@checked
@dataclasses.dataclass(frozen=True)
class Rep4Ex:
    """How both steps are done.

    Every fit takes a key, x [n, m], actions a [n, k], the outcome y [n], and for :func:`core.fit.fit` ``workdir``, a
    folder for checkpoints from which a stopped fit goes on, and ``progress``. Where rows disagree, are not finite, do
    not vary or are too few, it raises :class:`core.errors.ConfigError` before any training.
    """

    coder: Coder
    """Its code has as many coordinates as there are latents, every one of which actions must move."""
    lam: NonNegative = 10.0
    restarts: Count = 4
    """Encoders, of which the one of least loss on held-out rows is kept."""
    steps: Count = 2_000
    batch: Count = 512
    learning_rate: Positive = 1e-3
    held_out: OpenFraction = 0.1
    """Share of the rows by which restarts are chosen; step 2 is given them too."""
    moments: Moments = v_statistic
    scale: Scale = whitened
    second: Ridge = dataclasses.field(default_factory=Ridge)

    @checked
    def fit(self, key: Key[Array, ""], x: Matrix, a: Matrix, y: Vector, **where: Any) -> "Fitted":
        """The estimate from all rows."""
        data = self.prepared(key, x, a, y)
        return self._fit(key, data, data.train[None], np.concatenate([data.train, data.held])[None], **where)[0]

    @checked
    def refit(self, key: Key[Array, ""], x: Matrix, a: Matrix, y: Vector, draws: Count, **where: Any) -> list["Fitted"]:
        """Both steps on rows drawn with replacement, for :func:`refit_interval`; no row both trains and chooses."""
        data = self.prepared(key, x, a, y)
        rng = _generator(stream(key, "rows of refits"))
        seen = rng.choice(data.train, (draws, len(data.train)))
        drawn = rng.choice(data.held, (draws, len(data.held)))
        return self._fit(key, data, seen, np.concatenate([seen, drawn], axis=1), **where)

    @checked
    def cross_fit(
        self, key: Key[Array, ""], x: Matrix, a: Matrix, y: Vector, folds: Count = 2, **where: Any
    ) -> list["Fitted"]:
        """For every fold the encoder of the other folds with step 2 on its own rows, for :func:`cross_fitted`."""
        data = self.prepared(key, x, a, y)
        size = len(data.train) // max(folds, 1)
        if folds < 2 or size <= 2 * self.second.features or size * (folds - 1) < self.batch:
            raise ConfigError(
                f"{folds} folds of {size} rows: there must be at least two, each with more rows than the"
                f" {2 * self.second.features} coefficients of step 2, and a batch of {self.batch} in the others"
            )
        own = data.train[: size * folds].reshape(folds, size)
        others = np.stack([np.delete(own, fold, axis=0).ravel() for fold in range(folds)])
        return self._fit(key, data, others, own, **where)

    def prepared(self, key: Key[Array, ""], x: Matrix, a: Matrix, y: Vector) -> Data:
        """The rows after all checks, and how they are split."""
        rows = standardise(x, a)
        y = np.asarray(y, float)
        if y.shape != (len(x),) or not np.isfinite(y).all():
            raise ConfigError(f"y {y.shape} must hold one finite number for each of the {len(x)} rows of x")
        held = round(self.held_out * len(x))
        if held <= rows.a.shape[1] + 1 or len(x) - held < self.batch:
            raise ConfigError(
                f"{len(x)} rows leave {held} to choose restarts by and {len(x) - held} to train on in batches of"
                f" {self.batch}; give more rows, or change batch or held_out"
            )
        order = _generator(key).permutation(len(x))
        return Data(np.asarray(x), np.asarray(a), y, rows, order[held:], order[:held])

    def _fit(
        self, key: Key[Array, ""], data: Data, seen: Int[np.ndarray, "fits t"], own: Int[np.ndarray, "fits s"], **where
    ) -> list["Fitted"]:
        """An encoder from each set of rows ``seen``, and its step 2 on the rows ``own``."""
        rows, fits = data.rows, len(seen)
        bandwidth, lam = jnp.full(fits, rows.bandwidth, jnp.float32), jnp.full(fits, self.lam, jnp.float32)
        pool = Pool((jnp.asarray(rows.x[seen]), jnp.asarray(rows.a[seen])), jnp.arange(fits), (lam, bandwidth))
        x, a = (np.broadcast_to(part[data.held], (fits, len(data.held), part.shape[1])) for part in (rows.x, rows.a))
        held = Batch(jnp.asarray(x), jnp.asarray(a), jnp.zeros(fits), bandwidth)
        way = Way(self.coder, self.steps, self.batch, self.learning_rate, self.restarts, self.moments, self.scale)
        kept = train_encoders(key, pool, held, way, **where).params
        made = []
        for i, chosen in enumerate(own):
            params = jax.tree.map(lambda leaf, i=i: leaf[i], kept)
            w = np.asarray(_codes(self.coder, params, rows.x[chosen], rows.a[chosen]))
            step = SecondStep.of(w, data.a[chosen], data.y[chosen], self.second)
            made.append(Fitted(self.coder, params, rows.x_mean, rows.x_scale, rows.a_mean, step))
        return made


@flax.struct.dataclass
class Fitted:
    """What is kept of a fit: a pytree."""

    coder: Coder = flax.struct.field(pytree_node=False)
    params: Params
    x_mean: Float[np.ndarray, " m"]
    x_scale: float
    a_mean: Float[np.ndarray, " k"]
    step: SecondStep
    """On the codes, for intervals, support and strength."""

    def codes(self, x: Matrix, a: Matrix) -> Float[np.ndarray, "n d"]:
        """phi(x); actions are looked at by encoders that take them."""
        x, a = (x - self.x_mean) / self.x_scale, a - self.a_mean
        return np.asarray(_codes(self.coder, self.params, *(jnp.asarray(part, jnp.float32) for part in (x, a))))

    def effect(self, actions: Float[np.ndarray, "j k"]) -> Answers:
        """E[Y | do(A = a)] for every action."""
        return self.step.effect(actions)

    def effect_given(self, x: Float[np.ndarray, "j m"], actions: Float[np.ndarray, "j k"]) -> Answers:
        """E[Y | X = x, do(A = a)] row by row."""
        return self.step.effect_given(self.codes(x, actions), actions)


def cross_fitted(fits: Sequence[Fitted], actions: Float[np.ndarray, "j k"]) -> Answers:
    """E[Y | do(A = a)], the mean over fits."""
    return np.mean([each.effect(actions) for each in fits], axis=0)


@checked
def refit_interval(
    estimate: Answers, refits: Sequence[Fitted], actions: Float[np.ndarray, "j k"], level: OpenFraction = 0.95
) -> tuple[Answers, Answers]:
    """Limits of E[Y | do(A = a)] about an estimate by the bootstrap of both steps.

    Normal limits, their standard error the spread over refits: it has in it what the encoder may have got wrong.
    """
    spread = np.std([each.effect(actions) for each in refits], axis=0, ddof=1)
    low, high = Estimate(jnp.asarray(estimate), jnp.asarray(spread)).interval(level)
    return np.asarray(low), np.asarray(high)


def _generator(key: Key[Array, ""]) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())


_codes = jax.jit(encode, static_argnums=0)
