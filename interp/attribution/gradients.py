r"""Attribution from gradients and features alone: dot product, cosine, TracIn, TRAK, similarity of representations."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from core.checks import Count, NonNegative, checked, require_finite
from core.errors import ConfigError
from interp.attribution.gauss_newton import per_example_gradients
from interp.likelihoods import Task, require_examples


@checked
def dot_product(task: Task, params: PyTree, train: PyTree, queries: PyTree) -> Float[Array, "query example"]:
    """Grad L_q . grad L_m."""
    _require_both(task, params, train, queries)
    return per_example_gradients(task.loss, params, queries) @ per_example_gradients(task.loss, params, train).T


@checked
def cosine(task: Task, params: PyTree, train: PyTree, queries: PyTree) -> Float[Array, "query example"]:
    """The dot product of normalised gradients; 0 where a gradient is 0."""
    _require_both(task, params, train, queries)
    sides = [_normalised(per_example_gradients(task.loss, params, x)) for x in (queries, train)]
    return sides[0] @ sides[1].T


@checked
def tracin(
    task: Task, checkpoints: Sequence[PyTree], rates: Sequence[float], train: PyTree, queries: PyTree
) -> Float[Array, "query example"]:
    """Sum over checkpoints of learning rate times dot product (Pruthi et al. 2020, TracInCP).

    Raises:
      ConfigError: where there is not one rate per checkpoint, or an example is not finite or has a label of no class.
    """
    if len(checkpoints) != len(rates) or not checkpoints:
        raise ConfigError(
            f"tracin: {len(checkpoints)} checkpoints need as many rates, not {len(rates)}, and at least one"
        )
    scores = [rate * dot_product(task, params, train, queries) for params, rate in zip(checkpoints, rates, strict=True)]
    return sum(scores, start=jnp.zeros(()))


@checked
def representation(
    features: Callable[[PyTree, Any], Array], params: PyTree, train: PyTree, queries: PyTree
) -> Float[Array, "query example"]:
    """Cosine similarity of features, e.g. of the last hidden layer."""
    require_finite("train", train)
    require_finite("queries", queries)
    sides = [_normalised(jax.vmap(lambda e: features(params, e).ravel())(x)) for x in (queries, train)]
    return sides[0] @ sides[1].T


@checked
def trak(
    margin: Callable[[PyTree, Any], Float[Array, ""]],
    residual: Callable[[PyTree, Any], Float[Array, ""]],
    checkpoints: Sequence[PyTree],
    train: PyTree,
    queries: PyTree,
    projection: Callable[[Float[Array, "n p"]], Float[Array, "n k"]],
    ridge: NonNegative = 0.0,
) -> Float[Array, "query example"]:
    r"""TRAK (Park et al. 2023, eq. 15): mean over models of phi_q^T (Phi^T Phi + ridge)^{-1} phi_m times mean residual.

    Args:
      margin: the model output f, e.g. log(p / (1 - p)) of the label; phi are its projected gradients.
      residual: minus the derivative of the loss in f, e.g. 1 - p.
      checkpoints: parameters of several models.
      train: training examples.
      queries: query examples.
      projection: of gradients to fewer dimensions, see :func:`gaussian_projection`.
      ridge: added to the diagonal of Phi^T Phi.
    """
    if not checkpoints:
        raise ConfigError("trak: checkpoints holds no parameters: pass those of at least one model")
    scores, residuals = [], []
    for params in checkpoints:
        phi, psi = (projection(per_example_gradients(margin, params, x)) for x in (train, queries))
        gram = phi.T @ phi + ridge * jnp.eye(phi.shape[1])
        scores.append(psi @ jnp.linalg.solve(gram, phi.T))
        residuals.append(jax.vmap(lambda e, p=params: residual(p, e))(train))
    return jnp.mean(jnp.stack(scores), axis=0) * jnp.mean(jnp.stack(residuals), axis=0)


@checked
def gaussian_projection(key: Key[Array, ""], dimensions: Count) -> Callable[[Float[Array, "n p"]], Float[Array, "n k"]]:
    """Random projection which keeps inner products in expectation."""

    def project(gradients):
        return gradients @ jax.random.normal(key, (gradients.shape[1], dimensions)) / dimensions**0.5

    return project


@checked
def label_margin(task: Task) -> Callable[[PyTree, Any], Float[Array, ""]]:
    """log(p / (1 - p)) with p the probability of an example's targets."""

    def margin(params, example):
        loss = task.loss(params, example)
        return -loss - jnp.log(-jnp.expm1(-jnp.maximum(loss, 1e-6)))

    return margin


def output_margin(task: Task) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
    """For :func:`trak` of a regression with one output: the output, and how far the target ``y`` lies above it."""
    return (
        lambda params, e: task.outputs(params, e)[0],
        lambda params, e: e["y"][0] - task.outputs(params, e)[0],
    )


@checked
def label_residual(task: Task) -> Callable[[PyTree, Any], Float[Array, ""]]:
    """1 - p: minus the derivative of the loss in the margin."""
    return lambda params, example: -jnp.expm1(-task.loss(params, example))


def _require_both(task: Task, params: PyTree, train: PyTree, queries: PyTree) -> None:
    require_examples(task, params, train, "train")
    require_examples(task, params, queries, "queries")


def _normalised(rows: Array) -> Array:
    return rows / jnp.maximum(jnp.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
