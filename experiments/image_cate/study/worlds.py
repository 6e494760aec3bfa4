"""The images of ``image_cate``, experiments simulated on them, and how models of many runs are trained together."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from scipy.ndimage import gaussian_filter

from causal import image_cate as ic
from causal import treatment_effects as te
from core.datasets import uganda
from core.fit import fit
from core.learner import Params, seed_keys
from core.patches import patches
from experiments.image_cate.config import Config
from experiments.lab.system import Context


class Pictures(NamedTuple):
    """The images that experiments are simulated on."""

    name: str
    pixels: Float[np.ndarray, "images h w 3"]
    """Standardised by band."""
    x: Float[Array, "images ..."]
    """What the networks are given: patches of the first layer."""


class Runs(NamedTuple):
    """Experiments on the same images, outcomes standardised, stacked."""

    seeds: Sequence[int]
    experiments: Sequence[ic.Experiment]
    units: te.Units
    mean: Float[np.ndarray, " runs"]
    sd: Float[np.ndarray, " runs"]


def pictures(config: Config, context: Context) -> Pictures:
    """Satellite images where they are found and asked for; textures with planted spots otherwise."""
    found = config.real_images and uganda.locate(context.data_dir)
    if found:
        pixels, name = uganda.images("wide39", context.data_dir).pixels[: config.images], "satellite images"
    else:
        if config.real_images:
            context.say("image_cate: uganda_yop_images is not in the data directory; textures are used instead")
        pixels, name = textures(config.images or 1_420), "textures"
    x = ic.standardised(pixels)
    return Pictures(name, x, as_input(x, config))


def textures(count: int, side: int = 39) -> Float[np.ndarray, "images h w 3"]:
    """Smooth noise in three bands; every image has a dark spot of random strength in the first."""
    rng = np.random.default_rng(0)
    images = gaussian_filter(rng.normal(size=(count, side, side, 3)), (0, 2, 2, 0))
    rows, columns = rng.integers(6, side - 6, size=(2, count))
    strength = rng.exponential(images.std() * 2, size=count)
    for i in range(count):
        images[i, rows[i] - 1 : rows[i] + 2, columns[i] - 1 : columns[i] + 2, 0] -= strength[i]
    return images


def as_input(x: Float[np.ndarray, "images h w c"], config: Config) -> Array:
    """Patches in half precision, made once: products with them take half the time of convolutions on the CPU."""
    return jnp.asarray(np.asarray(patches(jnp.asarray(x), config.size, config.stride), np.float16))


def simulated(design: ic.Design, found: Pictures, seeds: Sequence[int]) -> Runs:
    """One experiment per seed."""
    made = [ic.simulate(design, found.pixels, seed) for seed in seeds]
    return stacked(found.x, seeds, made)


def stacked(x: Array, seeds: Sequence[int], made: Sequence[ic.Experiment]) -> Runs:
    """Experiments on the same images."""
    mean, sd = np.array([e.y.mean() for e in made]), np.array([e.y.std() for e in made])
    rows = [ic.by_image(x, e.image, e.t, (e.y - m) / s) for e, m, s in zip(made, mean, sd, strict=True)]
    parts = (jnp.stack([getattr(units, name) for units in rows]) for name in ("t", "y", "weight"))
    return Runs(seeds, made, te.Units(x, *parts), mean, sd)


def only(runs: Runs, kept: Any) -> te.Units:
    """Units of chosen images alone; those of the others get weight zero (``kept`` is [images] or [runs, images])."""
    kept = jnp.asarray(kept, jnp.float32)
    weight = runs.units.weight * kept[..., None]
    return runs.units._replace(weight=weight / kept.mean(-1, keepdims=True)[..., None])


def trunk(config: Config, estimator: Any = "reparam") -> Callable[[], nn.Module]:
    """The convolutional trunk of this configuration."""
    return functools.partial(
        ic.ConvTrunk, config.features, config.size, config.stride, config.layers, estimator=estimator
    )


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

    def fit(self, name: str, learner: Any, data: Any, seeds: Sequence[int]) -> Params:
        """The parameters of all runs."""
        return fit(
            learner, data, key=seed_keys(seeds), steps=self.steps, chunk=50, workdir=self.context.workdir / name,
            progress=self.context.progress(name),
        ).state.params  # fmt: skip

    def estimator(self, model: ic.ClusterModel) -> ic.EffectClusters:
        """The cluster model with this configuration's way of training."""
        c = self.config
        return ic.EffectClusters(model, self.steps, c.batch_images, c.learning_rate, c.cluster_rate)

    def clusters(
        self,
        name: str,
        model: ic.ClusterModel,
        units: te.Units,
        seeds: Sequence[int],
        prior: ic.Prior | None = None,
        balanced: bool = False,
    ) -> Params:
        """Effect cluster models of all runs; the prior is stacked by run, or None."""
        return self.estimator(model).train(
            seed_keys(seeds), units, prior, balanced=balanced, workdir=self.context.workdir / name,
            progress=self.context.progress(name),
        )  # fmt: skip

    def prior(self, model: ic.ClusterModel, units: te.Units) -> ic.Prior:
        """Of the clusters' parameters, by run."""
        return self.estimator(model).prior(units)

    def two_stages(
        self, name: str, model: ic.ClusterModel, units: te.Units, seeds: Sequence[int]
    ) -> tuple[Params, Params]:
        """Without a prior, then anew with the prior that the first fit gives; both fits are returned."""
        names = (f"{name} stage 1", f"{name} stage 2")
        return self.estimator(model).train_twice(
            seed_keys(seeds), units, self.context.workdir, names=names, progress=self.context.progress
        )

    def outcomes(self, name: str, module: nn.Module, units: te.Units, seeds: Sequence[int]) -> Float[Array, "runs n 2"]:
        """Both outcomes of every image by a network of all runs."""
        return self._regression(name, te.outcome_learner(module, self._adam()), module, units, seeds)

    def effects(self, name: str, module: nn.Module, target: te.Target, seeds: Sequence[int]) -> Float[Array, "runs n"]:
        """What is regressed on the images, of all runs."""
        return self._regression(name, te.regression_learner(module, self._adam()), module, target, seeds)

    def _adam(self) -> optax.GradientTransformation:
        return optax.nadam(optax.cosine_decay_schedule(self.config.learning_rate, self.steps))

    def _regression(self, name: str, learner: Any, module: nn.Module, data: Any, seeds: Sequence[int]) -> Array:
        axes = type(data)(None, *[0] * (len(data) - 1))
        learner = ic.together(learner, ic.sample_images(self.config.batch_images), len(seeds), axes)
        params = self.fit(name, learner, data, seeds)
        whole = jax.jit(lambda p: module.apply(p, data.x.astype(jnp.float32), mutable=["population"])[0])
        return jax.lax.map(whole, params)
