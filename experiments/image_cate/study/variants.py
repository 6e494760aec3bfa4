"""Other ways of ``image_cate`` to estimate effects on design S1: meta-learners, and variants of the cluster model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causal import image_cate as ic
from causal import treatment_effects as te
from experiments.image_cate.config import Config
from experiments.image_cate.study.simulated import Found, measure, of_clusters, plain
from experiments.image_cate.study.worlds import Pictures, Runs, Trainer, cluster_model, simulated, trunk
from experiments.lab.system import Context

PROPENSITY = 0.5


def baselines(config: Config, context: Context, pictures: Pictures) -> None:
    """S- and T-learner with the same trunk, DR- and R-learner on the T-learner's outcomes."""
    runs, made = simulated("S1", pictures, tuple(context.seeds)), trunk(config, "point")
    train = Trainer(config, context, config.steps)
    both = train.outcomes("S1 T-learner", te.TNet(made), runs.units, runs.seeds)
    single = train.outcomes("S1 S-learner", te.SingleNet(made), runs.units, runs.seeds)
    found = {"T-learner": te.effect_of(both), "S-learner": te.effect_of(single)}
    targets: dict[str, Callable[..., te.Target]] = {"DR-learner": te.dr_target, "R-learner": te.r_target}
    for name, target in targets.items():
        axes: Any = te.Target(None, 0, 0)
        of_runs = jax.vmap(
            lambda u, m, target=target: target(u, m, PROPENSITY), in_axes=(ic.SHARED_X, 0), out_axes=axes
        )
        found[name] = train.effects(f"S1 {name}", te.Scalar(made), of_runs(runs.units, both), runs.seeds)
    for name, effects in found.items():
        measure(context, runs, "S1", name, plain(runs, effects))


class Variant(NamedTuple):
    """The cluster model of one stage, changed in one respect."""

    settings: dict[str, Any]
    """Of the model."""
    has_prior: bool = False
    """Whether kernels have the prior N(0, 1 / inputs), and the clusters' parameters theirs."""
    balanced: bool = False
    """Whether batches hold one unit for each of balanced keys."""


VARIANTS = {
    "relaxed": Variant({"likelihood": "relaxed"}),
    "single stage": Variant({}, has_prior=True),
    "point weights": Variant({"estimator": "point"}),
    "shared trunk": Variant({"shared": True}),
    "image-dependent": Variant({"image_effects": True}),
    "balanced keys": Variant({}, balanced=True),
}


def variants(context: Context) -> list[dict[str, str]]:
    """The cells of the ablations."""
    seeds = ",".join(map(str, context.seeds))
    return [{"method": f"effect clusters, {name}", "seeds": seeds} for name in VARIANTS]


def ablations(config: Config, context: Context, pictures: Pictures) -> None:
    """The cluster model without its second stage, changed in one respect each."""
    runs = simulated("S1", pictures, tuple(context.seeds))
    for (name, variant), cell in zip(VARIANTS.items(), variants(context), strict=True):
        if not context.done(**cell):
            measure(context, runs, "S1", cell["method"], fitted(config, context, runs, name, variant))
            context.finish(**cell)


def fitted(config: Config, context: Context, runs: Runs, name: str, variant: Variant) -> list[Found]:
    """A variant of all runs."""
    model, train = cluster_model(config, **variant.settings), Trainer(config, context, config.steps)
    prior = None
    if variant.has_prior:
        few = runs.units._replace(x=runs.units.x[:2].astype(jnp.float32))
        params = jax.vmap(model.init, in_axes=(None, ic.SHARED_X))(jax.random.key(0), few)
        prior = jax.vmap(ic.kernel_prior)(params) | train.prior(model, runs.units)
    params = train.clusters(f"S1 {name}", model, runs.units, runs.seeds, prior, variant.balanced)
    return of_clusters(config, runs, model, params)
