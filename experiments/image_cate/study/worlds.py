"""The images of ``image_cate``, its networks, and how models of many runs are trained together."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from causal import image_cate as ic
from causal import treatment_effects as te
from core.datasets import uganda
from core.learner import Params, seed_keys
from core.patches import patches
from experiments.image_cate.config import Config
from experiments.lab import Context

Seeds = Sequence[int]


class Pictures(NamedTuple):
    """The images that experiments are simulated on."""

    pixels: Float[np.ndarray, "images h w 3"]
    """Standardised by band."""
    x: Float[Array, "images ..."]
    """What the networks are given: patches of the first layer."""

    def runs(self, design: ic.Design, seeds: Seeds) -> ic.Runs:
        """One simulated experiment per seed."""
        return ic.simulated(design, self.pixels, self.x, tuple(seeds))


def pictures(config: Config, context: Context) -> Pictures:
    """Satellite images where they are found and asked for; textures with planted spots otherwise."""
    if config.real_images and uganda.locate(context.data_dir):
        pixels = uganda.images("wide39", context.data_dir).pixels[: config.images]
    else:
        if config.real_images:
            context.say("image_cate: uganda_yop_images is not in the data directory; textures are used instead")
        pixels = ic.textures(config.images or 1_420)
    x = ic.standardised(pixels)
    return Pictures(x, as_input(x, config))


def as_input(x: Float[np.ndarray, "images h w c"], config: Config) -> Array:
    """Patches in half precision, made once: products with them take half the time of convolutions on the CPU."""
    return jnp.asarray(np.asarray(patches(jnp.asarray(x), config.size, config.stride), np.float16))


def trunk(config: Config, estimator: Any = "reparam") -> Callable[[], nn.Module]:
    """The convolutional trunk of this configuration."""
    c = config
    return functools.partial(ic.ConvTrunk, c.features, c.size, c.stride, c.layers, estimator=estimator)


def cluster_model(config: Config, clusters: int = 2, estimator: Any = "reparam", **settings: Any) -> ic.ClusterModel:
    """The effect cluster model; settings of the network by their names, the rest are the model's."""
    network = {name: settings.pop(name) for name in ("shared", "image_effects") if name in settings}
    made = ic.EffectNetwork(clusters, trunk(config, estimator), estimator, **network)
    return ic.ClusterModel(made, draws=1 if estimator == "point" else config.draws, **settings)


class Trainer(NamedTuple):
    """How models are trained: all runs of a method as one program."""

    config: Config
    context: Context
    steps: int

    def where(self, name: str) -> dict[str, Any]:
        """Where a training keeps its checkpoints, and tells of its steps."""
        return {"workdir": self.context.workdir / name, "progress": self.context.progress(name)}

    def estimator(self, model: ic.ClusterModel) -> ic.EffectClusters:
        """The cluster model with this configuration's way of training."""
        c = self.config
        return ic.EffectClusters(model, self.steps, c.batch_images, c.learning_rate, c.cluster_rate)

    def clusters(
        self, name: str, model: ic.ClusterModel, units: te.Units, seeds: Seeds, prior: ic.Prior | None = None,
        balanced: bool = False,
    ) -> Params:  # fmt: skip
        """Effect cluster models of all runs; the prior is stacked by run, or None."""
        return self.estimator(model).train(seed_keys(seeds), units, prior, balanced=balanced, **self.where(name))

    def two_stages(self, name: str, model: ic.ClusterModel, units: te.Units, seeds: Seeds) -> tuple[Params, Params]:
        """As users get it: without a prior, then anew with the prior that the first fit gives; both are returned."""
        how: Any = {"names": (f"{name} stage 1", f"{name} stage 2"), "progress": self.context.progress}
        return self.estimator(model).train_twice(seed_keys(seeds), units, self.context.workdir, **how)

    def networks(self, name: str, module: nn.Module, data: te.Units | te.Target, seeds: Seeds) -> Array:
        """What networks of all runs say of every image, see :class:`causal.image_cate.ImageNetworks`."""
        way = ic.ImageNetworks(self.steps, self.config.batch_images, self.config.learning_rate)
        return way.fit(module, data, seed_keys(seeds), **self.where(name))
