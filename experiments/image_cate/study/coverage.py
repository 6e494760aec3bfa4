"""How often intervals for the clusters' effects hold the truth."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal import image_cate as ic
from causal import treatment_effects as te
from core.learner import Params
from experiments.image_cate.config import Config
from experiments.image_cate.study.simulated import halves
from experiments.image_cate.study.worlds import Pictures, Runs, Trainer, cluster_model, only, simulated
from experiments.lab.system import Context

LEVEL = 0.9
ENSEMBLE = "ensemble, all images"
MEMBERS = 6
"""Refits of each data set."""
SETS_AT_ONCE = 8
"""Data sets whose members are one program; all at once would need five times the memory."""


def coverage(config: Config, context: Context, pictures: Pictures) -> None:
    """Design S1, data set after data set: the mean-field posterior's interval, clustered ones, and an ensemble's.

    The clusters' parameters have their prior, the kernels none, as in the first stage.
    """
    seeds = tuple(range(config.coverage_sets))
    runs = simulated("S1", pictures, seeds)
    model = cluster_model(config, first_rho=-3.0)
    kept = halves(len(pictures.x), seeds)
    trained = only(runs, kept)
    train = Trainer(config, context, config.coverage_steps)
    params = train.clusters("coverage", model, trained, seeds, train.prior(model, trained))
    find = jax.jit(lambda p, a, b: intervals(model, p, a, b))
    for i in range(len(seeds)):
        parts = [te.Units(u.x, *(leaf[i] for leaf in u[1:])) for u in (trained, only(runs, ~kept))]
        for method, estimate in find(jax.tree.map(lambda leaf, i=i: leaf[i], params), *parts).items():
            judge(context, runs, i, method, estimate.interval(LEVEL))
    for i, ensemble in enumerate(ensembles(train, model, runs)):
        judge(context, runs, i, ENSEMBLE, ensemble.interval(LEVEL))


def judge(context: Context, runs: Runs, i: int, method: str, interval: tuple[Any, Any]) -> None:
    """Records whether an interval of one data set, outcomes standardised, holds each cluster's effect."""
    low, high = (np.asarray(v) * runs.sd[i] for v in interval)
    for k, truth in enumerate(runs.experiments[i].mu):
        place: dict[str, Any] = {"part": "coverage", "cluster": k}
        measured = {"covered": low[k] <= truth <= high[k], "width": high[k] - low[k]}
        for metric, value in measured.items():
            context.record(dataset="S1 coverage", method=method, metric=metric, seed=runs.seeds[i], value=float(value),
                           **place)  # fmt: skip


def intervals(model: ic.ClusterModel, params: Params, own: te.Units, other: te.Units) -> dict[str, te.Estimate]:
    """Of the training's images, and of others with the features learned there."""
    posterior = ic.cluster_posterior(params)
    heads, features = ic.last_layers(model, params, own.x)
    return {
        "mean-field": te.Estimate(posterior.mu, posterior.mu_sd),
        "sandwich": ic.sandwich(heads, features, own),
        "sandwich, other images": ic.sandwich(heads, features, other),
    }


def ensembles(train: Trainer, model: ic.ClusterModel, runs: Runs) -> list[ic.Ensemble]:
    """Of every data set: refits of the model, with its prior, to halves of all images."""
    return [
        ic.Ensemble(mu)
        for start in range(0, len(runs.seeds), SETS_AT_ONCE)
        for mu in members(train, model, runs, slice(start, start + SETS_AT_ONCE))
    ]


def members(train: Trainer, model: ic.ClusterModel, runs: Runs, sets: slice) -> np.ndarray:
    """Effects of the clusters by every member of some data sets, [sets, members, clusters]."""
    seeds, name = jnp.asarray(runs.seeds[sets]), f"coverage ensemble {sets.start}"
    units = te.Units(runs.units.x, *(leaf[sets] for leaf in runs.units[1:]))
    keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed), MEMBERS))(seeds).reshape(-1)
    prior = jax.tree.map(lambda leaf: jnp.repeat(leaf, MEMBERS, axis=0), train.prior(model, units))
    params = train.estimator(model).train(
        keys, ic.half_sampled(jax.random.key(sets.start), units, MEMBERS), prior,
        workdir=train.context.workdir / name, progress=train.context.progress(name),
    )  # fmt: skip
    return np.asarray(jax.vmap(ic.cluster_posterior)(params).mu).reshape(len(seeds), MEMBERS, -1)
