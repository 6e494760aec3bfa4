"""What ``image_cate`` measures on the Ugandan trial and on IHDP."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from causal import image_cate as ic
from causal import treatment_effects as te
from core.datasets import ihdp, uganda
from core.fit import fit
from core.learner import seed_keys
from experiments.image_cate.config import Config
from experiments.image_cate.study.worlds import Trainer, as_input, cluster_model, trunk
from experiments.lab.system import Context

DATASET = "Uganda YOP"


class Trial(NamedTuple):
    """The real experiment, by image."""

    pixels: Float[np.ndarray, "images h w 3"]
    image: Int[np.ndarray, " n"]
    t: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]


class OutOfFold(NamedTuple):
    """Of units, by models that saw none of their image's outcomes."""

    m0: Float[np.ndarray, " n"]
    m1: Float[np.ndarray, " n"]


def load(context: Context) -> Trial:
    """Images that have units, standardised, and the units."""
    tiles, units = uganda.images("wide39", context.data_dir), uganda.units(context.data_dir)
    row, image = np.unique(uganda.rows_of(units, tiles), return_inverse=True)
    return Trial(ic.standardised(tiles.pixels[row]), image, units.treated.astype(float), units.outcome)


def trial(config: Config, context: Context) -> None:
    """Out-of-fold estimates by image key, judged by RATE with clustered half-samples."""
    found = load(context)
    cluster = te.Clusters.of(found.image)
    difference = te.difference_in_means(jnp.asarray(found.t), jnp.asarray(found.y), cluster)
    for metric, value in (("ATE", difference.value), ("ATE SE", difference.se)):
        context.record(dataset=DATASET, method="difference in means", metric=metric, seed=0, value=float(value))
    seeds = tuple(range(config.fold_seeds))
    fold = np.stack([np.random.default_rng(s).permutation(found.image.max() + 1) % config.folds for s in seeds])
    methods = by_networks(config, context, found, fold) | {"ridge on components": ridge(config, found, fold)}
    for method, fitted in methods.items():
        for seed, one in zip(seeds, fitted, strict=True):
            judge(config, context, found, method, seed, one)


def judge(config: Config, context: Context, found: Trial, method: str, seed: int, fitted: OutOfFold) -> None:
    """RATE, calibration, quintiles and the TOC curve of one cross-fit."""
    cluster, e = te.Clusters.of(found.image), float(found.t.mean())
    effect = jnp.asarray(fitted.m1 - fitted.m0)
    t, y, m0, m1 = (jnp.asarray(v) for v in (found.t, found.y, fitted.m0, fitted.m1))
    g = te.dr_scores(t, y, m0, m1, e)
    rate = te.rate_estimate(jax.random.key(seed), effect, g, cluster, config.half_samples)
    fit_line = te.calibration(effect, g, cluster)
    value = te.policy_value(te.affordable(effect, 0.5), g, cluster)
    estimates = {"AUTOC": rate.autoc, "Qini": rate.qini, "slope": fit_line.slope, "DR ATE": fit_line.mean,
                 "value of treating half": value}  # fmt: skip
    measured = {name: float(estimate.value) for name, estimate in estimates.items()}
    measured |= {f"{name} SE": float(estimate.se) for name, estimate in estimates.items()}
    measured |= {"AUTOC p": float(rate.autoc.p_value), "ATE": float(effect.mean()),
                 "spread of effects": float(effect.std())}  # fmt: skip
    for metric, number in measured.items():
        context.record(dataset=DATASET, method=method, metric=metric, seed=seed, value=number)
    groups = te.group_effects(te.quantile_groups(effect), g, cluster)
    for group, number in enumerate(groups.value):
        context.record(dataset=DATASET, method=method, metric="effect of quintile", seed=seed, value=float(number),
                       part="Uganda", group=group)  # fmt: skip
    shares = jnp.linspace(0.05, 1.0, 20)
    band = te.toc_band(jax.random.key(seed), effect, g, cluster, shares, config.half_samples)
    for share, number, se in zip(shares, band.gain.value, band.gain.se, strict=True):
        for metric, v in (("TOC", number), ("TOC half band", band.critical * se)):
            context.record(dataset=DATASET, method=method, metric=metric, seed=seed, value=float(v), part="Uganda",
                           share=round(float(share), 3))  # fmt: skip


def elsewhere(config: Config, context: Context) -> None:
    """A model of the whole trial, and the effects that it predicts for every tile, also where nobody was treated."""
    tiles, where, found = uganda.images("wide39", context.data_dir), uganda.places(context.data_dir), load(context)
    raw = tiles.pixels[np.isin(tiles.key, uganda.units(context.data_dir).image_key)].astype(np.float32)
    x = as_input((tiles.pixels - raw.mean((0, 1, 2))) / raw.std((0, 1, 2)), config)
    mean, sd = found.y.mean(), found.y.std()
    one = ic.by_image(as_input(found.pixels, config), found.image, found.t, (found.y - mean) / sd)
    units = te.Units(one.x, *(leaf[None] for leaf in one[1:]))
    model, train = cluster_model(config), Trainer(config, context, config.trial_steps)
    params = jax.tree.map(lambda leaf: leaf[0], train.two_stages("transport", model, units, (0,))[1])
    predict = jax.jit(lambda p: ic.predict(model, p, one.x, jax.random.key(0), config.predictive_draws, x))
    posterior = ic.cluster_posterior(params)
    moved = ic.transport(predict(params).p, posterior, (0.05, 0.95))
    numbers = {"mean": moved.mean * sd, "sd": moved.sd * sd, "5 %": moved.quantiles[:, 0] * sd,
               "95 %": moved.quantiles[:, 1] * sd, "p sd": moved.p_sd[:, -1]}  # fmt: skip
    for i in np.flatnonzero(np.isfinite(where.longitude)):
        for metric, values in numbers.items():
            context.record(dataset=DATASET, method="effect clusters", metric=f"effect at a tile, {metric}", seed=0,
                           value=float(values[i]), part="transport", tile=int(tiles.key[i]),
                           longitude=round(float(where.longitude[i]), 1),
                           latitude=round(float(where.latitude[i]), 1))  # fmt: skip


def by_networks(config: Config, context: Context, found: Trial, fold: np.ndarray) -> dict[str, list[OutOfFold]]:
    """The cluster model, with common noise and relaxed too, and TARNet; all folds of all seeds are one program."""
    images, (mean, sd) = len(found.pixels), (found.y.mean(), found.y.std())
    units = ic.by_image(as_input(found.pixels, config), found.image, found.t, (found.y - mean) / sd)
    kept = jnp.asarray(fold[:, None] != np.arange(config.folds)[:, None], jnp.float32).reshape(-1, images)
    many = units._replace(
        t=jnp.broadcast_to(units.t, (len(kept), *units.t.shape)),
        y=jnp.broadcast_to(units.y, (len(kept), *units.y.shape)),
        weight=units.weight * kept[..., None] / kept.mean(-1)[:, None, None],
    )
    train, seeds = Trainer(config, context, config.trial_steps), tuple(range(len(kept)))
    models = {
        "effect clusters": cluster_model(config),
        "effect clusters, common noise": cluster_model(config, common_noise=True),
        "effect clusters, relaxed": cluster_model(config, likelihood="relaxed"),
    }
    outcomes = {}
    for name, model in models.items():
        params = train.clusters(f"Uganda {name}", model, many, seeds)
        of = jax.jit(lambda p, model=model: ic.predict(model, p, units.x))
        made = jax.lax.map(of, params)
        m0 = made.baseline[:, 0]
        outcomes[name] = jnp.stack([m0, m0 + made.effect[:, 0]], axis=-1)
    outcomes["TARNet"] = train.outcomes("Uganda TARNet", te.TarNet(trunk(config, "point")), many, seeds)
    return {name: unfold(config, found, fold, np.asarray(m) * sd + mean) for name, m in outcomes.items()}


def unfold(config: Config, found: Trial, fold: np.ndarray, outcomes: np.ndarray) -> list[OutOfFold]:
    """For every seed what the model without a unit's image says of it."""
    images = fold.shape[1]
    by_fold = outcomes.reshape(len(fold), config.folds, images, 2)
    chosen = [by_fold[s, fold[s], np.arange(images)] for s in range(len(fold))]
    return [OutOfFold(m[found.image, 0], m[found.image, 1]) for m in chosen]


def ridge(config: Config, found: Trial, fold: np.ndarray) -> list[OutOfFold]:
    """T-learner: ridge regression on principal components of band means, deviations and means on a 7 x 7 grid."""
    side = np.array_split(np.arange(found.pixels.shape[1]), 7)
    grid = [found.pixels[:, a][:, :, b].mean((1, 2)) for a in side for b in side]
    features = np.concatenate([found.pixels.mean((1, 2)), found.pixels.std((1, 2)), *grid], axis=1)
    features = (features - features.mean(0)) / features.std(0)
    x = PCA(config.components).fit_transform(features)[found.image]
    made = []
    for one in fold[:, found.image]:
        m = np.zeros((2, len(x)))
        for k in range(config.folds):
            for arm in range(2):
                seen = (one != k) & (found.t == arm)
                m[arm, one == k] = Ridge(config.penalty).fit(x[seen], found.y[seen]).predict(x[one == k])
        made.append(OutOfFold(*m))
    return made


def tabular(config: Config, context: Context) -> None:
    """IHDP: networks with dense trunks instead of convolutions, on our splits."""
    for r, replication in enumerate(ihdp.load(context.data_dir)[: config.replications]):
        train, test = ihdp.split(r, len(replication.x))
        center, scale = replication.x[train].mean(0), replication.x[train].std(0)
        x = jnp.asarray((replication.x - center) / np.where(scale > 0, scale, 1))
        y, t = replication.y, replication.t.astype(np.float32)
        mean, sd = y[train].mean(), y[train].std()
        units = te.Units(x[train], jnp.asarray(t[train]), jnp.asarray((y[train] - mean) / sd), jnp.ones(len(train)))
        folder = context.workdir / f"IHDP-{r}"
        for method, effect in dense_methods(config, units, x[test], float(t[train].mean()), folder).items():
            error = np.asarray(effect) * sd - replication.effect[test]
            context.record(dataset="IHDP", method=method, metric="root PEHE", seed=r,
                           value=float(np.sqrt(np.mean(error**2))))  # fmt: skip


def dense_methods(
    config: Config, units: te.Units, x: Any, propensity: float, workdir: Path | None = None
) -> dict[str, Any]:
    """Effects at x by every meta-learner, full batches; each training has a folder in ``workdir``."""
    body = functools.partial(te.Mlp, (100, 100))
    tx = optax.adam(optax.cosine_decay_schedule(3e-3, config.tabular_steps))
    key = seed_keys([0])[0]

    def fitted(name: str, learner: Any, batch: Any) -> Any:
        folder = workdir and workdir / name
        return fit(learner, batch, key=key, steps=config.tabular_steps, chunk=250, workdir=folder).state.params

    found: dict[str, Any] = {}
    modules = {"T-learner": te.TNet(body), "S-learner": te.SingleNet(body), "TARNet": te.TarNet(body)}
    own: Any = None
    for name, module in modules.items():
        params = fitted(name, te.outcome_learner(module, tx), units)
        m: Any = module.apply(params, x)
        found[name] = te.effect_of(m)
        own = module.apply(params, units.x) if name == "TARNet" else own
    scalar = te.Scalar(body)

    def regressed(name: str, target: te.Target) -> Any:
        return scalar.apply(fitted(name, te.regression_learner(scalar, tx), target), x)

    targets = zip(("X-controls", "X-treated"), te.x_targets(units, own), strict=True)
    of_controls, of_treated = (regressed(name, target) for name, target in targets)
    found["X-learner"] = te.x_effect(of_controls, of_treated, propensity)
    found["DR-learner"] = regressed("DR", te.dr_target(units, own, propensity))
    found["R-learner"] = regressed("R", te.r_target(units, own, propensity))
    return found
