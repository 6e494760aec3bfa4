"""Effect clusters for those who have arrays: ``fit``, then effects, clusters, their effects, and transport.

A thin layer over :mod:`causal.image_cate.model`: what it returns is what the functions of this package say of the
parameters, in units of the outcome.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from causal.image_cate.ensembles import Ensemble, half_sampled
from causal.image_cate.intervals import last_layers, sandwich
from causal.image_cate.model import ClusterModel, Prior, Training
from causal.image_cate.posterior import Predicted, Transported, cluster_posterior, predict, transport
from causal.image_cate.priors import cluster_prior, empirical_prior, kernel_prior
from causal.image_cate.sampling import SHARED_X, by_image, of_units, sample_balanced_keys, sample_images, together
from causal.treatment_effects import Estimate, Units, inputs
from core.checks import Count, OpenFraction, Positive, checked
from core.errors import ConfigError
from core.fit import fit
from core.kinds import is_traced
from core.learner import Params, replicate_seeds, with_sampler

Progress = Callable[[str], Callable[[int, int], None]]


@checked
def optimiser(learning_rate: Positive, cluster_rate: Positive, steps: Count) -> optax.GradientTransformation:
    """Nadam, its rate falling to zero; the clusters' parameters move faster by a factor."""

    def of_clusters(params: Params) -> Any:
        return {"params": {k: jax.tree.map(lambda _: k == "clusters", v) for k, v in params["params"].items()}}  # noqa: B023

    rate = optax.cosine_decay_schedule(learning_rate, steps)
    return optax.chain(optax.nadam(rate), optax.masked(optax.scale(cluster_rate), of_clusters))


@flax.struct.dataclass
class FittedClusters:
    """A fitted :class:`EffectClusters`: a tree of arrays, to be passed to jit, mapped or stored."""

    estimator: "EffectClusters" = flax.struct.field(pytree_node=False)
    params: Params
    reference: Array
    """The training's images, whose features standardise those of others."""
    mean: Array
    """Of the outcome, as is ``sd``."""
    sd: Array

    @checked
    def predict(self, x: Any = None, key: Any = None, draws: Count = 20) -> Predicted:
        """See :func:`predict`; of the training's images if x is None, at the posterior means if the key is."""
        images = None if x is None else self._images(x)
        return predict(self.estimator.model, self.params, self.reference, key, draws, images)

    def _images(self, x: Any) -> Array:
        found = x if is_traced(x) else inputs.images(x)
        if found.shape[1:] != self.reference.shape[1:]:
            wanted = ", ".join(map(str, ("images", *self.reference.shape[1:])))
            raise ConfigError(f"x has shape {found.shape}, but the fit was given [{wanted}]")
        return jnp.asarray(found)

    @checked
    def effect(self, x: Any = None, key: Any = None, draws: Count = 20) -> Float[Array, " images"]:
        """tau(m) = sum_z p(z | m) mu_z."""
        return self.sd * self.predict(x, key, draws).effect.mean(0)

    @checked
    def clusters(self, x: Any = None, key: Any = None, draws: Count = 20) -> Float[Array, "images clusters"]:
        """p(z | m), clusters in ascending order of their effect."""
        return self.predict(x, key, draws).p.mean(0)

    def mu(self) -> Estimate:
        """Effects of the clusters with the mean-field posterior's sds.

        They mean something after two stages only, as without a prior they stay about where they start. The posterior
        takes the clusters' probabilities as known: prefer :meth:`sandwich` on units of images not trained on, or
        :meth:`EffectClusters.ensemble` where none can be spared.
        """
        found = cluster_posterior(self.params)
        return Estimate(self.sd * found.mu, self.sd * found.mu_sd)

    def sandwich(self, x: Any, image: Any, t: Any, y: Any) -> Estimate:
        """Effects of the clusters anew from units, best of images not trained on, with clustered standard errors."""
        units, _, sd = standardised_units(x, image, t, y)
        heads, features = last_layers(self.estimator.model, self.params, self.reference, units.x)
        found = sandwich(heads, features, units)
        return Estimate(sd * found.value, sd * found.se)

    @checked
    def transport(
        self, x: Any, levels: tuple[OpenFraction, ...] = (0.05, 0.5, 0.95), *, key: Any, draws: Count = 20,
        individual: bool = True,
    ) -> Transported:  # fmt: skip
        """Distribution of the effect at images without an experiment, see :func:`transport`."""
        moved = transport(self.predict(x, key, draws).p, cluster_posterior(self.params), levels, individual)
        return moved._replace(mean=self.sd * moved.mean, sd=self.sd * moved.sd, quantiles=self.sd * moved.quantiles)


@checked
@dataclasses.dataclass(frozen=True)
class EffectClusters:
    """How an effect cluster model is trained."""

    model: ClusterModel = dataclasses.field(default_factory=ClusterModel)
    steps: Count = 800
    batch_images: Count = 32
    """Images in a step, each with all of its units."""
    learning_rate: Positive = 1e-2
    cluster_rate: Positive = 3.0
    """Learning rate of the clusters' parameters, over that of the networks."""
    two_stages: bool = True
    """Whether a second fit has the prior that the first gives; one fit without a prior otherwise."""

    @checked
    def fit(
        self, key: Key[Array, ""], x: Any, image: Any, t: Any, y: Any, *, workdir: Path | str | None = None
    ) -> FittedClusters:
        """Trains on images and their units.

        Args:
          key: of initial weights, batches and draws.
          x: images [images, h, w, channels], or patches of the first layer.
          image: of every unit, its place in x.
          t: treatment of every unit, 0 or 1, randomised.
          y: outcome of every unit; networks see it standardised.
          workdir: for checkpoints; none if None.

        Raises:
          ConfigError: where an array cannot be used; names it and the remedy.
        """
        units, mean, sd = standardised_units(x, image, t, y)
        params = self._runs(key[None], _stacked(units), workdir)
        one = jax.tree.map(lambda leaf: leaf[0], params)
        return FittedClusters(self, one, units.x, jnp.float32(mean), jnp.float32(sd))

    @checked
    def ensemble(
        self,
        key: Key[Array, ""],
        x: Any,
        image: Any,
        t: Any,
        y: Any,
        *,
        members: Count = 8,
        workdir: Path | str | None = None,
    ) -> Ensemble:
        """Effects of the clusters by fits to random halves of the images, see :meth:`members`.

        Arguments as of :meth:`fit`.
        """
        if members < 2:
            raise ConfigError(f"members is {members}; a spread needs at least 2, and 8 or more are better")
        units, _, sd = standardised_units(x, image, t, y)
        key, half_key = jax.random.split(key)
        folder = workdir and Path(workdir) / "members"
        mu = self.members(jax.random.split(key, members), half_key, _stacked(units), workdir=folder)
        return Ensemble(sd * mu[0])

    def members(
        self, keys: Key[Array, " all"], half_key: Key[Array, ""], units: Units, **where: Any
    ) -> Float[Array, "runs members clusters"]:
        """Effects of the clusters by fits to random halves of the images, all as one program.

        Every member has its own start and the prior of the clusters' parameters, none of the kernels.

        Args:
          keys: of the members of all runs, those of a run side by side.
          half_key: of the halves.
          units: of runs, by image, outcomes standardised.
          **where: ``workdir`` and ``progress`` of :meth:`train`.
        """
        runs = len(units.weight)
        members = len(keys) // runs
        prior = jax.tree.map(lambda leaf: jnp.repeat(leaf, members, axis=0), self.prior(units))
        params = self.train(keys, half_sampled(half_key, units, members), prior, **where)
        return jax.vmap(cluster_posterior)(params).mu.reshape(runs, members, -1)

    def _runs(self, keys: Any, units: Units, workdir: Path | str | None) -> Params:
        if self.two_stages:
            return self.train_twice(keys, units, workdir)[1]
        return self.train(keys, units, workdir=workdir and Path(workdir) / "stage 1")

    def train(
        self, keys: Any, units: Units, prior: Prior | None = None, *, balanced: bool = False,
        workdir: Path | str | None = None, progress: Callable[[int, int], None] | None = None,
    ) -> Params:  # fmt: skip
        """Models of all runs as one program.

        Args:
          keys: one per run.
          units: by image, outcomes standardised; runs share the images and have an axis of outcomes of their own.
          prior: stacked by run, or None.
          balanced: whether batches hold one unit each of balanced keys.
          workdir: of this fit.
          progress: called with (steps done, steps in all).
        """
        axes = Training(SHARED_X, None if prior is None else 0, None)
        data = Training(units, prior, (units.weight[0] > 0).sum().astype(jnp.float32))
        learner = self.model.learner(optimiser(self.learning_rate, self.cluster_rate, self.steps))
        if balanced:
            sampled = with_sampler(learner, of_units(sample_balanced_keys(2 * self.batch_images)))
            many = replicate_seeds(sampled, len(keys), axes)
        else:
            many = together(learner, of_units(sample_images(self.batch_images)), len(keys), axes)
        done = fit(many, data, key=keys, steps=self.steps, chunk=50, workdir=workdir, progress=progress)
        return done.state.params

    def single_stage_prior(self, units: Units) -> Prior:
        """Of the clusters' parameters, and N(0, 1/inputs) of every kernel, by run: for one fit without a first."""
        few = units._replace(x=units.x[:2].astype(jnp.float32))
        params = jax.vmap(self.model.init, in_axes=(None, SHARED_X))(jax.random.key(0), few)
        return jax.vmap(kernel_prior)(params) | self.prior(units)

    def prior(self, units: Units) -> Prior:
        """Of the clusters' parameters, by run."""

        def of(t, y, weight):
            return cluster_prior(jax.random.key(0), Units(None, t, y, weight), 2 * self.batch_images)

        return jax.jit(jax.vmap(of))(units.t, units.y, units.weight)

    def train_twice(
        self, keys: Any, units: Units, workdir: Path | str | None = None, *,
        names: Sequence[str] = ("stage 1", "stage 2"), progress: Progress | None = None,
    ) -> tuple[Params, Params]:  # fmt: skip
        """Without a prior, then anew with the prior that the first fit gives; both fits are returned."""

        def stage(name: str, prior: Prior | None = None) -> Params:
            folder = None if workdir is None else Path(workdir) / name
            return self.train(keys, units, prior, workdir=folder, progress=progress and progress(name))

        first = stage(names[0])
        return first, stage(names[1], jax.vmap(empirical_prior)(first) | self.prior(units))


def standardised_units(x: Any, image: Any, t: Any, y: Any) -> tuple[Units, float, float]:
    """Units by image with outcomes standardised; their mean and sd.

    Raises:
      ConfigError: where an array cannot be used; names it and the remedy.
    """
    image = np.asarray(image)
    x = inputs.images(x)
    n, images = len(image), len(x)
    if image.ndim != 1 or not np.issubdtype(image.dtype, np.integer) or image.min() < 0 or image.max() >= images:
        raise ConfigError(
            f"image must hold the place in x, 0 to {images - 1}, of every unit; number names by names, image = "
            "np.unique(labels, return_inverse=True), and lay the images in the order of names"
        )
    t, y = inputs.treatment(t, n), inputs.outcome(y, n)
    return by_image(jnp.asarray(x), image, t, (y - y.mean()) / y.std()), float(y.mean()), float(y.std())


def _stacked(units: Units) -> Units:
    return Units(units.x, *(leaf[None] for leaf in units[1:]))
