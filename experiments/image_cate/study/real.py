"""What ``image_cate`` measures on the Ugandan trial and on IHDP."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from causal import image_cate as ic
from causal import treatment_effects as te
from core.datasets import ihdp, uganda
from core.learner import seed_keys
from experiments.image_cate.config import Config
from experiments.image_cate.study.simulated import OURS
from experiments.image_cate.study.worlds import Trainer, as_input, cluster_model, trunk
from experiments.lab import Context, Place

DATASET = "Uganda YOP"


class Trial(NamedTuple):
    """The real experiment, by image."""

    pixels: Float[np.ndarray, "images h w 3"]
    image: Int[np.ndarray, " n"]
    t: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]


def load(context: Context) -> Trial:
    """Images that have units, standardised, and the units."""
    tiles, units = uganda.images("wide39", context.data_dir), uganda.units(context.data_dir)
    row, image = np.unique(uganda.rows_of(units, tiles), return_inverse=True)
    return Trial(ic.standardised(tiles.pixels[row]), image, units.treated.astype(float), units.outcome)


def trial(config: Config, context: Context) -> None:
    """Out-of-fold estimates by image key, judged by RATE with clustered half-samples."""
    found = load(context)
    difference = te.difference_in_means(jnp.asarray(found.t), jnp.asarray(found.y), te.Clusters.of(found.image))
    at = context.at(dataset=DATASET, method="difference in means", seed=0)
    at.record_all({"ATE": difference.value, "ATE SE": difference.se})
    seeds = tuple(range(config.fold_seeds))
    fold = np.stack([np.random.default_rng(s).permutation(found.image.max() + 1) % config.folds for s in seeds])
    x = ic.band_components(found.pixels, config.components)[found.image]
    ridge = [ic.ridge_outcomes(x, found.t, found.y, one[found.image], config.penalty) for one in fold]
    for method, fitted in (by_networks(config, context, found, fold) | {"ridge on components": ridge}).items():
        for seed, m in zip(seeds, fitted, strict=True):
            at = context.at(dataset=DATASET, method=method, seed=seed)
            note_estimates(config, at, jax.random.key(seed), found, m)


def note_estimates(config: Config, at: Place, key: Any, found: Trial, m: Float[np.ndarray, "2 n"]) -> None:
    """RATE, calibration, quintiles and the TOC curve of outcomes without and with treatment, out of fold."""
    cluster, effect, half = te.Clusters.of(found.image), jnp.asarray(m[1] - m[0]), config.half_samples
    t, y, m0, m1 = (jnp.asarray(v) for v in (found.t, found.y, *m))
    g = te.dr_scores(t, y, m0, m1, float(found.t.mean()))
    rate, line = te.rate_estimate(key, effect, g, cluster, half), te.calibration(effect, g, cluster)
    estimates = {
        "AUTOC": rate.autoc, "Qini": rate.qini, "slope": line.slope, "DR ATE": line.mean,
        "value of treating half": te.policy_value(te.affordable(effect, 0.5), g, cluster),
    }  # fmt: skip
    for metric, estimate in estimates.items():
        at.record_all({metric: estimate.value, f"{metric} SE": estimate.se})
    at.record_all({"AUTOC p": rate.autoc.p_value, "ATE": effect.mean(), "spread of effects": effect.std()})
    at = at.at(part="Uganda")
    for group, value in enumerate(te.group_effects(te.quantile_groups(effect), g, cluster).value):
        at.record("effect of quintile", value, group=group)
    band = te.toc_band(key, effect, g, cluster, shares := jnp.linspace(0.05, 1.0, 20), half)
    for share, value, se in zip(shares, band.gain.value, band.gain.se, strict=True):
        at.record_all({"TOC": value, "TOC half band": band.critical * se}, share=round(float(share), 3))


def elsewhere(config: Config, context: Context) -> None:
    """A model of the whole trial, and the effects that it predicts for every tile, also where nobody was treated."""
    tiles, where, found = uganda.images("wide39", context.data_dir), uganda.places(context.data_dir), load(context)
    raw = tiles.pixels[np.isin(tiles.key, uganda.units(context.data_dir).image_key)].astype(np.float32)
    x = as_input((tiles.pixels - raw.mean((0, 1, 2))) / raw.std((0, 1, 2)), config)
    way = Trainer(config, context, config.trial_steps).estimator(cluster_model(config))
    seen, folder, draws = as_input(found.pixels, config), context.workdir / "transport", config.predictive_draws
    fitted = way.fit(jax.random.key(0), seen, found.image, found.t, found.y, workdir=folder)
    moved = fitted.transport(x, (0.05, 0.95), key=jax.random.key(0), draws=draws)
    numbers = {"mean": moved.mean, "sd": moved.sd, "5 %": moved.quantiles[:, 0], "95 %": moved.quantiles[:, 1],
               "p sd": moved.p_sd[:, -1]}  # fmt: skip
    for i in np.flatnonzero(np.isfinite(where.longitude)):
        degrees = {name: round(float(getattr(where, name)[i]), 1) for name in ("longitude", "latitude")}
        at = context.at(dataset=DATASET, method=OURS, seed=0, part="transport", tile=int(tiles.key[i]), **degrees)
        at.record_all({f"effect at a tile, {metric}": values[i] for metric, values in numbers.items()})


def by_networks(
    config: Config, context: Context, found: Trial, fold: np.ndarray
) -> dict[str, Float[np.ndarray, "seeds 2 n"]]:
    """The cluster model, with common noise and relaxed too, and TARNet; all folds of all seeds are one program."""
    mean, sd = found.y.mean(), found.y.std()
    units = ic.by_image(as_input(found.pixels, config), found.image, found.t, (found.y - mean) / sd)
    many = ic.without_folds(units, fold, config.folds)
    train, seeds = Trainer(config, context, config.trial_steps), tuple(range(len(many.weight)))
    models = {
        OURS: cluster_model(config),
        f"{OURS}, common noise": cluster_model(config, common_noise=True),
        f"{OURS}, relaxed": cluster_model(config, likelihood="relaxed"),
    }
    outcomes = {}
    for name, model in models.items():
        of = jax.jit(lambda p, model=model: ic.predict(model, p, units.x))
        made = jax.lax.map(of, train.clusters(f"Uganda {name}", model, many, seeds))
        m0 = made.baseline[:, 0]
        outcomes[name] = jnp.stack([m0, m0 + made.effect[:, 0]], axis=-1)
    outcomes["TARNet"] = train.networks("Uganda TARNet", te.TarNet(trunk(config, "point")), many, seeds)
    own = {name: ic.of_own_fold(np.asarray(m) * sd + mean, fold) for name, m in outcomes.items()}
    return {name: m[:, found.image].transpose(0, 2, 1) for name, m in own.items()}


def tabular(config: Config, context: Context) -> None:
    """IHDP: networks with dense trunks instead of convolutions, on our splits."""
    body: Any = functools.partial(te.Mlp, (100, 100))
    for r, replication in enumerate(ihdp.load(context.data_dir)[: config.replications]):
        train, test = ihdp.split(r, len(replication.x))
        center, scale = replication.x[train].mean(0), replication.x[train].std(0)
        x = jnp.asarray((replication.x - center) / np.where(scale > 0, scale, 1))
        y, t = replication.y, replication.t.astype(np.float32)
        mean, sd = y[train].mean(), y[train].std()
        units = te.Units(x[train], jnp.asarray(t[train]), jnp.asarray((y[train] - mean) / sd), jnp.ones(len(train)))
        found = te.plain_effects(
            seed_keys([0])[0], units, x[test], body, float(t[train].mean()), config.tabular_steps,
            workdir=context.workdir / f"IHDP-{r}",
        )  # fmt: skip
        for method, effect in found.items():
            error = np.asarray(effect) * sd - replication.effect[test]
            context.at(dataset="IHDP", method=method, seed=r).record("root PEHE", np.sqrt(np.mean(error**2)))
