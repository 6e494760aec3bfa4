"""How well cheap attributions agree with the proximal Bregman response, with retraining, and with wrong labels."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from core.fit import fit
from experiments.influence.config import Config
from experiments.influence.problems import Problem, batch_learner, build, digits, mlp_problem, retrain
from experiments.system import Context
from interp import attribution, ekfac
from interp.attribution.gauss_newton import product

LISSA, EKFAC = "LiSSA", "EK-FAC"
CURVATURES: tuple[tuple[str, ekfac.Kind, int], ...] = (
    (EKFAC, "ekfac", 2), ("K-FAC", "kfac", 1), ("diagonal", "diagonal", 1)
)  # fmt: skip
"""Name in the tables, kind, and passes over the training examples."""
Scores = dict[str, tuple[Any, float | None]]
"""By method, scores [query, training example], and gradients of single examples spent per query where that counts."""


def compared(config: Config, context: Context, name: str, seed: int) -> None:
    """Every method's scores on a problem, beside the response; on the small one also beside exact and retraining."""
    problem = build(name, config, jax.random.key(seed), context.data_dir)
    key = jax.random.key(1000 + seed)
    fits = {
        title: ekfac.fit_curvature(problem.task, problem.params, problem.train, key=key, kind=kind)
        for title, kind, _ in CURVATURES
    }
    note = functools.partial(context.record, dataset=name, seed=seed)
    scores = all_scores(config, problem, fits, key)
    responses(config, problem, scores, note)
    if problem.exact:
        dampings(config, problem, fits, scores, note)
        datamodelling(config, problem, scores, note, jax.random.key(2000 + seed))


def responses(config: Config, problem: Problem, scores: Scores, note: Callable[..., None]) -> None:
    """Correlation of every method with the response to moved training examples, averaged over queries."""
    moved = jax.tree.map(lambda leaf: jnp.asarray(leaf[: config.moved]), problem.train)
    found = jax.jit(
        functools.partial(
            attribution.response, problem.task, damping=config.damping, eps=0.5 / problem.rows,
            steps=config.response_steps, learning_rate=1e-3,
        )
    )(problem.params, problem.train, problem.queries, moved)  # fmt: skip
    left = float(jnp.median(found.gradient_norms))
    note(method="PBRF", metric="gradient left", value=left)
    for method, (score, cost) in scores.items():
        r = attribution.correlation(np.asarray(score)[:, : config.moved], found.scores)
        note(method=method, metric="correlation with PBRF", value=float(np.mean(r)))
        if cost is not None:
            note(method=method, metric="gradient evaluations per query", value=cost)
        if "exact" in scores:
            r = attribution.correlation(score, scores["exact"][0])
            note(method=method, metric="correlation with exact", value=float(np.mean(r)))


def all_scores(config: Config, problem: Problem, fits: Mapping[str, ekfac.Fitted], key: jax.Array) -> Scores:
    """Scores [query, training example] by method, with gradients of single examples spent per query where it counts."""
    p, queries = problem, len(jax.tree.leaves(problem.queries)[0])
    train, asked = jax.tree.map(jnp.asarray, (p.train, p.queries))
    found: Scores = {}
    if p.exact:
        exact = jax.jit(lambda params: attribution.exact_influence(p.task, params, train, asked, config.damping))
        blocks = jax.jit(
            lambda params: attribution.block_influence(p.task, params, train, asked, config.damping, layer_of)
        )
        found |= {"exact": (exact(p.params), None), "block-exact": (blocks(p.params), None)}
    for title, _, passes in CURVATURES:
        scores = ekfac.influence(fits[title], p.queries, p.train, damping=ekfac.absolute(config.damping))
        found[title] = scores, 1 + passes * p.rows / queries
    found |= {title: (scores, cost) for title, scores, cost in iterative(config, p, key)}
    found["dot product"] = jax.jit(lambda params: attribution.dot_product(p.task, params, train, asked))(p.params), 1.0
    found["cosine"] = jax.jit(lambda params: attribution.cosine(p.task, params, train, asked))(p.params), 1.0
    rates = [1.0] * len(p.checkpoints)
    tracin = jax.jit(lambda checkpoints: attribution.tracin(p.task, checkpoints, rates, train, asked))
    found["TracIn"] = tracin(p.checkpoints), float(len(rates))
    found["TRAK"] = trak(p, train, asked, key), 1.0
    similar = jax.jit(lambda params: attribution.representation(p.features, params, train, asked))
    found["representation"] = similar(p.params), None
    return found


def layer_of(leaf: str) -> str:
    """The layer that a leaf belongs to: kernel and bias form one block."""
    return leaf.rsplit("/", 1)[0]


def iterative(config: Config, p: Problem, key: jax.Array):
    """CG and LiSSA: name, scores and cost."""
    train, queries = (jax.tree.map(jnp.asarray, x) for x in (p.train, p.queries))

    @jax.jit
    def solve(params, key):
        flat, unflatten = jax.flatten_util.ravel_pytree(params)
        vectors = jax.vmap(unflatten)(attribution.per_example_gradients(p.task.loss, params, queries))
        of_train = attribution.per_example_gradients(p.task.loss, params, train)
        start = unflatten(jax.random.normal(key, flat.shape))
        largest = attribution.largest_eigenvalue(product(p.task, params, train), start)
        sigma = 4.0 * largest + config.damping
        cg = attribution.conjugate_gradient(p.task, params, train, vectors, config.damping, 30)
        lissa = attribution.lissa(
            p.task, params, train, vectors, config.damping, key=key, sigma=sigma,
            batch_size=config.lissa_batch, iterations=config.lissa_iterations,
        )  # fmt: skip
        ravelled = jax.vmap(lambda v: jax.flatten_util.ravel_pytree(v)[0])
        return tuple(ravelled(s.vectors) @ of_train.T for s in (cg, lissa))

    cg, lissa = solve(p.params, key)
    return [
        ("CG, 30 iterations", cg, 30.0 * p.rows),
        (LISSA, lissa, float(config.lissa_iterations * config.lissa_batch)),
    ]


def trak(p: Problem, train: Any, asked: Any, key: jax.Array):
    """With the final checkpoint; margins of labels, or the output itself in regression."""
    margin, residual = attribution.label_margin(p.task), attribution.label_residual(p.task)
    if p.name == "regression":
        margin, residual = regression_margin(p)
    project = attribution.gaussian_projection(key, 128)
    run = jax.jit(lambda params: attribution.trak(margin, residual, [params], train, asked, project, ridge=1e-3))
    return run(p.params)


def regression_margin(p: Problem) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
    """The output, and how far the target lies above it."""
    return (
        lambda params, e: p.task.outputs(params, e)[0],
        lambda params, e: e["y"][0] - p.task.outputs(params, e)[0],
    )


def dampings(
    config: Config, p: Problem, fits: Mapping[str, ekfac.Fitted], at_one: Scores, note: Callable[..., None]
) -> None:
    """Agreement of curvatures with the exact influence at several lambda."""
    train, asked = jax.tree.map(jnp.asarray, (p.train, p.queries))
    run = jax.jit(
        lambda params, damping: (
            attribution.exact_influence(p.task, params, train, asked, damping),
            attribution.block_influence(p.task, params, train, asked, damping, layer_of),
        )
    )
    for damping in config.dampings:
        exact, blocks = run(p.params, damping)
        scores = {"block-exact": blocks, "dot product": at_one["dot product"][0]}
        for title, fitted in fits.items():
            scores[title] = ekfac.influence(fitted, p.queries, p.train, damping=ekfac.absolute(damping))
        for method, found in scores.items():
            r = float(np.mean(attribution.correlation(found, exact)))
            metric = f"correlation with exact, λ = {damping:g}"
            note(method=method, metric=metric, value=r)


def datamodelling(config: Config, problem: Problem, found: Scores, note: Callable[..., None], key: jax.Array) -> None:
    """Linear datamodelling scores: agreement with retraining on random halves."""
    subsets = attribution.random_subsets(key, config.subsets, problem.rows)
    queries = jax.tree.map(jnp.asarray, problem.queries)

    def losses(params):
        return jax.vmap(lambda q: problem.task.loss(params, q))(queries)

    keys = jax.random.split(key, config.retrained)
    retrained = jax.jit(lambda w: attribution.retrained_losses(retrain(problem), losses, keys, w))
    actual = retrained(subsets.astype(jnp.float32))
    for method, (scores, _) in found.items():
        each = attribution.linear_datamodelling_scores(scores, subsets, actual)
        note(method=method, metric="LDS", value=float(np.nanmean(each)))


def mislabelled(config: Config, context: Context, seed: int) -> None:
    """Area under the curve of finding wrong labels by self-influence, by loss and by gradient norm."""
    key = jax.random.key(3000 + seed)
    x, y, _ = digits(context.data_dir, config.mislabelled, key)
    rng = np.random.default_rng(seed)
    wrong = np.zeros(len(y), bool)
    wrong[rng.choice(len(y), len(y) // 10, replace=False)] = True
    labels = np.where(wrong, (y + rng.integers(1, 10, len(y))) % 10, y).astype(np.int32)
    train = {"x": x, "y": labels}
    problem = mlp_problem("image", "digits", train, train, 10, config.image_width * 2, config.image_steps)
    learner = batch_learner(problem.task, problem.init, config.image_steps, min(128, len(y)))
    params = fit(learner, jax.tree.map(jnp.asarray, train), key=key, steps=config.image_steps).state.params
    fitted = ekfac.fit_curvature(problem.task, params, train, key=key, batch_size=64)
    identity = ekfac.fit_curvature(problem.task, params, train, key=key, kind="identity")
    found: dict[str, Callable[[], Any]] = {
        EKFAC: lambda: ekfac.self_influence(fitted, train, batch_size=64),
        "gradient norm": lambda: ekfac.self_influence(identity, train, batch_size=64),
        "loss": lambda: jax.jit(jax.vmap(problem.task.loss, (None, 0)))(params, train),
    }
    for method, score in found.items():
        auc = attribution.detection_auc(score(), wrong)
        context.record(dataset="mislabelled digits", method=method, metric="AUC", seed=seed, value=auc)
