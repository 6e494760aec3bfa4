"""Many simulated experiments on the same images, and how estimates of their effects compare with the truth."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.ndimage import gaussian_filter
from sklearn.cluster import KMeans

from causal.image_cate.designs import Design, Experiment, simulate
from causal.image_cate.model import ClusterModel
from causal.image_cate.posterior import cluster_posterior, predict
from causal.image_cate.sampling import by_image
from causal.treatment_effects import Clusters, Units, difference_in_means
from core.checks import Count, checked
from core.learner import Params
from core.stats import central


@checked
def textures(count: Count, side: Count = 39) -> Float[np.ndarray, "images h w 3"]:
    """Smooth noise in three bands; every image has a dark spot of random strength in the first."""
    rng = np.random.default_rng(0)
    images = gaussian_filter(rng.normal(size=(count, side, side, 3)), (0, 2, 2, 0))
    rows, columns = rng.integers(6, side - 6, size=(2, count))
    strength = rng.exponential(images.std() * 2, size=count)
    for i in range(count):
        images[i, rows[i] - 1 : rows[i] + 2, columns[i] - 1 : columns[i] + 2, 0] -= strength[i]
    return images


class Runs(NamedTuple):
    """Experiments on the same images, a seed each, outcomes standardised and stacked."""

    seeds: Sequence[int]
    experiments: Sequence[Experiment]
    units: Units
    """Shared images; treatment, outcome and weight are [runs, images, units]."""
    mean: Float[np.ndarray, " runs"]
    sd: Float[np.ndarray, " runs"]

    def of(self, run: int) -> Units:
        """The units of one run."""
        return one_of(self.units, run)

    def only(self, kept: Bool[np.ndarray, "..."]) -> Units:
        """Units of chosen images alone, [images] or [runs, images]; those of the others get weight zero."""
        share = jnp.asarray(kept, jnp.float32)
        weight = self.units.weight * share[..., None]
        return self.units._replace(weight=weight / share.mean(-1, keepdims=True)[..., None])


@checked
def one_of(units: Units, run: int | slice) -> Units:
    """The units of one, or of some, of several runs that share their images."""
    return Units(units.x, *(leaf[run] for leaf in units[1:]))


@checked
def simulated(design: Design, pixels: Float[np.ndarray, "images h w c"], x: Any, seeds: Sequence[int]) -> Runs:
    """One experiment per seed.

    Args:
      design: see :func:`simulate`.
      pixels: of the images, standardised by band.
      x: what networks are given of them, in the same order.
      seeds: one per experiment.
    """
    made = [simulate(design, pixels, seed) for seed in seeds]
    mean, sd = np.array([e.y.mean() for e in made]), np.array([e.y.std() for e in made])
    rows = [by_image(x, e.image, e.t, (e.y - m) / s) for e, m, s in zip(made, mean, sd, strict=True)]
    parts = (jnp.stack([getattr(units, name) for units in rows]) for name in ("t", "y", "weight"))
    return Runs(seeds, made, Units(x, *parts), mean, sd)


@checked
def halves(images: Count, seeds: Sequence[int]) -> Bool[np.ndarray, "seeds images"]:
    """A random half of the images for every seed."""
    return np.stack([np.random.default_rng(seed).permutation(images) < images // 2 for seed in seeds])


class Found(NamedTuple):
    """What a method says of one run, in units of the outcome; clusters in ascending order of their effect."""

    effect: Float[np.ndarray, " images"]
    p: Float[np.ndarray, "images clusters"] | None = None
    mu: Float[np.ndarray, " clusters"] | None = None
    draws: Float[np.ndarray, "draws images"] | None = None
    """Of the effect, from the posterior."""


def scores(experiment: Experiment, found: Found) -> dict[str, float]:
    """PEHE and whatever else applies: error of the average effect, correlations, errors of mu, coverage of tau(m)."""
    truth, effect = experiment.effect, found.effect
    cluster = Clusters(jnp.asarray(experiment.image), len(truth))
    difference = difference_in_means(jnp.asarray(experiment.t), jnp.asarray(experiment.y), cluster)
    made = {
        "PEHE": np.sqrt(np.mean((effect - truth) ** 2)),
        "ATE error": effect.mean() - truth.mean(),
        "ATE less difference in means, SE": (effect.mean() - float(difference.value)) / float(difference.se),
        "spread of effects": effect.std(),
    }
    if effect.std() > 0 and truth.std() > 0:
        made["corr(tau)"] = np.corrcoef(effect, truth)[0, 1]
    if found.p is not None and found.p.shape == experiment.p.shape and truth.std() > 0:
        made["corr(p)"] = np.corrcoef(found.p[:, -1], experiment.p[:, -1])[0, 1]
    if found.mu is not None and found.mu.shape == experiment.mu.shape:
        made["largest |mu error|"] = np.abs(found.mu - experiment.mu).max()
        made |= {f"mu {k}": value for k, value in enumerate(found.mu)}
    if found.draws is not None:
        low, high = central(found.draws, 0.9)
        made["coverage of tau(m), 90 %"] = np.mean((low <= truth) & (truth <= high))
    return {name: float(value) for name, value in made.items()}


@checked
def found_of(model: ClusterModel, runs: Runs, params: Params, draws: Count) -> list[Found]:
    """What cluster models of all runs, their parameters stacked, say of the images."""
    point = model.network.estimator == "point"

    @jax.jit
    def of(p, key, reference):
        return predict(model, p, reference, None if point else key, draws), cluster_posterior(p)

    made = []
    for i, sd in enumerate(runs.sd):
        found, posterior = of(jax.tree.map(lambda leaf, i=i: leaf[i], params), jax.random.key(i), runs.units.x)
        drawn, p = np.asarray(found.effect) * sd, np.asarray(found.p.mean(0))
        made.append(Found(drawn.mean(0), p, np.asarray(posterior.mu) * sd, None if point else drawn))
    return made


def without_clusters(runs: Runs, effects: Float[Array, "runs images"]) -> list[Found]:
    """Effects alone, given in deviations of the outcome."""
    return [Found(np.asarray(effect) * sd) for effect, sd in zip(effects, runs.sd, strict=True)]


def by_kmeans(runs: Runs, effects: Float[Array, "runs images"]) -> list[Found]:
    """Two clusters of estimated effects; each image is given its cluster's mean effect."""
    made = []
    for effect, sd in zip(np.asarray(effects), runs.sd, strict=True):
        fitted = KMeans(2, random_state=0).fit(effect[:, None])
        order = np.argsort(fitted.cluster_centers_[:, 0])
        mu = fitted.cluster_centers_[order, 0] * sd
        member = np.argsort(order)[fitted.labels_]
        made.append(Found(mu[member], np.eye(2)[member], mu))
    return made


@checked
def without_folds(units: Units, fold: Int[np.ndarray, "seeds images"], folds: Count) -> Units:
    """The units of many runs, one for each fold of each seed, which lacks that fold's images."""
    kept = jnp.asarray(fold[:, None] != np.arange(folds)[:, None], jnp.float32).reshape(-1, fold.shape[1])
    t, y = (jnp.broadcast_to(leaf, (len(kept), *leaf.shape)) for leaf in (units.t, units.y))
    return Units(units.x, t, y, units.weight * kept[..., None] / kept.mean(-1)[:, None, None])


def of_own_fold(
    found: Float[np.ndarray, "runs images ..."], fold: Int[np.ndarray, "seeds images"]
) -> Float[np.ndarray, "seeds images ..."]:
    """What the run of :func:`without_folds` that lacks an image says of it."""
    seeds, images = fold.shape
    by_fold = found.reshape(seeds, -1, *found.shape[1:])
    return np.stack([by_fold[s, fold[s], np.arange(images)] for s in range(seeds)])
