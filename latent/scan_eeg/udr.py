"""Unsupervised disentanglement ranking: models which agree with others of their pool are disentangled.

Duan et al., Unsupervised Model Selection for Variational Disentangled Representation Learning, ICLR 2020. For models i
and j with latents a and b, R_ij(a, b) the absolute Lasso weight or rank correlation between them,

    UDR_ij = 1/2 [ mean_b max_a R^2 / sum_a R + mean_a max_b R^2 / sum_b R ],   UDR_j = median over i != j of UDR_ij

where latents of KL at most 0.01 are left out.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from core.checks import checked

Similarity = Literal["lasso", "spearman"]
INFORMATIVE_KL = 0.01
ALPHA = 0.1
SWEEPS = 200


class Ranking(NamedTuple):
    """Scores of a pool."""

    pairwise: Float[Array, "models models"]
    """UDR_ij; its diagonal means nothing."""
    scores: Float[Array, " models"]
    """The median of each column without its diagonal."""


@checked
def udr(
    means: Float[Array, "models n latents"], kl: Float[Array, "models latents"], similarity: Similarity = "lasso"
) -> Ranking:
    """Scores every model of a pool by the representations of the same data.

    Args:
      means: posterior means.
      kl: mean divergence of every latent from the prior.
      similarity: "lasso" (alpha = 0.1) or "spearman".
    """
    informative = kl > INFORMATIVE_KL
    similar = lasso_similarity if similarity == "lasso" else spearman_similarity
    pairwise = _all_pairs(relative_strength)(similar(means, informative), informative, informative)
    models = means.shape[0]
    others = jnp.where(jnp.eye(models, dtype=bool), jnp.nan, pairwise)
    return Ranking(pairwise, jnp.nanmedian(others, axis=0))


@checked
def select_by_udr(scores: Float[np.ndarray, " models"], betas: Float[np.ndarray, " models"]) -> int:
    """The best model of the beta with the highest median score."""
    best = max(np.unique(betas), key=lambda beta: float(np.median(scores[betas == beta])))
    return int(np.argmax(np.where(betas == best, scores, -np.inf)))


def _all_pairs(fn):
    """fn(R_ij, rows of i, columns of j) for all i and j."""
    return jax.vmap(jax.vmap(fn, in_axes=(0, None, 0)), in_axes=(0, 0, None))


def relative_strength(
    similarity: Float[Array, "a b"], rows: Bool[Array, " a"], columns: Bool[Array, " b"]
) -> Float[Array, ""]:
    """Half the mean of max^2 / sum over columns, and half that over rows, among the marked ones; 0 / 0 is 0."""
    r = jnp.where(rows[:, None] & columns[None], similarity, 0.0)

    def mean(axis: int, kept) -> Float[Array, ""]:
        total = jnp.sum(r, axis=axis)
        strength = jnp.where(total > 0, jnp.max(r, axis=axis) ** 2 / jnp.where(total > 0, total, 1.0), 0.0)
        return jnp.sum(jnp.where(kept, strength, 0.0)) / jnp.maximum(jnp.sum(kept), 1)

    return (mean(0, columns) + mean(1, rows)) / 2


def standardised(
    means: Float[Array, "models n latents"], informative: Bool[Array, "models latents"]
) -> Float[Array, "models n latents"]:
    """Columns of mean 0 and variance 1; those of uninformative or constant latents are 0."""
    centred = means - jnp.mean(means, axis=1, keepdims=True)
    scale = jnp.sqrt(jnp.mean(centred**2, axis=1, keepdims=True))
    kept = informative[:, None, :] & (scale > 1e-12)
    return jnp.where(kept, centred / jnp.where(kept, scale, 1.0), 0.0)


def lasso_similarity(
    means: Float[Array, "models n latents"], informative: Bool[Array, "models latents"]
) -> Float[Array, "models models a b"]:
    """|w_ab| of min_w 1/(2n) |z_j - z_i w|^2 + alpha |w|_1, of all pairs and targets at once."""
    z = standardised(means, informative)
    gram = jnp.einsum("ina,inb->iab", z, z, precision="highest") / z.shape[1]
    cross = jnp.einsum("ina,jnb->ijab", z, z, precision="highest") / z.shape[1]
    solve = jax.vmap(jax.vmap(lasso, in_axes=(None, 0)), in_axes=(0, 0))
    return jnp.abs(solve(gram, cross))


def lasso(
    gram: Float[Array, "a a"], cross: Float[Array, "a targets"], alpha: float = ALPHA, sweeps: int = SWEEPS
) -> Float[Array, "a targets"]:
    """Cyclic coordinate descent on 1/2 w^T G w - c^T w + alpha |w|_1, the Lasso's objective in second moments."""
    scale = jnp.where(jnp.diag(gram) > 0, jnp.diag(gram), 1.0)

    def coordinate(j, w):
        residual = cross[j] - gram[j] @ w + gram[j, j] * w[j]
        return w.at[j].set(jnp.sign(residual) * jnp.maximum(jnp.abs(residual) - alpha, 0.0) / scale[j])

    def sweep(_, w):
        return jax.lax.fori_loop(0, gram.shape[0], coordinate, w)

    return jax.lax.fori_loop(0, sweeps, sweep, jnp.zeros_like(cross))


def spearman_similarity(
    means: Float[Array, "models n latents"], informative: Bool[Array, "models latents"]
) -> Float[Array, "models models a b"]:
    """|rank correlation|, ties sharing their mean rank."""
    z = standardised(means, informative)
    ranks = jax.vmap(lambda columns: jax.scipy.stats.rankdata(columns, axis=0))(z)
    r = standardised(ranks, informative)
    return jnp.abs(jnp.einsum("ina,jnb->ijab", r, r, precision="highest")) / r.shape[1]
