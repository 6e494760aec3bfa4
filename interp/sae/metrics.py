"""How good a dictionary is: on data, against the truth, against another dictionary, inside its model."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jaxtyping import Array, Bool, Float, Int

from core.checks import Count, Fraction, checked, require_finite
from core.errors import ConfigError
from core.learner import Batch
from interp.sae.codes import Params, active, dense, frequencies
from interp.sae.training import pair
from interp.sae.variants import Variant, decode, encode


class Quality(NamedTuple):
    """Of a dictionary on data."""

    fvu: Float[Array, ""]
    """Fraction of variance unexplained; explained variance is 1 - fvu."""
    nmse: Float[Array, ""]
    """Mean squared error over the mean square of the targets."""
    l0: Float[Array, ""]
    dead: Float[Array, ""]
    """Share of latents that no example activates."""
    shrinkage: Float[Array, ""]
    """Relative reconstruction bias gamma: y_hat / gamma is the best multiple of y_hat; below 1 where codes shrink."""
    frequency: Float[Array, " m"]
    """Share of examples that activate each latent."""


class _Sums(NamedTuple):
    n: Array
    error: Array
    square: Array
    total: Array
    product: Array
    output: Array
    active: Array
    frequency: Array


@checked
def metrics(variant: Variant, params: Params, batch: Batch, *, block: Count = 4096) -> Quality:
    """Quality on all examples of a batch, of any size, block by block; jittable.

    Args:
      variant: a member of the family.
      params: its parameters.
      batch: an array [n, d], or ``{"x": inputs, "y": targets}``.
      block: examples that are encoded at a time.

    Raises:
      ConfigError: where there is no example, or one of another width; for NaN and infinities on the host.
    """
    x, y = pair(batch)
    if not x.shape[0]:
        raise ConfigError("metrics: there is no example")
    require_finite("metrics: batch", batch)
    mean = jnp.mean(y, axis=0)
    size = min(block, x.shape[0])
    whole = x.shape[0] // size * size

    def sums(x, y) -> _Sums:
        code = encode(variant, params, x)
        out = decode(variant, params, code, x)
        centred, recentred = y - mean, out - mean
        return _Sums(
            jnp.asarray(x.shape[0], jnp.float32), jnp.sum((y - out) ** 2), jnp.sum(y**2), jnp.sum(centred**2),
            jnp.sum(centred * recentred), jnp.sum(recentred**2), jnp.sum(active(code)),
            frequencies(code, params["b_e"].shape[0]) * x.shape[0],
        )  # fmt: skip

    blocks = tuple(a[:whole].reshape(-1, size, *a.shape[1:]) for a in (x, y))
    total = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), jax.lax.map(lambda xy: sums(*xy), blocks))
    if whole < x.shape[0]:
        total = jax.tree.map(jnp.add, total, sums(x[whole:], y[whole:]))
    return Quality(
        fvu=total.error / total.total, nmse=total.error / total.square, l0=total.active / total.n,
        dead=jnp.mean(total.frequency == 0), shrinkage=total.output / total.product,
        frequency=total.frequency / total.n,
    )  # fmt: skip


@checked
def cosines(a: Float[Array, "f d"], b: Float[Array, "m d"]) -> Float[Array, "f m"]:
    """Cosines of all pairs of rows; 0 for rows of zeros."""

    def unit(W):
        return W / jnp.maximum(jnp.linalg.norm(W, axis=1, keepdims=True), jnp.finfo(W.dtype).tiny)

    return unit(a) @ unit(b).T


@checked
def max_cosines(features: Float[Array, "f d"], W_d: Float[Array, "m d"]) -> Float[Array, " f"]:
    """For every feature the largest cosine with a decoder row; its mean over features is the MMCS."""
    return jnp.max(cosines(features, W_d), axis=1)


@checked
def matched(features: Float[Array, "f d"], W_d: Float[Array, "m d"]) -> tuple[np.ndarray, np.ndarray]:
    """The assignment of distinct latents to features of largest total cosine (Hungarian): latents and cosines."""
    table = np.asarray(cosines(features, W_d))
    rows, columns = scipy.optimize.linear_sum_assignment(-table)
    latents = np.full(len(table), -1)
    latents[rows] = columns
    found = np.where(latents >= 0, table[np.arange(len(table)), latents], 0.0)
    return latents, found


@checked
def recovery_f1(features: Float[Array, "f d"], W_d: Float[Array, "m d"], above: Fraction = 0.9) -> float:
    """F1 of recovering planted features by distinct latents of cosine ``above``: precision over latents, recall over
    features.
    """
    hits = int((matched(features, W_d)[1] > above).sum())
    return 2 * hits / (len(features) + len(W_d))


@checked
def loss_recovered(clean: float, spliced: float, zeroed: float) -> float:
    """(CE_zero - CE_sae) / (CE_zero - CE_clean): 1 where splicing in the reconstruction costs nothing.

    Raises:
      ConfigError: where zeros cost nothing, so that there is no share of it.
    """
    if zeroed == clean:
        raise ConfigError(f"loss_recovered: the loss with zeros is that without, {clean:g}")
    return (zeroed - spliced) / (zeroed - clean)


@checked
def divergence(logits: Float[Array, "*batch v"], spliced: Float[Array, "*batch v"]) -> Float[Array, "*batch"]:
    """KL of the model's prediction from its prediction with the reconstruction spliced in."""
    p, q = jax.nn.log_softmax(logits), jax.nn.log_softmax(spliced)
    return jnp.sum(jnp.exp(p) * (p - q), axis=-1)


@checked
def splits(features: Float[Array, "f d"], W_d: Float[Array, "m d"], above: Fraction = 0.7) -> Int[Array, " f"]:
    """How many latents point along each feature: above 1 where it is split."""
    return jnp.sum(cosines(features, W_d) > above, axis=1)


@checked
def absorption(
    z: Float[Array, "b m"], present: Bool[Array, "b f"], latents: Int[Array, " f"], parent: Int[Array, " f"]
) -> Float[Array, " f"]:
    """For every feature with a parent: of the examples with both, the share in which the parent's latent is silent.

    Args:
      z: codes.
      present: which planted features each example has.
      latents: the latent of each feature, as :func:`matched` gives it.
      parent: the parent of each feature; -1 for roots, whose entry is 0.
    """
    both = present & present[:, parent] & (parent >= 0)
    silent = z[:, latents[parent]] <= 0
    return jnp.sum(both & silent, axis=0) / jnp.maximum(jnp.sum(both, axis=0), 1)


@checked
def probe_f1(z: Float[Array, "b m"], label: Bool[Array, " b"]) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """The latent whose activity best tells a label, and its F1."""
    fires = z > 0
    hits = jnp.sum(fires & label[:, None], axis=0)
    f1 = 2 * hits / jnp.maximum(jnp.sum(fires, axis=0) + jnp.sum(label), 1)
    best = jnp.argmax(f1)
    return best, f1[best]


@checked
def densities(frequency: Float[Array | np.ndarray, " m"], examples: Count) -> np.ndarray:
    """log10 of the firing frequencies, those of silent latents at half of what one example would give."""
    return np.log10(np.maximum(np.asarray(frequency), 0.5 / examples))


@checked
def as_dense(variant: Variant, params: Params, x: Float[Array, "b d"]) -> Float[Array, "b m"]:
    """The code of every example as one number per latent."""
    return dense(encode(variant, params, x), params["b_e"].shape[0])


@checked
def reach(variant: Variant, params: Params, x: Float[Array, "b d"]) -> dict[str, float]:
    """What silent latents lack: ``least active``, the smallest activation of an example, and ``largest silent``, the
    largest pre-activation of a latent that is silent on all examples (absent where none is).

    Means over examples and over silent latents.
    """
    pre = np.asarray((x - params["b_d"]) @ params["W_e"].T + params["b_e"])
    z = np.asarray(as_dense(variant, params, x))
    silent = ~(z > 0).any(axis=0)
    least = np.where(z > 0, z, np.inf).min(axis=1)
    found = {"least active": float(least[np.isfinite(least)].mean())}
    return found | ({"largest silent": float(pre.max(axis=0)[silent].mean())} if silent.any() else {})
