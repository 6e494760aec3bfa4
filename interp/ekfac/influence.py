"""From a network and its data to influence scores in a few calls: ``fit_curvature``, then ``influence``.

Each stage in between is a function of its own; these put them together for arrays that fit on the device, and keep
their progress in a folder, so that a killed pass goes on where it stopped.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from core.checks import Count, checked, require_finite
from core.errors import ConfigError
from core.fit import fit
from core.learner import Stream, stream, with_sampler
from interp.ekfac import curvature as curvatures
from interp.ekfac import scores as scoring
from interp.ekfac.capture import Capture, capture
from interp.ekfac.curvature import Curvature, Damping, Mask, heuristic
from interp.ekfac.fisher import Fisher, exact, sampled
from interp.ekfac.stages import Sums, steps_of, sweep, whole
from interp.ekfac.top import Top, top
from interp.likelihoods import Task, require_examples, require_likelihood

Kind = Literal["ekfac", "kfac", "diagonal", "identity"]
FEW_OUTPUTS = 16
"""Up to so many outputs the exact Fisher is cheaper than the noise of a draw is worth."""


class Fitted(NamedTuple):
    """A network with its curvature, not yet damped."""

    task: Task
    params: PyTree
    capture: Capture
    curvature: Curvature


@checked
def fit_curvature(
    task: Task,
    params: PyTree,
    examples: PyTree,
    *,
    key: Key[Array, ""],
    kind: Kind = "ekfac",
    fisher: Fisher | None = None,
    where: Callable[[str], bool] | str | None = None,
    mask: Mask | None = None,
    widest: Count | None = 8192,
    scale: curvatures.Scale = "per_example",
    batch_size: Count = 32,
    workdir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fitted:
    """Fits the curvature of a network to examples like those it was trained on.

    Args:
      task: the network, as a function of one example, and its likelihood.
      params: trained parameters.
      examples: arrays with one example per row.
      key: for targets drawn from the model.
      kind: which curvature.
      fisher: output gradients; exact() for up to 16 outputs of one position, else sampled().
      where: which leaves to cover (see :func:`interp.ekfac.capture`).
      mask: of one example, 1 for positions that count.
      widest: sides of layers wider than this get block-diagonal factors.
      scale: of K-FAC's eigenvalues (see :func:`interp.ekfac.eigenbasis`).
      batch_size: examples per step.
      workdir: where to keep progress; nowhere without it.
      progress: called with (steps done, steps in all) of each pass.

    Raises:
      ConfigError: where the loss is no log-likelihood, a parameter cannot be covered, there are no examples, or one of
        them is not finite or has a label of no class.
      NonFiniteError: where a gradient is not finite.
      CheckpointError: where the workdir holds another model's factors.
    """
    data = whole(params, examples)
    require_examples(task, params, examples)
    example = jax.tree.map(lambda leaf: leaf[0], examples)
    require_likelihood(task, params, example, stream(key, Stream.TRIALS))
    found = _capture(task.outputs, params, example, where)
    fisher = fisher or _default_fisher(task, params, example)

    def collect(stage, at, name: str) -> Sums:
        learner = with_sampler(stage, sweep(batch_size))
        return fit(
            learner._replace(init=jax.jit(learner.init)),
            data._replace(params=at),
            key=key,
            steps=steps_of(data, batch_size),
            workdir=None if workdir is None else Path(workdir) / name,
            progress=progress,
        ).state

    basis = curvatures.standard_basis(found)
    if kind in ("ekfac", "kfac"):
        sums = collect(curvatures.covariance(found, task, fisher, mask=mask, widest=widest), params, "covariance")
        basis = curvatures.eigenbasis(found, sums, scale)
    if kind in ("ekfac", "diagonal"):
        stage = curvatures.eigenvalue_correction(found, task, fisher, mask=mask)
        basis = curvatures.corrected(found, basis, collect(stage, (params, basis), f"{kind} eigenvalues"))
    return Fitted(task, params, found, basis)


@checked
def influence(
    fitted: Fitted,
    queries: PyTree,
    train: PyTree,
    *,
    measure: scoring.Measure | None = None,
    damping: Damping | None = None,
    rank: Count | None = None,
    where: Callable[[str], bool] | str | None = None,
    batch_size: Count = 32,
) -> Float[Array, "query example"]:
    """Influence of every training example on every query: positive where it lowers the query's loss.

    Args:
      fitted: network and curvature.
      queries: arrays with one query per row.
      train: arrays with one training example per row.
      measure: what is measured of a query, to be lowered; its loss without it.
      damping: heuristic(0.1) without it; the identity curvature is not damped.
      rank: approximate the queries' preconditioned gradients in this rank.
      where: as given to :func:`fit_curvature`.
      batch_size: training examples at a time.

    Raises:
      ConfigError: where there are no queries or examples, one is not finite or has a label of no class, their network
        is another, or the curvature cannot be inverted.
    """
    prepared = prepared_queries(fitted, queries, measure=measure, damping=damping, rank=rank, where=where)
    whole(fitted.params, train)
    require_examples(fitted.task, fitted.params, train, "train")
    rows = jax.tree.map(jnp.asarray, train)
    return _pairwise(fitted.capture, fitted.task, batch_size, fitted.params, prepared, rows)


@checked
def prepared_queries(
    fitted: Fitted,
    queries: PyTree,
    *,
    measure: scoring.Measure | None = None,
    damping: Damping | None = None,
    rank: Count | None = None,
    where: Callable[[str], bool] | str | None = None,
    batch_size: Count = 32,
) -> dict[str, Any]:
    """Preconditioned gradients of all queries, by block; arguments as for :func:`influence`."""
    whole(fitted.params, queries)
    if measure is None:
        require_examples(fitted.task, fitted.params, queries, "queries")
    else:
        require_finite("queries", queries)
    measure = measure or fitted.task.loss
    measured = _capture(measure, fitted.params, jax.tree.map(lambda leaf: leaf[0], queries), where)
    scoring.require_same_blocks(fitted.capture, measured)
    damped = damped_curvature(fitted, damping)
    rows = jax.tree.map(jnp.asarray, queries)
    prepared = _prepared(measured, batch_size, rank, fitted.params, damped, rows)
    bad = [name for name, value in prepared.items() if not all(jnp.isfinite(x).all() for x in jax.tree.leaves(value))]
    if bad:
        raise ConfigError(
            f"query gradients at {', '.join(bad[:5])} are not finite: look for NaN in queries or parameters"
        )
    return prepared


@checked
def self_influence(
    fitted: Fitted, train: PyTree, *, damping: Damping | None = None, batch_size: Count = 32
) -> Float[Array, " example"]:
    """Influence of every training example on itself, never negative."""
    whole(fitted.params, train)
    require_examples(fitted.task, fitted.params, train, "train")
    damped = damped_curvature(fitted, damping)
    rows = jax.tree.map(jnp.asarray, train)
    return _self_scores(fitted.capture, fitted.task, batch_size, fitted.params, damped, rows)


@checked
def most_influential(
    fitted: Fitted,
    prepared: Mapping[str, Any],
    train: PyTree,
    k: Count,
    *,
    key: Key[Array, ""],
    batch_size: Count = 32,
    workdir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Top:
    """The k highest and lowest scoring training examples per query; with a workdir a killed pass goes on.

    A set that does not fit in memory streams past: give :func:`core.fit.fit` the learner ``top(k, queries, lambda _,
    rows: pairwise(capture, task, params, prepared, rows))`` and batches ``Examples(None, rows, ids, weight)``, whose
    iterator says by ``identity()`` what they are.

    Raises:
      ConfigError: where no query was prepared, or a training example is not finite or has a label of no class.
    """
    if not prepared:
        raise ConfigError("most_influential: prepared holds no block: pass what prepared_queries returns")
    require_examples(fitted.task, fitted.params, train, "train")
    queries = jax.tree.leaves(prepared)[0].shape[0]

    def scores(params_and_queries, examples):
        params, prepared = params_and_queries
        return scoring.pairwise(fitted.capture, fitted.task, params, prepared, examples)

    data = whole((fitted.params, prepared), train)
    learner = with_sampler(top(k, queries, scores), sweep(batch_size))
    learner = learner._replace(init=jax.jit(learner.init))
    steps = steps_of(data, batch_size)
    return fit(learner, data, key=key, steps=steps, workdir=workdir, progress=progress).state


@checked
def prepared_influence(
    fitted: Fitted, prepared: Mapping[str, Any], train: PyTree, batch_size: Count = 64
) -> Float[Array, "query example"]:
    """Influence on queries that :func:`prepared_queries` or :func:`interp.ekfac.low_rank` prepared."""
    return _pairwise(fitted.capture, fitted.task, batch_size, fitted.params, prepared, train)


@checked
def depth_scores(
    fitted: Fitted, prepared: Mapping[str, Any], train: PyTree, batch_size: Count = 64
) -> dict[str, Float[Array, "query example"]]:
    """The same split by depth and map of scanned layers: "0/up", "0/down", ..., "1/up", ..., as the maps are called."""
    split, stack = {}, next(iter(prepared.values())).shape[1]
    for depth in range(stack):
        only = {name: matrix.at[:, jnp.arange(stack) != depth].set(0) for name, matrix in prepared.items()}
        found = _by_layer(fitted.capture, fitted.task, batch_size, fitted.params, only, train)
        split |= {f"{depth}/{name.split('/')[-2]}": score for name, score in found.items()}
    return split


@checked
def paired_token_scores(
    fitted: Fitted, prepared: Mapping[str, Any], rows: PyTree, positions: Count
) -> Float[Array, "query position"]:
    """What each position of a sequence contributes to its influence on a query: of one sequence per query."""
    return _tokens(fitted.capture, fitted.task, positions, fitted.params, prepared, rows)


def damped_curvature(fitted: Fitted, damping: Damping | None = None) -> Curvature:
    """The curvature with lambda added; the identity (no bases, all eigenvalues 1) stays as it is by default."""
    is_identity = all(e.rows is None and bool(np.all(np.asarray(e.values) == 1)) for e in fitted.curvature.values())
    if damping is None and is_identity:
        return fitted.curvature
    return curvatures.damp(fitted.curvature, damping or heuristic())


# Compiled once per network and shape, however often they are called.


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _pairwise(capture: Capture, task: Task, batch_size: int, params, prepared, train):
    score = functools.partial(scoring.pairwise, capture, task, params, prepared)
    return scoring.in_batches(score, train, batch_size)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _by_layer(capture: Capture, task: Task, batch_size: int, params, prepared, train):
    score = functools.partial(scoring.layer_scores, capture, task, params, prepared)
    return scoring.in_batches(score, train, batch_size)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _tokens(capture: Capture, task: Task, positions: int, params, prepared, rows):
    def one(prepared, row):
        prepared, row = jax.tree.map(lambda leaf: leaf[None], (prepared, row))
        return scoring.token_scores(capture, task, params, prepared, row, positions)[0, 0]

    return jax.lax.map(lambda pair: one(*pair), (prepared, rows))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _self_scores(capture: Capture, task: Task, batch_size: int, params, damped, train):
    score = functools.partial(scoring.self_scores, capture, task, params, damped)
    return scoring.in_batches(score, train, batch_size)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _prepared(measured: Capture, batch_size: int, rank: int | None, params, damped, queries):
    gradients = scoring.gradient_matrices(measured, params, queries, batch_size)
    matrices = curvatures.precondition(damped, gradients)
    return matrices if rank is None else scoring.low_rank(matrices, rank)


def _capture(fn: Callable, params: PyTree, example: PyTree, where: Callable[[str], bool] | str | None) -> Capture:
    leaves, tree = jax.tree.flatten(jax.eval_shape(lambda x: x, (params, example)))
    try:
        hash((fn, where))
    except TypeError:
        return capture(fn, params, example, where)
    return _captured(fn, where, tree, tuple(leaves))


@functools.lru_cache(maxsize=64)
def _captured(fn: Callable, where: Callable[[str], bool] | str | None, tree: Any, leaves: tuple) -> Capture:
    params, example = jax.tree.unflatten(tree, leaves)
    return capture(fn, params, example, where)


def _default_fisher(task: Task, params: PyTree, example: PyTree) -> Fisher:
    shape = jax.eval_shape(task.outputs, params, example)
    sizes = [np.prod(leaf.shape) for leaf in jax.tree.leaves(shape)]
    single = len(sizes) == 1 and sizes[0] <= FEW_OUTPUTS
    if not single:
        return sampled()
    try:
        jax.eval_shape(task.likelihood.root, shape, example)
    except ConfigError:
        return sampled()
    return exact()
