r"""The proximal Bregman response itself, by optimisation (Bae et al. 2022; Grosse et al. 2023, section 2.1).

theta(eps) = argmin 1/N sum_i D_i(h(theta, x_i), h(theta_s, x_i)) + eps L(z_m, theta) + lambda/2 |theta - theta_s|^2,

D the Bregman divergence of the loss in output space. The response of a query is (L_q(theta_s) - L_q(theta(eps))) / eps:
positive where the training example lowers the query's loss. As eps -> 0 it tends to the influence with G + lambda.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from core.checks import Count, NonNegative, Positive, checked
from interp.likelihoods import Task, require_examples


class Response(NamedTuple):
    """What training examples do to queries."""

    scores: Float[Array, "query example"]
    gradient_norms: Float[Array, " example"]
    """Of the objective where optimisation stopped, over eps times that at its start: how far it is from the minimum."""


@checked
def response(
    task: Task,
    params: PyTree,
    train: PyTree,
    queries: PyTree,
    moved: PyTree,
    *,
    damping: NonNegative,
    eps: float,
    steps: Count,
    learning_rate: Positive,
) -> Response:
    """Responses to the examples ``moved``, one optimisation each, all as one program.

    Args:
      task: network and likelihood.
      params: trained parameters theta_s.
      train: examples over which divergences are averaged.
      queries: whose loss is watched.
      moved: examples z_m.
      damping: lambda.
      eps: weight of z_m; small beside 1, and large beside rounding.
      steps: of Adam with a cosine schedule, on the whole objective.
      learning_rate: at the start.
    """
    for name, rows in (("train", train), ("queries", queries), ("moved", moved)):
        require_examples(task, params, rows, name)
    reference = jax.vmap(lambda example: task.outputs(params, example))(train)
    tx = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def objective(theta, example):
        def one(e, h):
            return task.likelihood.divergence(task.outputs(theta, e), h, e)

        near = optax.tree.norm(optax.tree.sub(theta, params), squared=True)
        return jnp.mean(jax.vmap(one)(train, reference)) + eps * task.loss(theta, example) + damping / 2 * near

    def losses(theta):
        return jax.vmap(lambda query: task.loss(theta, query))(queries)

    def single(example):
        gradient = jax.grad(objective)

        def step(carry, _):
            theta, state = carry
            updates, state = tx.update(gradient(theta, example), state)
            return (optax.apply_updates(theta, updates), state), None

        theta = jax.lax.scan(step, (params, tx.init(params)), None, length=steps)[0][0]
        left = optax.tree.norm(gradient(theta, example)) / optax.tree.norm(gradient(params, example))
        return (losses(params) - losses(theta)) / eps, left

    scores, left = jax.vmap(single)(moved)
    return Response(scores.T, left)
