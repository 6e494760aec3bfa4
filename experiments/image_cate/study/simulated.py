"""What ``image_cate`` measures where the truth is known."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal import image_cate as ic
from causal import treatment_effects as te
from core.learner import seed_keys
from core.stats import rank_correlation
from experiments.image_cate.config import Config
from experiments.image_cate.study.worlds import Pictures, Trainer, cluster_model, trunk
from experiments.lab import Context, Place

OURS = "effect clusters"
PROPENSITY, LEVEL = 0.5, 0.9
SETS_AT_ONCE = 8
"""Data sets whose ensembles are one program; all at once would need five times the memory."""


def measure(context: Context, runs: ic.Runs, dataset: str, method: str, found: list[ic.Found]) -> None:
    """Records how each run's estimate compares with the truth."""
    for seed, experiment, one in zip(runs.seeds, runs.experiments, found, strict=True):
        context.at(dataset=dataset, method=method, seed=seed).record_all(ic.scores(experiment, one))


def heterogeneity(config: Config, context: Context, pictures: Pictures) -> None:
    """Design S1: every method; then what the fitted cluster model is sensitive to."""
    runs, model = pictures.runs("S1", context.seeds), cluster_model(config)
    train = Trainer(config, context, config.steps)
    constant = [np.full(len(pictures.x), e.y[e.t == 1].mean() - e.y[e.t == 0].mean()) for e in runs.experiments]
    note = functools.partial(measure, context, runs, "S1")
    note("difference in means", [ic.Found(effect) for effect in constant])
    first, params = train.two_stages("S1", model, runs.units, runs.seeds)
    found = ic.found_of(model, runs, params, config.predictive_draws)
    note(OURS, found)
    note(f"{OURS}, no prior", ic.found_of(model, runs, first, config.predictive_draws))
    note_by_truth(context, runs, found[0])
    salience(config, context, pictures, model, params)
    tarnet = te.effect_of(train.networks("S1 TARNet", te.TarNet(trunk(config, "point")), runs.units, runs.seeds))
    note("TARNet", ic.without_clusters(runs, tarnet))
    note("k-means of TARNet", ic.by_kmeans(runs, tarnet))


def note_by_truth(context: Context, runs: ic.Runs, found: ic.Found) -> None:
    """True and estimated effects of the first run, image by image in bins of the truth, for a figure."""
    truth, at = runs.experiments[0].effect, ours(context, runs.seeds[0], "calibration")
    assert found.p is not None
    for rank, images in enumerate(np.array_split(np.argsort(truth), min(40, len(truth)))):
        place = at.at(rank=rank, truth=float(truth[images].mean()))
        for name, values in (("effect", found.effect), ("p", found.p[:, -1])):
            place.record(f"{name} by truth", values[images].mean())


def one(params: Any, i: int) -> Any:
    """The parameters of one run."""
    return jax.tree.map(lambda leaf: leaf[i], params)


def ours(context: Context, seed: int, part: str) -> Place:
    """The place of the cluster model's numbers on design S1 beside the main ones."""
    return context.at(dataset="S1", method=OURS, seed=seed, part=part)


def salience(config: Config, context: Context, pictures: Pictures, model: ic.ClusterModel, params: Any) -> None:
    """Sensitivity of the probability of the large effect, beside the response that effects were made from."""
    images = pictures.pixels[np.linspace(0, len(pictures.pixels) - 1, config.salience_images).astype(int)]
    target = ic.response_boxes(images)
    key, draws = jax.random.key(0), config.salience_draws
    maps = jax.jit(lambda p, x: ic.model_sensitivity(key, model, p, pictures.x, x, draws))
    for i, seed in enumerate(context.seeds):
        found, at = maps(one(params, i), jnp.asarray(images)), ours(context, seed, "salience")
        magnitude = np.asarray(found.magnitude)
        each = [rank_correlation(a.ravel(), b.ravel()) for a, b in zip(magnitude, target, strict=True)]
        averaged = rank_correlation(magnitude.mean(0).ravel(), target.mean(0).ravel())
        for name, value in {"averaged maps": averaged, "images": np.mean(each)}.items():
            at.record(f"salience correlation of {name}", value)
        if i == 0:
            best = int(np.argmax(each))
            shown = {"band 0": images[best][4:34, 4:34, 0], "response": target[best], "magnitude": magnitude[best],
                     "direction": np.asarray(found.direction)[best]}  # fmt: skip
            for name, values in shown.items():
                for (row, column), value in np.ndenumerate(values[::2, ::2]):
                    at.record(f"map: {name}", value, part="map", row=row, column=column)


def none(config: Config, context: Context, pictures: Pictures) -> None:
    """Design S2: models trained on half of the images are asked to rank the other half."""
    seeds = tuple(range(config.null_sets))
    runs, kept = pictures.runs("S2", seeds), ic.halves(len(pictures.x), seeds)
    model, train = cluster_model(config, estimator="point"), Trainer(config, context, config.coverage_steps)
    params = train.clusters("S2", model, runs.only(kept), seeds)
    for i, found in enumerate(ic.found_of(model, runs, params, config.predictive_draws)):
        e, other = runs.experiments[i], ~kept[i][runs.experiments[i].image]
        image, y, t = e.image[other], e.y[other], e.t[other]
        m0, m1 = (jnp.full(len(y), y[t == arm].mean()) for arm in (0, 1))
        g = te.dr_scores(jnp.asarray(t), jnp.asarray(y), m0, m1, PROPENSITY)
        predicted, cluster = found.effect[image], te.Clusters.of(image)
        rate = te.rate_estimate(jax.random.key(i), jnp.asarray(predicted), g, cluster, config.half_samples)
        at = context.at(dataset="S2", method=OURS, seed=seeds[i])
        for name, estimate in (("AUTOC", rate.autoc), ("Qini", rate.qini)):
            at.record_all({name: estimate.value, f"{name} SE": estimate.se})
        at.record("spread of effects", predicted.std())


def number_of_clusters(config: Config, context: Context, pictures: Pictures) -> None:
    """Design S3: held-out likelihood by the number of clusters, a fifth of the images held out."""
    seeds, n = tuple(context.seeds), len(pictures.x)
    runs = pictures.runs("S3", seeds)
    kept = np.stack([np.random.default_rng(seed).permutation(n) >= n // 5 for seed in seeds])
    rest, train = runs.only(~kept), Trainer(config, context, config.coverage_steps)
    for clusters in config.clusters:
        model = cluster_model(config, clusters, "point")
        params = train.clusters(f"S3 K={clusters}", model, runs.only(kept), seeds)
        value = jax.jit(lambda p, units, model=model: ic.held_out_log_likelihood(model, p, units.x, units))
        for i, seed in enumerate(seeds):
            found = value(one(params, i), ic.one_of(rest, i)) - np.log(runs.sd[i])
            at = context.at(dataset="S3", method=OURS, seed=seed, part="clusters", K=clusters)
            at.record("held-out log likelihood", found)
        if clusters == runs.experiments[0].p.shape[1]:
            measure(context, runs, "S3", OURS, ic.found_of(model, runs, params, config.predictive_draws))


def coverage(config: Config, context: Context, pictures: Pictures) -> None:
    """Design S1, data set after data set: what the intervals hold that users get, with the library's way of fitting.

    The mean-field posterior's and the sandwich's are of a fit of two stages to half of the images, the ensemble's of
    members on halves of all.
    """
    seeds = tuple(range(config.coverage_sets))
    runs, kept = pictures.runs("S1", seeds), ic.halves(len(pictures.x), seeds)
    model, train = cluster_model(config), Trainer(config, context, config.steps)
    trained, rest = runs.only(kept), runs.only(~kept)
    params = train.two_stages("coverage", model, trained, seeds)[1]
    find = jax.jit(lambda p, a, b: ic.offered(model, p, a, b))
    for i in range(len(seeds)):
        for method, estimate in find(one(params, i), ic.one_of(trained, i), ic.one_of(rest, i)).items():
            note_interval(context, runs, i, method, estimate.interval(LEVEL))
    for start in range(0, len(seeds), SETS_AT_ONCE):
        sets = slice(start, start + SETS_AT_ONCE)
        keys, half_keys = jax.vmap(jax.random.split, out_axes=1)(seed_keys(seeds[sets]))
        some = jax.vmap(lambda key: jax.random.split(key, config.members))(keys).reshape(-1)
        units, where = ic.one_of(runs.units, sets), train.where(f"coverage ensemble {start}")
        found = train.estimator(model).members(some, half_keys[0], units, **where)
        for i, mu in enumerate(np.asarray(found), start):
            note_interval(context, runs, i, "ensemble, all images", ic.Ensemble(mu).interval(LEVEL))


def note_interval(context: Context, runs: ic.Runs, i: int, method: str, interval: tuple[Any, Any]) -> None:
    """Whether an interval of one data set, outcomes standardised, holds each cluster's effect; NaN if there is none."""
    low, high = (np.asarray(v) * runs.sd[i] for v in interval)
    for k, truth in enumerate(runs.experiments[i].mu):
        at = context.at(dataset="S1 coverage", method=method, seed=runs.seeds[i], part="coverage", cluster=k)
        width = high[k] - low[k]
        at.record_all({"covered": low[k] <= truth <= high[k] if np.isfinite(width) else np.nan, "width": width})


def baselines(config: Config, context: Context, pictures: Pictures) -> None:
    """S- and T-learner with the same trunk, DR- and R-learner on the T-learner's outcomes."""
    runs, made = pictures.runs("S1", context.seeds), trunk(config, "point")
    train = Trainer(config, context, config.steps)
    both = train.networks("S1 T-learner", te.TNet(made), runs.units, runs.seeds)
    single = train.networks("S1 S-learner", te.SingleNet(made), runs.units, runs.seeds)
    found = {"T-learner": te.effect_of(both), "S-learner": te.effect_of(single)}
    axes: Any = te.Target(None, 0, 0)
    for name, target in (("DR-learner", te.dr_target), ("R-learner", te.r_target)):
        of: Any = lambda u, m, target=target: target(u, m, PROPENSITY)  # noqa: E731
        targets = jax.vmap(of, in_axes=(ic.SHARED_X, 0), out_axes=axes)(runs.units, both)
        found[name] = train.networks(f"S1 {name}", te.Scalar(made), targets, runs.seeds)
    for name, effects in found.items():
        measure(context, runs, "S1", name, ic.without_clusters(runs, effects))


VARIANTS: dict[str, dict[str, Any]] = {
    "relaxed": {"likelihood": "relaxed"},
    "single stage": {"has_prior": True},
    "point weights": {"estimator": "point"},
    "shared trunk": {"shared": True},
    "image-dependent": {"image_effects": True},
    "balanced keys": {"balanced": True},
}
"""Settings of the model; "has_prior": kernels have the prior N(0, 1 / inputs), and the clusters' parameters theirs;
"balanced": batches hold one unit for each of balanced keys."""


def ablation(config: Config, context: Context, pictures: Pictures, name: str) -> None:
    """The cluster model without its second stage, changed in one respect."""
    runs, settings = pictures.runs("S1", context.seeds), dict(VARIANTS[name])
    train = Trainer(config, context, config.steps)
    has_prior, balanced = settings.pop("has_prior", False), settings.pop("balanced", False)
    model = cluster_model(config, **settings)
    prior = train.estimator(model).single_stage_prior(runs.units) if has_prior else None
    params = train.clusters(f"S1 {name}", model, runs.units, runs.seeds, prior, balanced)
    measure(context, runs, "S1", f"{OURS}, {name}", ic.found_of(model, runs, params, config.predictive_draws))
