"""The networks: image to features, features to cluster logits, baseline outcome and effects."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from causal.image_cate.layers import BayesConv, BayesDense, Estimator
from causal.treatment_effects import Standardise
from core.checks import Count, Natural, checked


@checked
class ConvTrunk(nn.Module):
    """Bayesian convolutions, each with swish; maximum and mean over positions; dense layers.

    Between two convolutions: 2 x 2 maxima, batch standardisation, a 1 x 1 projection with swish, standardisation.
    """

    features: Count = 12
    size: Count = 7
    stride: Count = 2
    layers: Natural = 1
    projection: Natural = 3
    dense: Natural = 0
    width: Count = 32
    estimator: Estimator = "reparam"
    channels: Natural = 3

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch width"]:
        """Images, or patches of the first layer (see :class:`BayesConv`), to standardised features."""
        for layer in range(self.layers):
            channels = self.channels if layer == 0 else self.projection
            x = nn.swish(BayesConv(self.features, self.size, self.stride, self.estimator, channels)(x))
            if layer < self.layers - 1:
                x = Standardise()(nn.max_pool(x, (2, 2), (2, 2)))
                x = Standardise()(nn.swish(BayesDense(self.projection, self.estimator)(x)))
        x = Standardise()(jnp.concatenate([x.max((1, 2)), x.mean((1, 2))], axis=-1))
        for _ in range(self.dense):
            hidden = Standardise()(nn.swish(BayesDense(self.width, self.estimator)(x)))
            x = x + hidden if x.shape == hidden.shape else hidden
        return x


class Outputs(NamedTuple):
    """What the networks say of images."""

    logits: Float[Array, "batch clusters"]
    """Of the clusters; the first is zero."""
    baseline: Float[Array, " batch"]
    """f0, the mean outcome without treatment."""
    effects: Float[Array, "batch clusters"] | None
    """Deviation of each cluster's effect at this image from its mean effect (model 2); None in model 1."""


@checked
class EffectNetwork(nn.Module):
    """A trunk each for the clusters, for the baseline outcome and, in model 2, for every cluster's effect.

    Trunks of one shape are computed together, so that their first layers are a single matrix product.
    """

    clusters: Count = 2
    trunk: Callable[[], nn.Module] = ConvTrunk
    estimator: Estimator = "reparam"
    shared: bool = False
    """One trunk for all outputs instead."""
    image_effects: bool = False
    """Model 2: effects of clusters depend on the image."""

    def setup(self) -> None:
        """Trunks and output layers."""
        self.widths = [self.clusters - 1, 1] + [1] * (self.clusters * self.image_effects)
        self.trunks = self.trunk()
        self.heads = [BayesDense(width, self.estimator) for width in self.widths if width]

    def features(self, x: Float[Array, "batch h w c"]) -> Float[Array, "trunks batch width"]:
        """Of every trunk: for the logits, the baseline and, in model 2, each cluster's effect."""
        together = nn.vmap(
            lambda trunk, x: trunk(x),
            in_axes=None,  # pyright: ignore[reportArgumentType]
            variable_axes={"params": 0, "population": 0},
            split_rngs={"params": True, "weights": True},
            axis_size=1 if self.shared else len(self.widths),
        )
        return together(self.trunks, x)

    def __call__(self, x: Float[Array, "batch h w c"]) -> Outputs:
        """Images or patches to outputs."""
        features = self.features(x)
        chosen = [features[0 if self.shared else i] for i, width in enumerate(self.widths) if width]
        found = [head(h) for head, h in zip(self.heads, chosen, strict=True)]
        zero = jnp.zeros((features.shape[1], 1))
        if self.clusters > 1:
            zero = jnp.concatenate([zero, found.pop(0)], axis=1)
        return Outputs(zero, found[0][:, 0], jnp.concatenate(found[1:], axis=1) if self.image_effects else None)
