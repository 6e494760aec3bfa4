"""How good an attribution is: correlation with a reference, retraining on subsets, detection of wrong labels."""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Key, PyTree, Real

from core.checks import FINITE, Count, Fraction, Natural, checked
from core.stats import auc


@checked
def correlation(a: ArrayLike, b: ArrayLike) -> Float[Array, " query"]:
    """Pearson correlation over training examples of two score matrices [query, example], for every query."""
    centred = [x - x.mean(axis=1, keepdims=True) for x in (jnp.asarray(a), jnp.asarray(b))]
    norms = [jnp.linalg.norm(x, axis=1) for x in centred]
    return jnp.sum(centred[0] * centred[1], axis=1) / jnp.maximum(norms[0] * norms[1], 1e-30)


@checked
def random_subsets(
    key: Key[Array, ""], subsets: Count, examples: Count, share: Fraction = 0.5
) -> Bool[Array, "subset example"]:
    """Masks of random subsets of equal size."""
    size = round(share * examples)
    return jax.vmap(lambda key: jax.random.permutation(key, examples) < size)(jax.random.split(key, subsets))


@checked
def retrained_losses(
    train: Callable[[Array, Float[Array, " example"]], PyTree],
    losses: Callable[[PyTree], Float[Array, " query"]],
    keys: Key[Array, " seed"],
    weights: Real[Array, "subset example"],
) -> Float[Array, "subset query"]:
    """Query losses after training on weighted examples, averaged over seeds; everything as one program.

    Args:
      train: ``(key, weights) -> params``, pure.
      losses: of all queries.
      keys: one per seed.
      weights: of every training example, by subset.
    """

    def one(weights):
        return jnp.mean(jax.vmap(lambda key: losses(train(key, weights)))(keys), axis=0)

    return jax.lax.map(one, weights)


@checked
def linear_datamodelling_scores(
    scores: Annotated[Float[Array, "query example"], FINITE],
    subsets: Bool[Array, "subset example"],
    losses: Annotated[Float[Array, "subset query"], FINITE],
) -> np.ndarray:
    """Per query, Spearman's correlation over subsets of summed scores and the (negative) retrained loss (Park 2023)."""
    predicted = np.asarray(subsets, float) @ np.asarray(scores, float).T
    pairs = zip(predicted.T, -np.asarray(losses).T, strict=True)
    ranked = ((scipy.stats.rankdata(p), scipy.stats.rankdata(actual)) for p, actual in pairs)
    return np.array([np.corrcoef(*ranks)[0, 1] for ranks in ranked])


@checked
def without_top(scores: Float[Array, "query example"], k: Natural) -> np.ndarray:
    """Per query, weights that leave its k most positive training examples out."""
    weights = np.ones(np.shape(scores))
    np.put_along_axis(weights, np.argsort(-np.asarray(scores), axis=1, kind="stable")[:, :k], 0.0, axis=1)
    return weights


@checked
def detection_auc(
    scores: Annotated[Real[Array, " example"], FINITE], is_wrong: Bool[Array, " example"] | Bool[np.ndarray, " example"]
) -> float:
    """Area under the ROC curve of finding the wrong examples by a high score; ties count half, NaN without one kind."""
    wrong = np.asarray(is_wrong, bool)
    return auc(np.asarray(scores, float), wrong) if 0 < wrong.sum() < len(wrong) else float("nan")
