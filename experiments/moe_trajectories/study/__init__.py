"""What is measured for ``moe_trajectories``."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import latent.moe_trajectories as moe
from core.datasets import growth
from core.stats import critical_value, summary
from experiments.lab.system import Context
from experiments.moe_trajectories.config import MODELS, Config
from experiments.moe_trajectories.study.replications import replications, simulated

OUTCOMES, TIMES = [f"Y{j}" for j in range(1, 11)], [f"T{j}" for j in range(1, 11)]


EXPERT, GATING = ["ex1", "ex2"], ["gx1", "gx2"]


def run(config: Config, context: Context) -> None:
    """All parts; each is a cell which a rerun skips."""
    parts: dict[str, Callable[[Config, Context], None]] = {
        **{f"example {name}": functools.partial(example, name=name) for name in config.models},
        "simulation": simulation,
        "batches": batches,
        **{f"mathematics {k}": functools.partial(mathematics, classes=k) for k in range(1, config.classes + 1)},
        **({"enumeration": enumeration} if config.classes else {}),
    }
    forests = context.seeds if config.trees else ()
    context.cells([{"part": name} for name in parts] + [{"part": "forest", "seed": seed} for seed in forests])
    for name, part in parts.items():
        if not context.done(part=name):
            context.say(f"moe_trajectories: {name}")
            part(config, context)
            context.finish(part=name)
    for seed in forests:
        if not context.done(part="forest", seed=seed):
            context.say(f"moe_trajectories: forest {seed}")
            forest(config, context, seed)
            context.finish(part="forest", seed=seed)


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
    note = functools.partial(context.record, dataset=dataset, method=name, seed=0)
    note(metric="seconds", value=time.perf_counter() - start)
    posterior = moe.classify(found, data)
    note(metric="log L", value=found.log_likelihood)
    note(metric="accuracy", value=moe.accuracy(posterior, labels))
    note(metric="entropy", value=moe.entropy(posterior))
    note(metric="starts that agree", value=found.agreeing / config.starts)
    for row in moe.estimates(
        found, errors, expert=EXPERT[: data.xe.shape[1]], gating=GATING[: data.xg.shape[1]]
    ).itertuples():
        place = {"class": int(row[1]), "parameter": str(row[2])}
        for metric, value in zip(("estimate", "SE", "sandwich SE"), row[3:6], strict=True):
            note(metric=metric, value=value, **place)
    for row in moe.trajectories(found, np.linspace(0, 9, 37)).to_dict("records"):
        for metric in ("mean", "low", "high"):
            note(metric=f"trajectory {metric}", value=row[metric], **{"class": row["class"], "t": row["time"]})
    for warning in moe.warnings_of(found, data, errors):
        context.say(f"{name}: {warning}")


def mathematics(config: Config, context: Context, classes: int) -> None:
    """Finite mixtures on the demonstration sample, time in months since the first measurement."""
    if context.preset == "smoke" or not growth.locate("eclsk2011_demo500", context.data_dir):
        return
    data = mathematics_data(context)
    found = moe.fit(moe.Mixture(classes), data, jax.random.key(classes), starts=config.starts if classes > 1 else 4)
    note = functools.partial(context.record, dataset="mathematics", method=f"{classes} classes", seed=0)
    criteria = moe.criteria(found.log_likelihood, found.parameters, data.persons)
    note(metric="-2 log L", value=-2 * found.log_likelihood)
    note(metric="BIC", value=criteria.bic)
    for i, value in enumerate(np.sort(-2 * found.reached)):
        note(metric="reached", value=value, start=i)
    for warning in moe.warnings_of(found, data):
        context.say(f"mathematics, {classes} classes: {warning}")


def mathematics_data(context: Context) -> moe.GrowthData:
    """The demonstration sample's mathematics scores."""
    table = growth.load("eclsk2011_demo500", context.data_dir)
    ages = [f"T{j}" for j in range(1, 10)]
    since = table.assign(**{age: table[age] - table["T1"] for age in ages})
    return moe.from_wide(since, [f"M{j}" for j in range(1, 10)], ages)


def enumeration(config: Config, context: Context) -> None:
    """Classes of the example by information criteria, without covariates first, as the paper advises."""
    dataset, data, _ = example_data(config, context)
    plain = data.without("expert", "gating")
    table, _ = moe.enumerate_classes(moe.Mixture(), plain, jax.random.key(0), classes=range(1, config.classes + 1),
                                     starts=config.starts)  # fmt: skip
    for row in table.to_dict("records"):
        for metric in ("log L", "aic", "bic", "sabic", "entropy"):
            if metric in row and np.isfinite(row[metric]):
                name = f"{row['classes']} classes"
                context.record(dataset=dataset, method=name, metric=f"enumeration {metric}", seed=0, value=row[metric],
                               classes=int(row["classes"]))  # fmt: skip


def simulation(config: Config, context: Context) -> None:
    """Bias, standard errors, RMSE and coverage of every parameter of the full mixture; its comparison with others."""
    found, data, labels, truth = replications(config.replications, config.persons, config.lanes)
    with jax.enable_x64(True):
        true = moe.natural(moe.Mixture(2), jax.tree.map(jnp.asarray, truth), jnp.asarray(data.xg[0].T))
        true = np.concatenate([np.ravel(leaf) for leaf in true])
    single = jax.tree.map(lambda leaf: leaf[0], found.params)
    names = moe.names_of(moe.Mixture(2), single, EXPERT, GATING)
    solved = found.decrement < 1e-4
    context.record(dataset="simulation", method="full MoE", metric="converged", seed=0, value=float(solved.mean()))
    for i, (k, term) in enumerate(names):
        if not term or term == "proportion" or "at mean covariates" in term:
            continue
        estimate, error = found.estimate[solved, i], found.error[solved, i]
        off = estimate - true[i]
        scale = abs(true[i]) if abs(true[i]) > 1e-6 else 1.0
        measured = {
            "true": true[i],
            "bias": off.mean(),
            "relative bias": off.mean() / scale,
            "relative bias SE": summary(estimate, unit="data sets").error / scale,
            "empirical SE": estimate.std(ddof=1),
            "mean SE": np.nanmean(error),
            "relative RMSE": np.sqrt((off**2).mean()) / scale,
            "coverage": (np.abs(off) <= critical_value() * error).mean(),
            "replications": len(estimate),
        }
        for metric, value in measured.items():
            context.record(dataset="simulation", method="full MoE", metric=metric, seed=0, value=float(value),
                           **{"class": k, "parameter": term})  # fmt: skip
    _classification(context, "full MoE", found.posterior, labels)
    if config.compared:
        comparison(config, context, found, data, labels)


def _classification(
    context: Context, method: str, posteriors: np.ndarray, labels: np.ndarray, tag: str = "simulation"
) -> None:
    for r, posterior in enumerate(posteriors):
        note = functools.partial(context.record, dataset=tag, method=method, seed=r, replicate=r)
        note(metric="accuracy", value=moe.accuracy(posterior.T, labels[r]))
        note(metric="entropy", value=moe.entropy(posterior.T))


def comparison(config: Config, context: Context, full: Any, data: moe.GrowthData, labels: np.ndarray) -> None:
    """The full and the finite mixture on the same data sets, and the two-step approach beside the one step."""
    finite = replications(config.compared, config.persons, config.lanes, ("expert", "gating"), errors=False)[0]
    for method, found in (("full MoE", full), ("finite mixture", finite)):
        _classification(context, method, found.posterior[: config.compared], labels, "comparison")
        for r in range(config.compared):
            for k in range(2):
                context.record(dataset="comparison", method=method, metric="knot", seed=r,
                               value=found.params.experts.gamma[r, k, 0], **{"class": k + 1})  # fmt: skip
    for r in range(config.compared):
        two = moe.two_step_gating(finite.posterior[r].T, np.asarray(data.xg[r]))
        for method, b in (("full MoE", full.params.gating[r]), ("two steps", two)):
            for c in range(2):
                context.record(dataset="comparison", method=method, metric="gating", seed=r, value=b[0, 1 + c],
                               covariate=GATING[c])  # fmt: skip


def batches(config: Config, context: Context) -> None:
    """Seconds per replication, fit alone, by how many are fitted in one call (the second call of each size)."""
    for number in config.batches:
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            replications(number, config.persons, config.lanes, errors=False)
            taken.append(time.perf_counter() - start)
        context.record(dataset="batches", method="full MoE", metric="seconds per replication", seed=0,
                       value=min(taken[1:]) / number, batch=number)  # fmt: skip


def forest(config: Config, context: Context, seed: int) -> None:
    """Ten covariates, of which two drive the growth factors and two the class: importance of each."""
    with jax.enable_x64(True):
        drawn = jax.tree.map(
            np.asarray, moe.simulate(jax.random.key(7000 + seed), moe.example_truth(), config.forest_persons)
        )
    data = drawn[0]
    noise = np.random.default_rng(seed).standard_normal((config.forest_persons, 6))
    covariates = np.concatenate([data.xe, data.xg, noise], axis=1)
    grown = moe.forest.grow(data, covariates, jax.random.key(seed), trees=config.trees, depth=config.forest_depth,
                            refitted=config.refitted)  # fmt: skip
    found = moe.forest.importance(grown, data, covariates, seed)
    for v, name in enumerate([*EXPERT, *GATING, *(f"noise {i + 1}" for i in range(6))]):
        note = functools.partial(context.record, dataset="forest", method="SEM forest", seed=seed, covariate=name)
        note(metric="importance", value=found[:, v].mean())
        note(metric="importance SE", value=summary(found[:, v], unit="trees").error)
