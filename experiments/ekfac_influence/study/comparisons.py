"""How well cheap attributions agree with the proximal Bregman response, with retraining, and with wrong labels."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from core.fit import fit
from core.learner import stream
from experiments.ekfac_influence.config import Config
from experiments.ekfac_influence.study.problems import Problem, build, digits
from experiments.lab import Context, Place
from interp import attribution, ekfac
from interp.attribution.methods import CG, CG_ITERATIONS, LISSA
from interp.attribution.networks import mlp
from interp.likelihoods import Task

EKFAC, MISLABELLED = "EK-FAC", "mislabelled digits"
CURVATURES: tuple[tuple[str, ekfac.Kind, int], ...] = (
    (EKFAC, "ekfac", 2), ("K-FAC", "kfac", 1), ("diagonal", "diagonal", 1)
)  # fmt: skip
"""Name in the tables, kind, and passes over the training examples."""
Fits = Mapping[str, ekfac.Fitted]
Scores = dict[str, tuple[Any, float | None]]
"""By method, scores [query, training example], and gradients of single examples spent per query where that counts."""


def compared(config: Config, context: Context, *, name: str, seed: int) -> None:
    """Every method's scores on a problem, beside the response; on small ones also beside exact and retraining."""
    problem = build(name, config, jax.random.key(seed), context.data_dir)
    key = stream(jax.random.key(seed), "comparison")
    targets = stream(key, "targets")
    fits = {
        title: ekfac.fit_curvature(problem.task, problem.params, problem.train, key=targets, kind=kind)
        for title, kind, _ in CURVATURES
    }
    at, scores = context.at(dataset=name, seed=seed), all_scores(config, problem, fits, key)
    responses(config, problem, scores, at)
    if problem.exact:
        dampings(config, problem, fits, scores, at)
        datamodelling(config, problem, scores, at, stream(key, "retraining"))


def responses(config: Config, problem: Problem, scores: Scores, at: Place) -> None:
    """Correlation of every method with the response to moved training examples, averaged over queries."""
    train, asked = problem.on_device
    moved = jax.tree.map(lambda leaf: leaf[: config.moved], train)
    found = _response(problem.task, config.damping, config.response_steps, problem.params, train, asked, moved)
    at.record("gradient left", jnp.median(found.gradient_norms), method="PBRF")
    for method, (score, cost) in scores.items():
        own = at.at(method=method)
        r = attribution.correlation(np.asarray(score)[:, : config.moved], found.scores)
        own.record("correlation with PBRF", np.mean(r))
        if cost is not None:
            own.record("gradient evaluations per query", cost)
        if "exact" in scores:
            own.record("correlation with exact", np.mean(attribution.correlation(score, scores["exact"][0])))


def all_scores(config: Config, p: Problem, fits: Fits, key: jax.Array) -> Scores:
    """Scores [query, training example] by method, with gradients of single examples spent per query where it counts."""
    train, asked = p.on_device
    costs: dict[str, float] = {
        CG: float(CG_ITERATIONS * p.rows), LISSA: float(config.lissa_iterations * config.lissa_batch),
        "TRAK": 1.0, "TracIn": float(len(p.checkpoints)), "dot product": 1.0, "cosine": 1.0,
    }  # fmt: skip
    found: dict[str, Any] = {}
    if p.exact:
        found |= attribution.by_exact_curvature(p.task, p.params, train, asked, config.damping)
    for title, _, passes in CURVATURES:
        found[title] = ekfac.influence(fits[title], p.queries, p.train, damping=ekfac.absolute(config.damping))
        costs[title] = 1 + passes * p.rows / len(jax.tree.leaves(asked)[0])
    settings = config.damping, config.lissa_batch, config.lissa_iterations
    found |= attribution.by_iteration(p.task, *settings, p.params, train, asked, key)
    is_regression = p.name == "regression"
    found |= attribution.by_gradients(p.task, p.features, is_regression, p.params, p.checkpoints, train, asked, key)
    return {title: (scores, costs.get(title)) for title, scores in found.items()}


def dampings(config: Config, p: Problem, fits: Fits, at_one: Scores, at: Place) -> None:
    """Agreement of curvatures with the exact influence at several lambda."""
    train, asked = p.on_device
    for damping in config.dampings:
        scores: dict[str, Any] = dict(attribution.by_exact_curvature(p.task, p.params, train, asked, damping))
        exact = scores.pop("exact")
        scores |= {"dot product": at_one["dot product"][0]}
        for title, fitted in fits.items():
            scores[title] = ekfac.influence(fitted, p.queries, p.train, damping=ekfac.absolute(damping))
        for method, found in scores.items():
            r = np.mean(attribution.correlation(found, exact))
            at.record(f"correlation with exact, λ = {damping:g}", r, method=method)


def datamodelling(config: Config, problem: Problem, found: Scores, at: Place, key: jax.Array) -> None:
    """Linear datamodelling scores: agreement with retraining on random halves."""
    subset_key, train_key = jax.random.split(key)
    subsets = attribution.random_subsets(subset_key, config.subsets, problem.rows)
    keys, (train, asked) = jax.random.split(train_key, config.retrained), problem.on_device
    weights = subsets.astype(jnp.float32)
    actual = _retrained(problem.task, problem.init, problem.steps, train, asked, keys, weights)
    for method, (scores, _) in found.items():
        each = attribution.linear_datamodelling_scores(scores, subsets, actual)
        at.record("LDS", np.nanmean(each), method=method)


def mislabelled(config: Config, context: Context, *, seed: int, dataset: str = MISLABELLED, steps: int = 0) -> None:
    """Area under the curve of finding wrong labels by self-influence, by loss and by gradient norm."""
    steps = steps or config.image_steps
    key = stream(jax.random.key(seed), MISLABELLED)
    x, y = digits(context.data_dir, config.mislabelled, stream(key, "digits"))
    rng = np.random.default_rng(seed)
    wrong = np.zeros(len(y), bool)
    wrong[rng.choice(len(y), len(y) // 10, replace=False)] = True
    labels = np.where(wrong, (y + rng.integers(1, 10, len(y))) % 10, y).astype(np.int32)
    train, (task, init, _) = {"x": x, "y": labels}, mlp(x.shape[1], config.image_width * 2, 10)
    learner, data = attribution.batch_learner(task, init, steps, min(128, len(y))), jax.tree.map(jnp.asarray, train)
    folder = context.workdir / f"{dataset}-{seed}"
    params = fit(learner, data, key=stream(key, "training"), steps=steps, workdir=folder).state.params
    fitted = ekfac.fit_curvature(task, params, train, key=stream(key, "targets"), batch_size=64)
    identity = ekfac.fit_curvature(task, params, train, key=stream(key, "targets"), kind="identity")
    found = {
        EKFAC: ekfac.self_influence(fitted, train, batch_size=64),
        "gradient norm": ekfac.self_influence(identity, train, batch_size=64),
        "loss": jax.jit(jax.vmap(task.loss, (None, 0)))(params, train),
    }
    for method, score in found.items():
        context.at(dataset=dataset, seed=seed).record("AUC", attribution.detection_auc(score, wrong), method=method)


# The following are compiled once per network and shape, whatever the seed.


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _response(task: Task, damping: float, steps: int, params, train, asked, moved):
    """The central difference over one copy added and one removed, in which curvature along the way cancels."""
    copy = 1 / len(jax.tree.leaves(train)[0])
    settings: dict[str, Any] = {"damping": damping, "steps": steps, "learning_rate": 1e-3}
    found = [attribution.response(task, params, train, asked, moved, eps=eps, **settings) for eps in (copy, -copy)]
    return jax.tree.map(lambda added, removed: (added + removed) / 2, *found)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _retrained(task: Task, init, steps: int, train, asked, keys, weights):
    def losses(params):
        return jax.vmap(lambda q: task.loss(params, q))(asked)

    return attribution.retrained_losses(attribution.retraining(task, init, steps, train), losses, keys, weights)
