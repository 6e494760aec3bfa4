"""How often intervals for the clusters' effects hold the truth."""

from typing import Any

import jax
import numpy as np

from causal import image_cate as ic
from causal import treatment_effects as te
from core.learner import Params
from experiments.image_cate_settings import Config
from experiments.image_cate_simulated import halves
from experiments.image_cate_worlds import Pictures, Trainer, cluster_model, only, simulated
from experiments.system import Context

LEVEL = 0.9


def coverage(config: Config, context: Context, pictures: Pictures) -> None:
    """Design S1, data set after data set: the mean-field posterior's interval and clustered ones.

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
    for i, seed in enumerate(seeds):
        parts = [te.Units(u.x, *(leaf[i] for leaf in u[1:])) for u in (trained, only(runs, ~kept))]
        found = find(jax.tree.map(lambda leaf, i=i: leaf[i], params), *parts)
        for method, estimate in found.items():
            low, high = (np.asarray(v) * runs.sd[i] for v in estimate.interval(LEVEL))
            for k, truth in enumerate(runs.experiments[i].mu):
                place: dict[str, Any] = {"part": "coverage", "cluster": k}
                measured = {"covered": low[k] <= truth <= high[k], "width": high[k] - low[k]}
                for metric, value in measured.items():
                    context.record(dataset="S1 coverage", method=method, metric=metric, seed=seed, value=float(value),
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
