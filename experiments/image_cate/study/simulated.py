"""What ``image_cate`` measures where the truth is known."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from sklearn.cluster import KMeans

from causal import image_cate as ic
from causal import treatment_effects as te
from core.stats import central, rank_correlation
from experiments.image_cate.config import Config
from experiments.image_cate.study.worlds import Pictures, Runs, Trainer, cluster_model, only, simulated, trunk
from experiments.lab.system import Context


class Found(NamedTuple):
    """What a method says of one run, in units of the outcome; clusters in ascending order of their effect."""

    effect: Float[np.ndarray, " images"]
    p: Float[np.ndarray, "images clusters"] | None = None
    mu: Float[np.ndarray, " clusters"] | None = None
    draws: Float[np.ndarray, "draws images"] | None = None
    """Of the effect, from the posterior."""


def measure(context: Context, runs: Runs, dataset: str, method: str, found: list[Found]) -> None:
    """Records how each run's estimate compares with the truth."""
    for seed, experiment, one in zip(runs.seeds, runs.experiments, found, strict=True):
        for metric, value in scores(experiment, one).items():
            context.record(dataset=dataset, method=method, metric=metric, seed=seed, value=float(value))


def scores(experiment: ic.Experiment, found: Found) -> dict[str, float]:
    """The metrics that apply."""
    truth, effect = experiment.effect, found.effect
    cluster = te.Clusters(jnp.asarray(experiment.image), len(truth))
    difference = te.difference_in_means(jnp.asarray(experiment.t), jnp.asarray(experiment.y), cluster)
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
    return made


def of_clusters(config: Config, runs: Runs, model: ic.ClusterModel, params: Any) -> list[Found]:
    """Predictions of all runs, in units of the outcome."""
    point = model.network.estimator == "point"

    @jax.jit
    def of(p, key, reference):
        found = ic.predict(model, p, reference, None if point else key, config.predictive_draws)
        return found, ic.cluster_posterior(p)

    made = []
    for i, sd in enumerate(runs.sd):
        found, posterior = of(jax.tree.map(lambda leaf, i=i: leaf[i], params), jax.random.key(i), runs.units.x)
        draws = np.asarray(found.effect) * sd
        made.append(
            Found(draws.mean(0), np.asarray(found.p.mean(0)), np.asarray(posterior.mu) * sd, None if point else draws)
        )
    return made


def plain(runs: Runs, effects: Float[Array, "runs images"]) -> list[Found]:
    """Effects without clusters."""
    return [Found(np.asarray(effect) * sd) for effect, sd in zip(effects, runs.sd, strict=True)]


def by_kmeans(runs: Runs, effects: Float[Array, "runs images"]) -> list[Found]:
    """Two clusters of the estimated effects; each image is given its cluster's mean effect."""
    made = []
    for effect, sd in zip(np.asarray(effects), runs.sd, strict=True):
        fitted = KMeans(2, random_state=0).fit(effect[:, None])
        order = np.argsort(fitted.cluster_centers_[:, 0])
        mu = fitted.cluster_centers_[order, 0] * sd
        member = np.argsort(order)[fitted.labels_]
        made.append(Found(mu[member], np.eye(2)[member], mu))
    return made


def heterogeneity(config: Config, context: Context, pictures: Pictures) -> None:
    """Design S1: every method; then what the fitted cluster model is sensitive to."""
    runs = simulated("S1", pictures, tuple(context.seeds))
    train = Trainer(config, context, config.steps)
    constant = [Found(np.full(len(pictures.x), e.y[e.t == 1].mean() - e.y[e.t == 0].mean())) for e in runs.experiments]
    measure(context, runs, "S1", "difference in means", constant)
    model = cluster_model(config)
    first, params = train.two_stages("S1", model, runs.units, runs.seeds)
    found = of_clusters(config, runs, model, params)
    measure(context, runs, "S1", "effect clusters", found)
    measure(context, runs, "S1", "effect clusters, no prior", of_clusters(config, runs, model, first))
    record_by_truth(context, runs, found[0])
    salience(config, context, pictures, model, params)
    tarnet = te.effect_of(train.outcomes("S1 TARNet", te.TarNet(trunk(config, "point")), runs.units, runs.seeds))
    measure(context, runs, "S1", "TARNet", plain(runs, tarnet))
    measure(context, runs, "S1", "k-means of TARNet", by_kmeans(runs, tarnet))


def record_by_truth(context: Context, runs: Runs, found: Found) -> None:
    """True and estimated effects of the first run, image by image in bins of the truth, for a figure."""
    truth = runs.experiments[0].effect
    assert found.p is not None
    for rank, images in enumerate(np.array_split(np.argsort(truth), min(40, len(truth)))):
        for metric, values in (("effect by truth", found.effect), ("p by truth", found.p[:, -1])):
            context.record(
                dataset="S1", method="effect clusters", metric=metric, seed=runs.seeds[0], part="calibration",
                value=float(values[images].mean()), rank=rank, truth=float(truth[images].mean()),
            )  # fmt: skip


def salience(config: Config, context: Context, pictures: Pictures, model: ic.ClusterModel, params: Any) -> None:
    """Sensitivity of the probability of the large effect, beside the response that effects were made from."""
    images = pictures.pixels[np.linspace(0, len(pictures.pixels) - 1, config.salience_images).astype(int)]
    responses = np.pad(np.abs(ic.response_map(images[..., 0])), ((0, 0), (3, 3), (3, 3)))
    target = np.asarray(jax.vmap(lambda r: ic.box_mean(r, 10))(jnp.asarray(responses, jnp.float32)))
    maps = jax.jit(lambda p, x: sensitivities(config, model, p, pictures.x, x))
    for i, seed in enumerate(context.seeds):
        found = maps(jax.tree.map(lambda leaf, i=i: leaf[i], params), jnp.asarray(images))
        magnitude = np.asarray(found.magnitude)
        each = [rank_correlation(a.ravel(), b.ravel()) for a, b in zip(magnitude, target, strict=True)]
        averaged = rank_correlation(magnitude.mean(0).ravel(), target.mean(0).ravel())
        measured = {"of averaged maps": averaged, "of images": np.mean(each)}
        for metric, value in measured.items():
            context.record(dataset="S1", method="effect clusters", metric=f"salience correlation {metric}", seed=seed,
                           value=float(value), part="salience")  # fmt: skip
        if i == 0:
            example = int(np.argmax(each))
            draw_maps(context, seed, {"band 0": images[example][4:34, 4:34, 0], "response": target[example],
                                      "magnitude": magnitude[example],
                                      "direction": np.asarray(found.direction)[example]})  # fmt: skip


def sensitivities(config: Config, model: ic.ClusterModel, params: Any, reference: Array, x: Array) -> ic.Sensitivity:
    """Maps of images, the weights drawn ``salience_draws`` times."""
    keys = jax.random.split(jax.random.key(0), config.salience_draws)
    last = ic.cluster_posterior(params).order[-1]

    def variables(key):
        return te.with_population(model.network, params, reference.astype(jnp.float32), rngs={"weights": key})

    drawn = jax.lax.map(variables, keys)

    def probability(image):
        one = lambda v, k: jax.nn.softmax(model.outputs(v, k, image[None]).logits[0])[last]  # noqa: E731
        return jax.vmap(one)(drawn, keys).mean()

    return jax.lax.map(lambda image: ic.sensitivity(probability, image, model.network.clusters), x)


def draw_maps(context: Context, seed: int, maps: dict[str, np.ndarray]) -> None:
    """Every other pixel of maps of one image, that of best agreement, for a figure."""
    for name, values in maps.items():
        for (row, column), value in np.ndenumerate(values[::2, ::2]):
            context.record(dataset="S1", method="effect clusters", metric=f"map: {name}", seed=seed, part="map",
                           value=float(value), row=row, column=column)  # fmt: skip


def none(config: Config, context: Context, pictures: Pictures) -> None:
    """Design S2: models trained on half of the images are asked to rank the other half."""
    seeds = tuple(range(config.null_sets))
    runs = simulated("S2", pictures, seeds)
    kept = halves(len(pictures.x), seeds)
    model, train = cluster_model(config, estimator="point"), Trainer(config, context, config.coverage_steps)
    params = train.clusters("S2", model, only(runs, kept), seeds)
    for i, found in enumerate(of_clusters(config, runs, model, params)):
        e, other = runs.experiments[i], ~kept[i][runs.experiments[i].image]
        image, y, t = e.image[other], e.y[other], e.t[other]
        predicted = found.effect[image]
        g = te.dr_scores(jnp.asarray(t), jnp.asarray(y), jnp.full(len(y), y[t == 0].mean()),
                         jnp.full(len(y), y[t == 1].mean()), 0.5)  # fmt: skip
        rate = te.rate_estimate(jax.random.key(i), jnp.asarray(predicted), g, te.Clusters.of(image),
                                config.half_samples)  # fmt: skip
        measured = {
            "AUTOC": rate.autoc.value, "AUTOC SE": rate.autoc.se, "Qini": rate.qini.value, "Qini SE": rate.qini.se,
            "spread of effects": predicted.std(),
        }  # fmt: skip
        for metric, value in measured.items():
            context.record(dataset="S2", method="effect clusters", metric=metric, seed=seeds[i], value=float(value))


def halves(images: int, seeds: Any) -> np.ndarray:
    """A random half of the images for every seed, [seeds, images]."""
    return np.stack([np.random.default_rng(seed).permutation(images) < images // 2 for seed in seeds])


def number_of_clusters(config: Config, context: Context, pictures: Pictures) -> None:
    """Design S3: held-out likelihood by the number of clusters, a fifth of the images held out."""
    seeds, n = tuple(context.seeds), len(pictures.x)
    runs = simulated("S3", pictures, seeds)
    kept = np.stack([np.random.default_rng(seed).permutation(n) >= n // 5 for seed in seeds])
    rest = only(runs, ~kept)
    train = Trainer(config, context, config.coverage_steps)
    for clusters in config.clusters:
        model = cluster_model(config, clusters, "point")
        params = train.clusters(f"S3 K={clusters}", model, only(runs, kept), seeds)
        value = jax.jit(lambda p, units, model=model: ic.held_out_log_likelihood(model, p, units.x, units))
        for i, seed in enumerate(seeds):
            one = te.Units(rest.x, *(leaf[i] for leaf in rest[1:]))
            found = value(jax.tree.map(lambda leaf, i=i: leaf[i], params), one) - np.log(runs.sd[i])
            context.record(dataset="S3", method="effect clusters", metric="held-out log likelihood", seed=seed,
                           value=float(found), part="clusters", K=clusters)  # fmt: skip
        if clusters == runs.experiments[0].p.shape[1]:
            measure(context, runs, "S3", "effect clusters", of_clusters(config, runs, model, params))
