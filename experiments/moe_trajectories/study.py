"""What is measured for ``moe_trajectories``."""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import latent.moe_trajectories as moe
from core.datasets import growth
from core.learner import seed_keys
from core.stats import critical_value, summary
from experiments.lab import Context, Place
from experiments.moe_trajectories.config import MODELS, Config, Network

OUTCOMES, TIMES = [f"Y{j}" for j in range(1, 11)], [f"T{j}" for j in range(1, 11)]
EXPERT, GATING = ["ex1", "ex2"], ["gx1", "gx2"]
FULL, FINITE = "full MoE", "finite mixture"
REPEATS = 5
"""Of what is timed, after one that compiles."""


def example_data(config: Config, context: Context) -> tuple[str, moe.GrowthData, np.ndarray]:
    """The authors' example where it is at hand, else a data set of the same design."""
    if context.preset != "smoke" and growth.locate("moe_bls_example", context.data_dir):
        table = growth.load("moe_bls_example", context.data_dir)
        data = moe.from_wide(table, OUTCOMES, TIMES, expert=EXPERT, gating=GATING)
        return "example", data, table["class"].to_numpy() - 1
    data, labels = simulated(1, config.persons)
    return "simulated", jax.tree.map(lambda leaf: leaf[0], data), labels[0]


def example(config: Config, context: Context, name: str) -> None:
    """One of the four mixtures on the example: likelihood, estimates, classification, trajectories."""
    dataset, data, labels = example_data(config, context)
    data = data.without(*MODELS[name])
    start = time.perf_counter()
    found = moe.fit(moe.Mixture(2), data, jax.random.key(0), starts=config.starts, lanes=config.lanes)
    errors = moe.standard_errors(found, data)
    at = context.at(dataset=dataset, method=name, seed=0)
    at.record("seconds", time.perf_counter() - start)
    at.record_all({"log L": found.log_likelihood, "starts that agree": found.agreeing / config.starts})
    classification(at, moe.classify(found, data), labels)
    expert, gating = EXPERT[: data.xe.shape[1]], GATING[: data.xg.shape[1]]
    for row in moe.estimates(found, errors, expert=expert, gating=gating).itertuples():
        place: dict[str, Any] = {"class": int(row[1]), "parameter": str(row[2])}
        at.record_all(dict(zip(("estimate", "SE", "sandwich SE"), row[3:6], strict=True)), **place)
    for row in moe.trajectories(found, np.linspace(0, 9, 37)).to_dict("records"):
        here = at.at(**{"class": row["class"], "t": row["time"]})
        here.record_all({f"trajectory {metric}": row[metric] for metric in ("mean", "low", "high")})
    for warning in moe.warnings_of(found, data, errors):
        context.say(f"{name}: {warning}")


def classification(at: Place, posterior: np.ndarray, labels: np.ndarray) -> None:
    """Accuracy and entropy."""
    at.record_all({"accuracy": moe.accuracy(posterior, labels), "entropy": moe.entropy(posterior)})


def mathematics(config: Config, context: Context, classes: int) -> None:
    """Finite mixtures on the demonstration sample, time in months since the first measurement."""
    if context.preset == "smoke" or not growth.locate("eclsk2011_demo500", context.data_dir):
        return
    table, ages = growth.load("eclsk2011_demo500", context.data_dir), [f"T{j}" for j in range(1, 10)]
    since = table.assign(**{age: table[age] - table["T1"] for age in ages})
    data = moe.from_wide(since, [f"M{j}" for j in range(1, 10)], ages)
    found = moe.fit(moe.Mixture(classes), data, jax.random.key(classes), starts=config.starts if classes > 1 else 4)
    at = context.at(dataset="mathematics", method=f"{classes} classes", seed=0)
    criteria = moe.criteria(found.log_likelihood, found.parameters, data.persons)
    at.record_all({"-2 log L": -2 * found.log_likelihood, "BIC": criteria.bic})
    for i, value in enumerate(np.sort(-2 * found.reached)):
        at.record("reached", value, start=i)
    for warning in moe.warnings_of(found, data):
        context.say(f"mathematics, {classes} classes: {warning}")


def enumeration(config: Config, context: Context) -> None:
    """Classes of the example by information criteria, without covariates first, as the paper advises."""
    dataset, data, _ = example_data(config, context)
    plain, classes = data.without("expert", "gating"), range(1, config.classes + 1)
    table, _ = moe.enumerate_classes(moe.Mixture(), plain, jax.random.key(0), classes=classes, starts=config.starts)
    for row in table.to_dict("records"):
        at = context.at(dataset=dataset, method=f"{row['classes']} classes", seed=0, classes=int(row["classes"]))
        for metric in ("log L", "aic", "bic", "sabic", "entropy"):
            if metric in row and np.isfinite(row[metric]):
                at.record(f"enumeration {metric}", row[metric])


def simulated(number: int, persons: int) -> tuple[moe.GrowthData, np.ndarray]:
    """The first data sets of the example's design, stacked, and their labels."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, _draw(seed_keys(range(1000, 1000 + number)), persons))


@functools.partial(jax.jit, static_argnums=1)
def _draw(keys: jax.Array, persons: int):
    return jax.vmap(lambda key: moe.simulate(key, moe.example_truth(), persons))(keys)


def replications(number: int, persons: int, lanes: int, networks: tuple[Network, ...] = (), errors: bool = True):
    """Fits of the first simulated data sets from starts at the truth, in one program; data, labels and truth."""
    data, labels = simulated(number, persons)
    with jax.enable_x64(True):
        truth = moe.true_params(moe.example_truth())
        first = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (number, *leaf.shape)), truth.without(*networks))
        arranged = jax.jit(jax.vmap(moe.arrange))(data.without(*networks))
        found = moe.replicate(moe.Mixture(2), first, arranged, lanes=lanes, errors=errors)
        return jax.tree.map(np.asarray, (found, data, labels, truth))


def simulation(config: Config, context: Context) -> None:
    """Bias, standard errors, RMSE and coverage of every parameter of the full mixture; its comparison with others."""
    found, data, labels, truth = replications(config.replications, config.persons, config.lanes)
    with jax.enable_x64(True):
        true = moe.natural(moe.Mixture(2), jax.tree.map(jnp.asarray, truth), jnp.asarray(data.xg[0].T))
        true = np.concatenate([np.ravel(leaf) for leaf in true])
    names = moe.names_of(moe.Mixture(2), jax.tree.map(lambda leaf: leaf[0], found.params), EXPERT, GATING)
    solved, at = found.decrement < 1e-4, context.at(dataset="simulation", method=FULL)
    at.record("converged", solved.mean(), seed=0)
    told = [bool(term) and term != "proportion" and "at mean covariates" not in term for _, term in names]
    for i in np.flatnonzero(told):
        estimate, off = found.estimate[solved, i], found.estimate[solved, i] - true[i]
        error, scale = found.error[solved, i], abs(true[i]) if abs(true[i]) > 1e-6 else 1.0
        at.at(seed=0, **{"class": names[i][0], "parameter": names[i][1]}).record_all({
            "true": true[i],
            "bias": off.mean(),
            "relative bias": off.mean() / scale,
            "relative bias SE": summary(estimate, unit="data sets").error / scale,
            "empirical SE": estimate.std(ddof=1),
            "mean SE": np.nanmean(error),
            "relative RMSE": np.sqrt((off**2).mean()) / scale,
            "coverage": (np.abs(off) <= critical_value() * error).mean(),
            "replications": len(estimate),
        })  # fmt: skip
    covered = np.abs(found.estimate - true)[:, told] <= critical_value() * found.error[:, told]
    for r, (posterior, truths) in enumerate(zip(found.posterior, labels, strict=True)):
        classification(at.at(seed=r, replicate=r), posterior.T, truths)
        if solved[r]:
            at.record("share of parameters covered", covered[r].mean(), seed=r, replicate=r)
    if config.compared:
        comparison(config, context, found, data, labels)


def comparison(config: Config, context: Context, full: Any, data: moe.GrowthData, labels: np.ndarray) -> None:
    """The full and the finite mixture on the same data sets, and the two-step approach beside the one step."""
    finite = replications(config.compared, config.persons, config.lanes, MODELS[FINITE], errors=False)[0]
    for r in range(config.compared):
        at = context.at(dataset="comparison", seed=r)
        for method, found in ((FULL, full), (FINITE, finite)):
            classification(at.at(method=method, replicate=r), found.posterior[r].T, labels[r])
            for k in range(2):
                at.record("knot", found.params.experts.gamma[r, k, 0], method=method, **{"class": k + 1})
        two = moe.two_step_gating(finite.posterior[r].T, np.asarray(data.xg[r]))
        for method, b in ((FULL, full.params.gating[r]), ("two steps", two)):
            for c, covariate in enumerate(GATING):
                at.record("gating", b[0, 1 + c], method=method, covariate=covariate)


def batches(config: Config, context: Context) -> None:
    """Seconds per replication, fit alone, by how many are fitted in one call; seeds count calls."""
    for number in config.batches:
        for repeat in range(-1, REPEATS):
            start = time.perf_counter()
            replications(number, config.persons, config.lanes, errors=False)
            taken = (time.perf_counter() - start) / number
            if repeat >= 0:
                at = context.at(dataset="batches", method=FULL, seed=repeat, batch=number)
                at.record("seconds per replication", taken)


def forest(config: Config, context: Context, seed: int) -> None:
    """Ten covariates, of which two drive the growth factors and two the class: importance of each."""
    with jax.enable_x64(True):
        drawn = moe.simulate(jax.random.key(7000 + seed), moe.example_truth(), config.forest_persons)
        data = jax.tree.map(np.asarray, drawn)[0]
    noise = np.random.default_rng(seed).standard_normal((config.forest_persons, 6))
    covariates = np.concatenate([data.xe, data.xg, noise], axis=1)
    grown = moe.forest.grow(data, covariates, jax.random.key(seed), trees=config.trees, depth=config.forest_depth,
                            refitted=config.refitted)  # fmt: skip
    found = moe.forest.importance(grown, data, covariates, seed)
    for v, name in enumerate([*EXPERT, *GATING, *(f"noise {i + 1}" for i in range(6))]):
        at = context.at(dataset="forest", method="SEM forest", seed=seed, covariate=name)
        at.record_all({
            "importance": found[:, v].mean(), "importance SE": summary(found[:, v], unit="trees").error,
        })  # fmt: skip
