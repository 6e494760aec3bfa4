"""Training as a learner: dead latents counted in its state, sweeps as one program, latents spread over devices."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PyTree

from core.checks import Count, NonNegative, check_arguments, checked
from core.errors import ConfigError
from core.learner import (
    DATA_AXIS,
    Batch,
    GradientLearner,
    Layout,
    Learner,
    LearnerLike,
    Metrics,
    State,
    average_gradients,
    mean_over_devices,
)
from interp.sae.activations import among, read
from interp.sae.codes import LATENT_AXIS, Params, active, frequencies, over_devices, weighted_sum
from interp.sae.initial import Centre, geometric_median, initial_params
from interp.sae.variants import Forward, Variant, forward, total_variance

Total = Callable[[Float[Array, "b e"]], Float[Array, ""]]


class Aux(NamedTuple):
    """The auxiliary loss that revives dead latents (AuxK, Gao et al. 2024).

    With e = y - y_hat held fixed and z_aux the ``k`` largest pre-activations among dead latents, it is
    weight min(n_dead / k, 1) ||W_d^T z_aux - e||^2 over the total of the targets; no bias enters, and only encoder and
    decoder rows of dead latents have a derivative.
    """

    weight: NonNegative = 1 / 32
    k: Count | None = None
    """Half of the input's dimensions if None."""
    dead_after: Count = 10_000_000
    """Examples without firing after which a latent counts as dead."""


class Idle(NamedTuple):
    """What a dictionary's learner carries besides parameters and moments."""

    since: Int[Array, " m"]
    """Examples seen since each latent was last active."""


class Step(NamedTuple):
    """What a batch gives: averaged over parts of a batch and over devices like a gradient."""

    grads: Params
    frequency: Float[Array, " m"]
    """Share of the batch in which each latent is active."""
    observed: Params
    examples: Float[Array, ""]


def pair(batch: Batch) -> tuple[Float[Array, "b d"], Float[Array, "b e"]]:
    """Inputs and targets: a batch is an array (its own target) or ``{"x": inputs, "y": targets}``.

    Raises:
      ConfigError: for what is no rows of examples.
    """
    if isinstance(batch, dict) and "x" not in batch:
        raise ConfigError(f"a batch must have 'x', and may have 'y', not {', '.join(map(repr, sorted(batch)))}")
    x, y = (batch["x"], batch.get("y", batch["x"])) if isinstance(batch, dict) else (batch, batch)
    for name, array in (("x", x), ("y", y)):
        _require_activations(name, array)
    check_arguments("batch", {"x": Float[Array, "b d"], "y": Float[Array, "b e"]}, {"x": x, "y": y})
    return x, y


def _require_activations(name: str, array: Any) -> None:
    """What people store activations as, and cannot be trained on as it is."""
    dtype, shape = getattr(array, "dtype", None), np.shape(array)
    if dtype == np.float16:
        raise ConfigError(
            f"batch: {name} is float16, in which sums of squares overflow beyond 65504; pass {name}.astype(np.float32)"
        )
    if dtype is not None and np.issubdtype(dtype, np.integer):
        raise ConfigError(
            f"batch: {name} must hold floating-point numbers, not {dtype}; pass {name}.astype(np.float32), times the "
            "scale where activations were quantised"
        )
    if len(shape) > 2:
        raise ConfigError(
            f"batch: {name} must have shape [b, d], not {list(shape)}; lay prompts and positions along one axis: "
            f"{name}.reshape(-1, {shape[-1]})"
        )


@checked
def sae_learner(
    variant: Variant,
    latents: Count,
    tx: optax.GradientTransformation,
    *,
    aux: Aux | None = None,
    total: Total = total_variance,
    centre: Centre = geometric_median,
    dead_after: Count = 10_000_000,
    start: Callable[[Any, Batch], Params] | None = None,
) -> GradientLearner:
    """A learner of one dictionary; batches are arrays [b, d] or ``{"x": [b, d], "y": [b, e]}``.

    Args:
      variant: a member of the family.
      latents: their number m.
      tx: the optimiser.
      aux: revives dead latents; None for none.
      total: what errors are divided by: :func:`total_variance`, :func:`second_moment` or :func:`examples`.
      centre: of the first batch's targets, where b_d starts.
      dead_after: examples without firing after which a latent is reported dead (``aux`` has its own).
      start: ``(key, batch) -> params`` in place of the usual start.

    Returns:
      A gradient learner, to be composed like any other. Its metrics: ``loss``, ``fvu``, ``l0``, ``dead``.

    Raises:
      ConfigError: for numbers that cannot be, and from the learner for batches that are no rows of examples.
    """
    if aux is not None:
        check_arguments("Aux", get_type_hints(Aux, include_extras=True), aux._asdict())
    tx = optax.chain(average_gradients(), tx)
    dead_after = aux.dead_after if aux else dead_after

    def init(key, batch: Batch) -> State:
        params_key, run_key = jax.random.split(key)
        if start is None:
            params = initial_params(variant, latents, params_key, *pair(batch), centre)
        else:
            params = start(params_key, batch)
        idle = Idle(jnp.zeros(params["b_e"].shape, jnp.int32))
        return State(jnp.zeros((), jnp.int32), run_key, params, tx.init(params), idle)

    def gradients(state: State, batch: Batch) -> tuple[Step, Metrics]:
        dead = state.extra.since >= dead_after
        x, y = pair(batch)

        def loss(params):
            done = forward(variant, params, x, y)
            value = batch_loss(variant, params, done, total)
            value += aux_loss(aux, params, done, dead, total) if aux else 0.0
            return value, done

        (value, done), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        seen = over_devices(jax.lax.psum, jnp.asarray(x.shape[0], x.dtype), DATA_AXIS)
        found = Step(grads, frequencies(done.code, dead.shape[0]), variant.activation.observe(done.code), seen)
        return found, {"loss": value, **figures(done, dead)}

    def apply(state: State, found: Step) -> State:
        grads = variant.constraint.tangent(state.params, mean_over_devices(found.grads))
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        moved: Any = optax.apply_updates(state.params, updates)
        params = variant.constraint.restore(moved)
        params |= running_means(state, found.observed)
        fired = mean_over_devices(found.frequency) > 0
        since = jnp.where(fired, 0, state.extra.since + found.examples.astype(jnp.int32))
        return State(state.step + 1, state.key, params, opt_state, Idle(since))

    def update(state: State, batch: Batch) -> tuple[State, Metrics]:
        found, metrics = gradients(state, batch)
        return apply(state, found), mean_over_devices(metrics)

    return GradientLearner(jax.jit(init), update, gradients, apply, Layout(0))


def _replicas() -> Array:
    return over_devices(jax.lax.psum, jnp.ones((), jnp.int32), DATA_AXIS)


def batch_loss(variant: Variant, params: Params, done: Forward, total: Total) -> Float[Array, ""]:
    """(sum of errors) / total + mean of penalties; on several devices, shares whose mean is the global loss."""
    errors = sum(jnp.sum(term(variant, params, done)) for term in variant.errors)
    penalties = sum(jnp.mean(term(variant, params, done)) for term in variant.penalties)
    return _replicas() * errors / total(done.y) + penalties


def aux_loss(aux: Aux, params: Params, done: Forward, dead: Bool[Array, " m"], total: Total) -> Float[Array, ""]:
    """The loss of :class:`Aux`; 0 where no latent is dead, without computing it."""
    count = over_devices(jax.lax.psum, jnp.sum(dead), LATENT_AXIS)
    k = min(aux.k or done.y.shape[-1] // 2, dead.shape[0])
    residual, shift = jax.lax.stop_gradient((done.y - done.y_hat, done.encoded.shift))

    def revive(params: Params) -> Array:
        at = among(jax.lax.stop_gradient(done.encoded.pre), dead, k)
        e_hat = weighted_sum(read(params, done.encoded._replace(shift=shift), at), params["W_d"])
        value = _replicas() * jnp.sum((e_hat - residual) ** 2) / total(done.y)
        scale = jnp.minimum(count / k, 1.0).astype(value.dtype)
        return jnp.where(jnp.isfinite(value), aux.weight * scale * value, 0.0)

    return jax.lax.cond(count > 0, revive, lambda params: jnp.zeros((), done.y.dtype), params)


def figures(done: Forward, dead: Bool[Array, " m"]) -> Metrics:
    """Of one batch: the fraction of variance unexplained, active latents per example and the share of dead ones."""
    fvu = _replicas() * jnp.sum((done.y - done.y_hat) ** 2) / total_variance(done.y)
    share = over_devices(jax.lax.pmean, jnp.mean(dead, dtype=jnp.float32), LATENT_AXIS)
    return {"fvu": fvu, "l0": jnp.mean(active(done.code)), "dead": share}


def running_means(state: State, observed: Params) -> Params:
    """Means over all steps so far, over about the last hundred later on; batches without a value leave them."""
    weight = jnp.maximum(1.0 / (state.step + 1), 0.01)
    means = {name: state.params[name] for name in observed}
    moved = {n: old + weight.astype(old.dtype) * (observed[n] - old) for n, old in means.items()}
    return {n: jnp.where(jnp.isfinite(moved[n]), moved[n], old) for n, old in means.items()}


@checked
def merge(a: Idle, b: Idle) -> Idle:
    """The counters of two devices that saw different examples of the same steps."""
    return Idle(jnp.minimum(a.since, b.since))


@checked
def sweep(make: Callable[[Any], LearnerLike], settings: PyTree) -> Learner:
    """Many small runs as one program: one learner per row of the settings.

    Args:
      make: a learner for one row: ``lambda s: sae_learner(topk(s["k"], k_max=32), 256, optax.adam(s["rate"]))``. Rows
        are traced, so what shapes depend on must be the same for all.
      settings: a tree of arrays with one row per run.

    Returns:
      A learner whose state and metrics have a leading axis of runs. All see the same batches; ``init`` takes one key
      per run, or one key, from which run i gets ``fold_in(key, i)``.
    """
    n = jax.tree.leaves(settings)[0].shape[0]

    def init(key, batch):
        keys = key if jnp.ndim(key) else jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(n))
        return jax.vmap(lambda row, key: make(row).init(key, batch))(settings, keys)

    def update(state, batch):
        return jax.vmap(lambda row, state: make(row).update(state, batch))(settings, state)

    of_one = make(jax.tree.map(lambda leaf: leaf[0], settings)).layout
    return Learner(init, update, Layout(of_one.examples, of_one.draws))


BY_LATENT = ("W_e", "W_d", "b_e", "log_theta", "r", "b_m", "since")
"""Leaves with one row per latent."""


@checked
def latent_parallel(learner: GradientLearner, mesh: Mesh) -> Learner:
    """The same learner with its latents spread over the mesh's axis "latents" and examples over its axis "data".

    Every device holds its share of encoder, decoder and moments. Per step the k best latents of each share are
    exchanged and outputs are summed; nothing of the size of the dictionary is. Exact, but for optimisers that look
    across latents, such as clipping by the global norm.
    """

    def spec(path, leaf) -> PartitionSpec:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return PartitionSpec(LATENT_AXIS) if name in BY_LATENT and jnp.ndim(leaf) else PartitionSpec()

    def init(key, batch):
        shapes = jax.eval_shape(learner.init, key, batch)
        places = jax.tree_util.tree_map_with_path(lambda path, leaf: NamedSharding(mesh, spec(path, leaf)), shapes)
        return jax.jit(learner.init, out_shardings=places)(key, batch)

    @partial(jax.jit, donate_argnums=0)
    def update(state, batch):
        specs = jax.tree_util.tree_map_with_path(spec, state)
        spread = PartitionSpec(DATA_AXIS)
        step = jax.shard_map(
            learner.update, mesh=mesh, in_specs=(specs, spread), out_specs=(specs, PartitionSpec()), check_vma=False
        )
        return step(state, batch)

    return Learner(init, update, Layout(0, placed=True, mesh=mesh))
