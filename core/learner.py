"""Learners: pairs of pure functions, and the functions that compose them.

A learner is to a training run what an optax transform is to a gradient::

    init(key, batch)     -> state           # what is carried
    update(state, batch) -> state, metrics  # one step; jit, scan, vmap and pmap come from outside

Randomness is a function of (seed, step) alone: ``state.key`` never changes and step ``t`` uses
``fold_in(state.key, t)``. However steps are grouped, scanned, resumed or spread over devices, step ``t`` of a seed
draws the same numbers.

What else is drawn from a run's key comes from a named stream of it (:class:`Stream`): ``fold_in`` with a number below
2^31 is a count (a step, an epoch, an example's place), from 2^31 on it is a purpose. Nobody else folds a constant in.

The named axis ``DATA_AXIS`` is the only thing a learner knows of parallelism: where it is bound (by
:func:`core.fit.fit` on several devices, by :func:`core.parallel.pmap_parallel`, or by hand with
``vmap(..., axis_name=DATA_AXIS)``) each replica sees its share
of the batch and gradients are averaged over it; elsewhere the same code sees the whole batch.
"""

import enum
import functools
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from core.checks import Count, Natural, checked
from core.errors import ConfigError, UnequalShares
from core.kinds import Range, is_traced

DATA_AXIS = "data"
RUNS_AXIS = "runs"

Params = PyTree[Array]
Batch = PyTree[Any]
Metrics = dict[str, Any]
BatchAxes = Any
"""A prefix of the batch, as ``in_axes`` of ``jax.vmap``: 0 where examples lie along axis 0, None where all share it."""
STATED = "stated"
"""In place of a prefix: that which the learner's layout states."""


class Stream(enum.IntEnum):
    """What a key is used for besides the steps of its run; a new purpose takes the next number below.

    These are purposes that several methods have. One of a single method or experiment is named by a text.
    """

    TRIPLES = 0xFFFFFFFF
    """Users, items and negatives of a step."""
    EPOCHS = 0xFFFFFFFE
    """The order of the examples in an epoch."""
    ROWS = 0xFFFFFFFD
    """What is drawn for a step's rows of sequences."""
    VIEWS = 0xFFFFFFFC
    """Random views of a graph."""
    START = 0xFFFFFFFB
    """Noise that a sampler starts from."""
    EXAMPLES = 0xFFFFFFFA
    """A step's examples, drawn with replacement or from a world."""
    TARGETS = 0xFFFFFFF9
    """Targets drawn from a model, in each of several passes over the data."""
    TRIALS = 0xFFFFFFF8
    """What is drawn to check something before a run."""


_RESERVED = 256
"""Numbers at the upper end which texts leave to :class:`Stream`."""


def stream(key: Key[Array, ""], purpose: Stream | str, *counts: Int[Array, ""] | int) -> Key[Array, ""]:
    """The key for a purpose, and within it for a step, an epoch or another count; no two of them are equal.

    Args:
      key: of the run.
      purpose: one of :class:`Stream`, or a text of one's own such as "held-out people".
      counts: numbers below 2^31.
    """
    if isinstance(purpose, str):
        purpose_number = 2**31 + zlib.crc32(purpose.encode()) % (2**31 - _RESERVED)
    else:
        purpose_number = int(purpose)
    for number in (purpose_number, *counts):
        key = jax.random.fold_in(key, number)
    return key


class State(NamedTuple):
    """What a gradient learner carries from step to step."""

    step: Int[Array, ""]
    """Updates done so far."""
    key: Key[Array, ""]
    """The run's key; never advanced, see :func:`step_key`."""
    params: Params
    opt_state: optax.OptState
    extra: PyTree = ()
    """What the method itself carries, if anything."""


class Layout(NamedTuple):
    """Which axes of a learner may be spread over devices; :func:`core.layout.lay_out` spreads them.

    The functions that make and compose learners fill it in. A learner that states nothing is computed alike on every
    device: right, and no faster than on one.
    """

    examples: BatchAxes = None
    """Prefix of the update's batch: 0 marks the leaves that hold examples, along axis 0 of each run's slice."""
    draws: bool = False
    """Whether it draws its examples itself, and takes its share of them where the data axis is bound."""
    runs: int = 0
    """Independent runs along axis 0 of all leaves of state and metrics; 0 where there is no such axis."""
    run_axes: BatchAxes = None
    """Prefix of the update's batch: 0 marks the leaves with a slice for each run."""
    placed: bool = False
    """Whether it is laid over devices already (:mod:`core.parallel`)."""
    mesh: Any = None
    """The mesh that it is laid over, if it is one."""


class Learner(NamedTuple):
    """A training step as a pair of pure functions, and which of its axes may be spread over devices."""

    init: Callable[[Any, Batch], Any]
    update: Callable[[Any, Batch], tuple[Any, Metrics]]
    layout: Layout = Layout()


class GradientLearner(NamedTuple):
    """A learner whose update is ``apply(state, gradients(state, batch))``, open at that seam."""

    init: Callable[[Any, Batch], State]
    update: Callable[[State, Batch], tuple[State, Metrics]]
    gradients: Callable[[State, Batch], tuple[Params, Metrics]]
    apply: Callable[[State, Params], State]
    layout: Layout = Layout()


LearnerLike = Learner | GradientLearner
"""What the functions that compose learners take."""

Loss = Callable[[Params, Any, Batch], tuple[Float[Array, ""], Metrics]]
"""``(params, key, batch) -> (scalar, metrics)``; the scalar is a mean over the examples of the batch."""


def axis_is_bound(axis_name: str = DATA_AXIS) -> bool:
    """Whether the code is being traced inside a pmap, vmap or shard_map with this axis over more than one device."""
    try:
        return jax.lax.axis_size(axis_name) > 1
    except NameError:
        return False


def mean_over_devices(tree: PyTree, axis_name: str = DATA_AXIS) -> PyTree:
    """The mean of every leaf over the named axis; the tree itself where the axis is not bound."""
    return jax.lax.pmean(tree, axis_name) if axis_is_bound(axis_name) else tree


def gather_over_devices(tree: PyTree, axis_name: str = DATA_AXIS) -> PyTree:
    """The rows of all devices, for losses that compare examples with each other; the tree itself where the axis is not
    bound.

    Args:
      tree: leaves [n, ...] of this device's examples.
      axis_name: the axis along which examples are spread.

    Returns:
      Leaves [devices * n, ...], the same on every device; gradients reach the device that a row came from.
    """
    return jax.lax.all_gather(tree, axis_name, tiled=True) if axis_is_bound(axis_name) else tree


def average_gradients(axis_name: str = DATA_AXIS) -> optax.GradientTransformation:
    """An optax transform which averages updates over the named axis where it is bound."""
    return optax.stateless(lambda updates, params: mean_over_devices(updates, axis_name))


def step_key(state: State) -> Key[Array, ""]:
    """The key of the step about to be taken, the same on every replica: for noise in what replicas share."""
    return jax.random.fold_in(state.key, state.step)


def replica_key(state: State) -> Key[Array, ""]:
    """The key of the step about to be taken, distinct on every replica: for noise in examples, such as dropout.

    The noise is then other on another number of devices. Where that must not be, draw by :func:`example_keys`.
    """
    key = step_key(state)
    return jax.random.fold_in(key, jax.lax.axis_index(DATA_AXIS)) if axis_is_bound() else key


@checked
def example_keys(key: Any, count: Natural, first_example: Any = 0) -> Key[Array, " batch"]:
    """A key per example, a function of its place in the global batch: for noise that no layout over devices changes.

    Args:
      key: the same on every replica, see :func:`step_key`.
      count: of the examples at hand.
      first_example: place of their first one in the global batch. Under pmap each replica adds its own.
    """
    return keys_at(key, example_places(count, first_example))


def example_places(count: int, first_example: Any = 0) -> Int[Array, " batch"]:
    """The places of the examples at hand in the global batch; under pmap those of each replica follow one another."""
    if axis_is_bound():
        first_example = first_example + jax.lax.axis_index(DATA_AXIS) * count
    return first_example + jnp.arange(count)


def keys_at(key: Any, places: Int[Array, " n"]) -> Key[Array, " n"]:
    """The key of each place of a sequence: that of an example does not depend on the batch that it comes in."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(places)


@checked
def gradient_learner(
    init_params: Callable[[Any, Batch], Params],
    loss: Loss,
    tx: optax.GradientTransformation,
    *,
    key_of: Callable[[State], Any] = replica_key,
    batch_axes: BatchAxes = None,
) -> GradientLearner:
    """A learner which descends ``loss`` with ``tx``.

    Args:
      init_params: ``(key, batch) -> params``; the batch serves for shapes, as in ``module.init``.
      loss: ``(params, key, batch) -> (scalar, metrics)``, a mean over the batch's examples.
      tx: the optimiser.
      key_of: which key a step's loss is given, :func:`replica_key` or :func:`step_key`.
      batch_axes: prefix of the batch telling :func:`core.fit.fit` which leaves hold examples along axis 0, so that
        they may be spread over devices, here and in what :func:`with_sampler` draws; none where it is None.

    Returns:
      A :class:`GradientLearner`. Its metrics are the loss's own and ``loss``, all averaged over replicas.
    """
    tx = optax.chain(average_gradients(), tx)

    def init(key, batch) -> State:
        params_key, run_key = jax.random.split(key)
        params = init_params(params_key, batch)
        return State(jnp.zeros((), jnp.int32), run_key, params, tx.init(params))

    def scalar_loss(params, key, batch):
        value, metrics = loss(params, key, batch)
        if jnp.shape(value):
            raise ConfigError(f"the loss is an array of shape {jnp.shape(value)}; return its mean over the examples")
        return value, metrics

    def gradients(state: State, batch: Batch) -> tuple[Params, Metrics]:
        (value, metrics), grads = jax.value_and_grad(scalar_loss, has_aux=True)(state.params, key_of(state), batch)
        return grads, {"loss": value, **metrics}

    def apply(state: State, grads: Params) -> State:
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state._replace(step=state.step + 1, params=params, opt_state=opt_state)

    return _from_parts(jax.jit(init), gradients, apply, Layout(batch_axes))


def _from_parts(init, gradients, apply, layout: Layout) -> GradientLearner:
    def update(state, batch):
        grads, metrics = gradients(state, batch)
        return apply(state, grads), mean_over_devices(metrics)

    return GradientLearner(init, update, gradients, apply, layout)


@checked
def accumulate(learner: GradientLearner, n: Count, batch_axes: BatchAxes = STATED) -> GradientLearner:
    """The same step in ``n`` passes over ``1/n`` of the batch each: the memory of a small batch, the gradient of all.

    Exact where the loss is a mean over examples (not for losses across examples, such as contrastive ones); a loss
    that draws noise draws other noise for each pass. Pass i takes the examples i, i + n, i + 2n, ..., so that each
    device of a mesh finds its share of every pass among the examples that it holds.

    Args:
      learner: a gradient learner; with ``n = 1`` it is returned as it is.
      n: number of passes; must divide the batch size.
      batch_axes: prefix of the batch telling which leaves hold examples along axis 0 (0) or are shared (None); as the
        learner states it if not given.

    Raises:
      ConfigError: where ``n`` is below 1 or does not divide the number of examples.
    """
    if n == 1:
        return learner
    axes = stated_axes(learner, batch_axes)

    def every_nth(leaf, index):
        if leaf.shape[0] % n:
            raise UnequalShares(f"{leaf.shape[0]} examples do not divide into {n} passes; use a multiple of {n}")
        return jnp.reshape(leaf, (leaf.shape[0] // n, n, *leaf.shape[1:]))[:, index]

    def gradients(state: State, batch: Batch) -> tuple[Params, Metrics]:
        def part(index):
            micro = map_examples(lambda leaf: every_nth(leaf, index), batch, axes)
            return learner.gradients(state._replace(key=jax.random.fold_in(state.key, index)), micro)

        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(part, 0))
        total = jax.lax.fori_loop(0, n, lambda i, carry: jax.tree.map(jnp.add, carry, part(i)), zeros)
        return jax.tree.map(lambda leaf: leaf / n, total)

    return _from_parts(learner.init, gradients, learner.apply, learner.layout)


class EmaState(NamedTuple):
    """A learner's state and the moving average of its parameters."""

    inner: Any
    ema: Params
    excess: Params
    """What rounding has put too much into the average; the next step takes it off."""

    @property
    def step(self) -> Int[Array, ""]:
        """Updates done so far."""
        return self.inner.step

    @property
    def key(self) -> Key[Array, ""]:
        """The run's key."""
        return self.inner.key

    @property
    def params(self) -> Params:
        """The parameters being trained (the average is ``ema``)."""
        return self.inner.params


@checked
def with_ema(learner: LearnerLike, decay: Annotated[float, Range(0, below=1)]) -> Learner:
    r"""Keeps the debiased moving average of the parameters beside the training state.

    After step t, with m_0 = 0: m_t = decay m_{t-1} + (1 - decay) params_t, ema_t = m_t / (1 - decay^t); here in the
    equivalent form without the auxiliary m, ema_t = ema_{t-1} + c_t (params_t - ema_{t-1}),
    c_t = (1 - decay) / (1 - decay^t), so that ema_1 = params_1 whatever the initial value.

    The average is exact to the precision of the parameters for any decay and any number of steps: what a step adds may
    be less than the last digit of the average, so that it is summed with compensation (Kahan, CACM 1965).
    """

    def init(key, batch) -> EmaState:
        inner = learner.init(key, batch)
        return EmaState(inner, jax.tree.map(jnp.array, inner.params), jax.tree.map(jnp.zeros_like, inner.params))

    def update(state: EmaState, batch: Batch) -> tuple[EmaState, Metrics]:
        inner, metrics = learner.update(state.inner, batch)
        weight = ema_weight(decay, inner.step)

        def average(old, excess, new):
            share = jnp.reshape(weight, weight.shape + (1,) * (new.ndim - weight.ndim)).astype(old.dtype)
            added = share * ((new - old) + excess) - excess
            summed = old + added
            is_new = share == 1
            return jnp.where(is_new, new, summed), jnp.where(is_new, 0, (summed - old) - added)

        leaves, structure = jax.tree.flatten(state.ema)
        pairs = list(map(average, leaves, jax.tree.leaves(state.excess), jax.tree.leaves(inner.params)))
        ema, excess = (structure.unflatten([pair[i] for pair in pairs]) for i in (0, 1))
        return EmaState(inner, ema, excess), metrics

    return Learner(init, update, learner.layout)


@checked
def ema_weight(decay: Annotated[float, Range(0, below=1)], step: Int[Array, "*runs"]) -> Float[Array, "*runs"]:
    """(1 - decay) / (1 - decay^step) in float32, exact where decay is near 1 and their difference would cancel."""
    log = math.log(decay) if decay else -math.inf
    since = -jnp.expm1(jnp.float32(log) * jnp.maximum(step, 1).astype(jnp.float32))
    return jnp.where(step <= 1, 1.0, jnp.minimum(jnp.float32(1 - decay) / since, 1.0))


@checked
def with_sampler(
    learner: LearnerLike, sample: Callable[[Any, Any, Any], Batch], batch_axes: BatchAxes = STATED
) -> Learner:
    """A learner which draws its own batches on the device: its "batch" is the whole data set, the same at every step.

    With it a run needs no input pipeline: an epoch is a scan, seeds are a vmap over keys with the data shared.

    Args:
      learner: the learner fed with the drawn batches.
      sample: ``(data, key, step) -> batch``; pure. The key is the run's, so draws are a function of (seed, step).
      batch_axes: which leaves of the drawn batch hold examples; as the learner states it if not given, none where it
        states nothing. Under a bound data axis every replica draws the same global batch and keeps its share of them.
    """
    axes = stated_axes(learner, batch_axes, otherwise=None)

    def draw(data, key, step):
        batch = sample(data, key, step)
        return local_share(batch, axes) if axis_is_bound() else batch

    def init(key, data):
        return learner.init(key, draw(data, key, jnp.zeros((), jnp.int32)))

    def update(state, data):
        return learner.update(state, draw(data, state.key, state.step))

    return Learner(init, update, Layout(draws=True, placed=learner.layout.placed, mesh=learner.layout.mesh))


@checked
def replicate_seeds(
    learner: LearnerLike, n: Count, batch_axes: BatchAxes = None, at_once: Count | None = None
) -> Learner:
    """``n`` independent runs as one program: state and metrics gain a leading axis of length ``n``.

    Args:
      learner: any learner.
      n: number of runs.
      batch_axes: None where all runs see the same batch, 0 where the batch has one slice per run; a prefix otherwise.
      at_once: how many runs are vmapped; the others follow in turn. All if None: right for accelerators, while on the
        CPU one run's activations may fit its cache where those of many do not.

    Returns:
      A learner whose ``init`` takes either ``n`` stacked keys (see :func:`seed_keys`), so that run i equals the single
      run with key i, or one key, from which run i gets ``fold_in(key, i)``.

    Raises:
      ConfigError: (``init``) where there are other than ``n`` keys.
    """

    def over_runs(fn, first, batch):
        if at_once is None:
            return jax.vmap(fn, in_axes=(0, batch_axes))(first, batch)

        def one(each):
            return fn(each[0], map_examples(lambda leaf: leaf[each[1]], batch, batch_axes))

        here = jax.tree.leaves(first)[0].shape[0]  # on several devices, those of one of them
        return jax.lax.map(one, (first, jnp.arange(here)), batch_size=at_once)

    def init(key, batch):
        if jnp.ndim(key) and jnp.shape(key) != (n,):
            raise ConfigError(f"{n} runs need {n} keys, or one for all, not keys of shape {jnp.shape(key)}")
        keys = key if jnp.ndim(key) else jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(n))
        return over_runs(learner.init, keys, batch)

    def update(state, batch):
        return over_runs(learner.update, state, batch)

    inner = learner.layout
    return Learner(init, update, Layout(inner.examples, inner.draws, n, batch_axes, inner.placed, inner.mesh))


def of_first_run(leaf: Array) -> Array:
    """The entry of a pool's first run, of an array with one for each run, the same on all devices of the pool.

    For what all runs of a pool share, such as the draws of a sampler around :func:`replicate_seeds`.
    """
    first = jnp.ravel(leaf)[:1]
    return (jax.lax.all_gather(first, RUNS_AXIS, tiled=True) if axis_is_bound(RUNS_AXIS) else first)[0]


@checked
def seed_keys(seeds: Int[Array, " seeds"] | Int[np.ndarray, " seeds"] | Sequence[int]) -> Key[Array, " seeds"]:
    """One key per integer seed, equal to ``jax.random.key(seed)`` each.

    Raises:
      ConfigError: where there is none, or one is negative or needs more than 32 bits.
    """
    if is_traced(seeds):
        return jax.vmap(jax.random.key)(jnp.asarray(seeds))
    numbers = [int(seed) for seed in seeds]
    wrong = [seed for seed in numbers if not 0 <= seed < 2**32]
    if wrong or not numbers:
        raise ConfigError(f"seeds must be integers from 0 to {2**32 - 1}, not {wrong[0] if wrong else 'none'}")
    return jax.vmap(jax.random.key)(jnp.asarray(np.array(numbers, np.uint32)))


def stated_axes(learner: LearnerLike, batch_axes: BatchAxes, otherwise: BatchAxes = 0) -> BatchAxes:
    """The prefix itself, or for :data:`STATED` what the learner's layout states of its batch, or else ``otherwise``."""
    if not (isinstance(batch_axes, str) and batch_axes == STATED):
        return batch_axes
    if learner.layout.draws:
        return None
    return otherwise if learner.layout.examples is None else learner.layout.examples


def map_examples(fn: Callable[[Any], Any], batch: Batch, batch_axes: BatchAxes = 0) -> Batch:
    """``fn`` of every leaf which holds examples along axis 0; the shared leaves unchanged."""
    return jax.tree.map(
        lambda axis, part: part if axis is None else jax.tree.map(fn, part),
        batch_axes,
        batch,
        is_leaf=lambda node: node is None,
    )


def local_share(batch: Batch, batch_axes: BatchAxes = 0, axis_name: str = DATA_AXIS) -> Batch:
    """This replica's equal share of a global batch, inside a bound axis.

    Raises:
      UnequalShares: where the batch size is not a multiple of the number of replicas.
    """
    devices, index = jax.lax.axis_size(axis_name), jax.lax.axis_index(axis_name)

    def share(leaf):
        size = equal_share(leaf.shape[0], devices)
        return jax.lax.dynamic_slice_in_dim(leaf, index * size, size)

    return map_examples(share, batch, batch_axes)


@checked
def equal_share(examples: Natural, devices: Count) -> int:
    """Examples per device.

    Raises:
      UnequalShares: where the devices cannot have equally many.
    """
    if examples % devices:
        raise UnequalShares(
            f"a batch of {examples} examples cannot be shared equally by {devices} devices; "
            f"use a batch size that is a multiple of {devices}"
        )
    return examples // devices
