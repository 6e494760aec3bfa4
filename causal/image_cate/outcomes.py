"""Outcomes and effects of images by networks without clusters, and by a ridge regression: what clusters are beside."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from causal.image_cate.sampling import sample_images, together
from causal.treatment_effects import Target, Units, outcome_learner, regression_learner
from core.checks import Count, NonNegative, Positive, checked
from core.fit import fit


@checked
@dataclasses.dataclass(frozen=True)
class ImageNetworks:
    """How networks of outcomes or effects are trained, those of all runs as one program with shared images."""

    steps: Count = 800
    batch_images: Count = 32
    learning_rate: Positive = 1e-2

    def fit(self, module: nn.Module, data: Units | Target, keys: Any, **where: Any) -> Float[Array, "runs images ..."]:
        """What the trained networks say of every image.

        Args:
          module: of both outcomes, such as TARNet, for units; of one number for targets.
          data: units, see :func:`outcome_learner`, or targets, see :func:`regression_learner`; of runs that share
            their images.
          keys: one per run.
          **where: ``workdir`` and ``progress`` of :func:`core.fit.fit`.
        """
        tx = optax.nadam(optax.cosine_decay_schedule(self.learning_rate, self.steps))
        axes: Any = type(data)(None, *[0] * (len(data) - 1))
        learner = outcome_learner(module, tx) if isinstance(data, Units) else regression_learner(module, tx)
        many = together(learner, sample_images(self.batch_images), len(keys), axes)
        params = fit(many, data, key=keys, steps=self.steps, chunk=50, **where).state.params
        whole = jax.jit(lambda p: module.apply(p, data.x.astype(jnp.float32), mutable=["population"])[0])
        return jax.lax.map(whole, params)


@checked
def band_components(pixels: Float[np.ndarray, "images h w c"], components: Count = 10) -> Float[np.ndarray, "images k"]:
    """Principal components of band means, deviations and means on a 7 x 7 grid, each standardised."""
    side = np.array_split(np.arange(pixels.shape[1]), 7)
    grid = [pixels[:, a][:, :, b].mean((1, 2)) for a in side for b in side]
    features = np.concatenate([pixels.mean((1, 2)), pixels.std((1, 2)), *grid], axis=1)
    return PCA(components).fit_transform((features - features.mean(0)) / features.std(0))


@checked
def ridge_outcomes(
    x: Float[np.ndarray, "n k"], t: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], fold: Int[np.ndarray, " n"],
    penalty: NonNegative = 100.0,
) -> Float[np.ndarray, "2 n"]:  # fmt: skip
    """Out of fold, the outcome of every unit without and with treatment, by a ridge regression for each arm."""
    m = np.zeros((2, len(x)))
    for k in np.unique(fold):
        for arm in range(2):
            seen = (fold != k) & (t == arm)
            m[arm, fold == k] = Ridge(penalty).fit(x[seen], y[seen]).predict(x[fold == k])
    return m
