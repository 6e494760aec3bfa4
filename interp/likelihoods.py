r"""What a model's outputs mean: a negative log-likelihood, its Fisher metric and its Bregman divergence.

For a distribution with natural parameters h (logits, means), the Hessian of -log p(y | h) in h does not depend on y and
equals the covariance of grad_h -log p(y~ | h) over y~ drawn from the model: H(h). The Gauss-Newton matrix of a network
with outputs h(params, x) is G = E_x[J^T H J]. Functions here take the outputs of *one* example.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from core.checks import Positive, checked, require_finite
from core.cross_entropy import counted_places, cross_entropies
from core.errors import ConfigError
from core.kinds import is_traced

Example = Any
"""One example: any pytree of arrays, without a batch axis."""
Outputs = Any
"""What the network returns for one example."""
DRAWS = 256
"""Targets drawn to check that a likelihood's gradients average to zero."""


class Likelihood(NamedTuple):
    """A family of output distributions, as functions of one example's outputs."""

    loss: Callable[[Outputs, Example], Float[Array, ""]]
    """-log p(target | outputs), summed over positions."""
    sample: Callable[[Any, Outputs, Example], Outputs]
    """``(key, outputs, example)``: grad_h of the loss at a target drawn from the model; its covariance is H."""
    root: Callable[[Outputs, Example], Outputs]
    """Columns R with R R^T = H along a new leading axis, one per class or output: exact, for a single position."""
    divergence: Callable[[Outputs, Outputs, Example], Float[Array, ""]]
    """``(outputs, reference, example)``: Bregman divergence of the loss between two outputs, summed over positions."""
    metric: Callable[[Outputs, Outputs, Example], Outputs]
    """``(outputs, tangent, example)``: H tangent."""
    require: Callable[[str, Outputs, Any], None] = lambda name, shape, examples: None
    """``(name, shape, examples)``: refuses examples whose targets do not belong to outputs of this shape."""


class Task(NamedTuple):
    """A network and what its outputs mean."""

    outputs: Callable[[Any, Example], Outputs]
    """``(params, example) -> outputs`` of one example."""
    likelihood: Likelihood

    def loss(self, params: Any, example: Example) -> Float[Array, ""]:
        """-log p of the example's targets, summed over positions."""
        return self.likelihood.loss(self.outputs(params, example), example)


@checked
def categorical(
    target: Callable[[Example], Array], mask: Callable[[Example], Array] | None = None, ignore: int | None = None
) -> Likelihood:
    """Softmax outputs: logits [..., C], integer targets [...].

    Args:
      target: the example's integer targets, 0 to C - 1.
      mask: 1 for the example's positions that count and 0 for others, of the targets' shape; all count without it.
      ignore: a target whose position does not count either, such as -100.
    """

    def counted(example):
        return counted_places(target(example), None if mask is None else mask(example), ignore)

    def weight(example, shape):
        places = counted(example)
        return jnp.ones(shape) if places is None else places.astype(jnp.float32)

    def loss(logits, example):
        return jnp.sum(cross_entropies(logits, target(example), counted(example)))

    def sample(key, logits, example):
        labels = jax.random.categorical(key, logits)
        residual = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        return residual * weight(example, labels.shape)[..., None]

    def root(logits, example):
        if logits.size != logits.shape[-1]:
            raise ConfigError(
                f"the exact Fisher of logits {logits.shape} would need a pass per class and position; "
                "use sampled() or empirical() for outputs with several positions"
            )
        p = jax.nn.softmax(logits)
        columns = jnp.sqrt(p.ravel())[:, None] * (jnp.eye(p.size, dtype=p.dtype) - p.ravel())
        return columns.reshape(p.size, *p.shape) * weight(example, p.shape[:-1])[..., None]

    def divergence(logits, reference, example):
        p = jax.nn.softmax(reference)
        each = jnp.sum(p * (jax.nn.log_softmax(reference) - jax.nn.log_softmax(logits)), axis=-1)
        return jnp.sum(each * weight(example, each.shape))

    def metric(logits, tangent, example):
        p = jax.nn.softmax(logits)
        product = p * (tangent - jnp.sum(p * tangent, axis=-1, keepdims=True))
        return product * weight(example, p.shape[:-1])[..., None]

    def require(name, shape, examples):
        labels = np.asarray(jax.vmap(target)(examples))
        if labels.ndim > 1 and labels.shape[1:] == shape.shape:
            raise ConfigError(
                f"{name}: labels have the shape {list(labels.shape[1:])} of the network's outputs, as if one-hot; pass "
                "the number of each class: labels.argmax(-1)"
            )
        if labels.dtype.kind not in "iub":
            raise ConfigError(f"{name}: labels must be integers, not {labels.dtype}; pass labels.astype(int)")
        _require_shape(name, "labels", labels, shape.shape[:-1])
        places = jax.vmap(counted)(examples)
        classes = shape.shape[-1]
        wrong = np.argwhere(((labels < 0) | (labels >= classes)) & (True if places is None else np.asarray(places)))
        if wrong.size:
            row, *positions = (int(i) for i in wrong[0])
            place = f"row {row}" + "".join(f", position {i}" for i in positions)
            raise ConfigError(
                f"{name}: the label of {place} is "
                f"{labels[tuple(wrong[0])]}, but the network has {classes} classes, 0 to {classes - 1}; mask positions "
                "that do not count, or name the label that marks them: categorical(..., ignore=-100)"
            )

    return Likelihood(loss, sample, root, divergence, metric, require)


@checked
def gaussian(target: Callable[[Example], Array], variance: Positive = 1.0) -> Likelihood:
    """Outputs are means of independent Gaussians: loss = |outputs - target|^2 / (2 variance), up to a constant."""

    def loss(means, example):
        return jnp.sum((means - target(example)) ** 2) / (2 * variance)

    def sample(key, means, example):
        return jax.random.normal(key, means.shape, means.dtype) / variance**0.5

    def root(means, example):
        return jnp.eye(means.size, dtype=means.dtype).reshape(means.size, *means.shape) / variance**0.5

    def divergence(means, reference, example):
        return jnp.sum((means - reference) ** 2) / (2 * variance)

    def metric(means, tangent, example):
        return tangent / variance

    def require(name, shape, examples):
        _require_shape(name, "targets", jax.vmap(target)(examples), shape.shape)

    return Likelihood(loss, sample, root, divergence, metric, require)


def _require_shape(name: str, what: str, targets: Any, shape: tuple[int, ...]) -> None:
    if np.shape(targets)[1:] != tuple(shape):
        is_column = np.shape(targets)[1:] == (*shape, 1)
        raise ConfigError(
            f"{name}: {what} have shape {list(np.shape(targets)[1:])}, the outputs {list(shape)}"
            + (f"; pass {what}[..., 0]" if is_column else "")
        )


def next_token_task(model: nn.Module) -> Task:
    """Next-token prediction where the mask is set, by a decoder ``tokens [T] -> logits [T, V]``.

    Examples are {"tokens": [T + 1], "mask": [T + 1]}.
    """
    return Task(
        lambda params, e: model.apply({"params": params}, e["tokens"][:-1]),
        categorical(lambda e: e["tokens"][1:], lambda e: e["mask"][1:]),
    )


def require_examples(task: Task, params: Any, examples: Any, name: str = "examples") -> None:
    """Refuses examples that would give wrong scores or none: not finite, of another shape, with labels of no class.

    Args:
      task: the network and its likelihood.
      params: parameters.
      examples: arrays with one example per row; nothing is asked of traced ones.
      name: what they are called in the message.

    Raises:
      ConfigError: names row and leaf.
    """
    if any(is_traced(leaf) for leaf in jax.tree.leaves((params, examples))):
        return
    require_finite("params", params, "train it again, with a lower learning rate")
    require_finite(name, examples, "the first number is the row: remove or impute it")
    first = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf)[1:], jax.dtypes.result_type(leaf)), examples)
    try:
        shape = jax.eval_shape(task.outputs, params, first)
    except (TypeError, ValueError) as error:
        shapes = {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(first)}
        raise ConfigError(f"{name}: the network cannot be applied to an example of shapes {shapes}: {error}") from error
    task.likelihood.require(name, shape, examples)


def require_likelihood(task: Task, params: Any, example: Example, key: Any) -> None:
    """Refuses a loss that is not a log-likelihood with the metric it comes with.

    Along a random direction v of the outputs, v^T (Hessian of the loss) v must equal v^T H v, and gradients at targets
    drawn from the model must average to zero. A hinge loss, say, has neither property, and its "Fisher matrix" would
    mean nothing.

    Raises:
      ConfigError: says which property fails, and by how much.
    """
    finite, second, expected, mean, error = (
        float(x) for x in jax.jit(_properties, static_argnums=0)(task, params, example, key)
    )
    if not finite:
        raise ConfigError("the model's outputs are not finite at the first example: look for NaN in the parameters")
    if abs(second - expected) > 1e-2 * max(abs(expected), 1e-3):
        raise ConfigError(
            f"the loss is not the log-likelihood that its metric belongs to: along a random direction its second "
            f"derivative is {second:.4g}, the metric says {expected:.4g}; pass categorical(), gaussian() or a "
            "Likelihood whose parts agree"
        )
    if abs(mean) > 6 * error + 1e-6:
        raise ConfigError(
            f"gradients at targets drawn by the likelihood's sample() average to {mean:.3g} +- {error:.2g} along a "
            "random direction, not to zero: it must draw from the distribution whose negative logarithm the loss is"
        )


def _properties(task: Task, params: Any, example: Example, key: Any):
    """Whether outputs are finite; v^T Hessian v and v^T H v; mean of v^T d over draws d, and the error it may have."""
    outputs = jax.tree.map(
        lambda h: jnp.asarray(h, jnp.promote_types(h.dtype, jnp.float32)), task.outputs(params, example)
    )
    direction_key, draw_key = jax.random.split(key)
    flat, unflatten = jax.flatten_util.ravel_pytree(outputs)
    v = unflatten(jax.random.normal(direction_key, flat.shape, flat.dtype))
    curved = jax.jvp(jax.grad(lambda h: task.likelihood.loss(h, example)), (outputs,), (v,))[1]
    second, expected = (optax.tree.vdot(v, x) for x in (curved, task.likelihood.metric(outputs, v, example)))
    draws = jax.vmap(lambda k: task.likelihood.sample(k, outputs, example))(jax.random.split(draw_key, DRAWS))
    along = jax.vmap(lambda d: optax.tree.vdot(v, d))(draws)
    return jnp.isfinite(flat).all(), second, expected, jnp.mean(along), jnp.sqrt(jnp.maximum(expected, 0) / DRAWS)
