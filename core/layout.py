"""How a learner is laid over the devices of a run: the one place that decides it.

The devices form a mesh of three axes. Independent runs of a pool take as many as divide both (``runs``); the examples
of a batch, and with them the edges of a graph, take the rest where they divide equally (``data``); what remains repeats
the work of others (``copies``), so that every device of every process holds the result. Each device then executes the
learner's own update on its share, with :data:`core.learner.DATA_AXIS` bound, over which the learner averages its
gradients and its metrics.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from core.checks import checked
from core.errors import ConfigError, UnequalShares
from core.learner import DATA_AXIS, RUNS_AXIS, BatchAxes, Layout, LearnerLike
from core.loop import scan_steps

COPIES_AXIS = "copies"

P = PartitionSpec


class Laid(NamedTuple):
    """A learner on its devices. States and batches that it places are what its programs take."""

    place_state: Callable[[PyTree], PyTree]
    """From a state on one device, the same in every process, to the devices of the run."""
    place_data: Callable[[PyTree], PyTree]
    """Puts on the devices what every step is given, the same in every process."""
    place_batches: Callable[[PyTree], PyTree]
    """Puts on the devices batches of the host, stacked along axis 0 by steps; processes bring their shares."""
    program: Callable[[int, bool], Callable[[Any, Any], tuple[Any, Any]]]
    """``(k, stacked) -> update`` of k steps, compiled; consumes the state. Metrics are the same on every device."""
    local: Callable[[PyTree], PyTree]
    """A state as arrays of this process's first device."""
    devices: int
    """How many share the work."""


@checked
def lay_out(learner: LearnerLike, state: PyTree, batch: PyTree, *, host: bool = False) -> Laid:
    """Lays a learner over all devices of all processes.

    Args:
      learner: any learner. What was laid over a mesh or replicas already (:mod:`core.parallel`) stays there.
      state: its initial state, or the shapes and types of it.
      batch: what a step is given; a process's share of it where ``host``.
      host: whether batches come from the host, another share in every process.

    Raises:
      ConfigError: where the processes' batches cannot be laid out as one.
    """
    if learner.layout.placed:
        return _as_placed(learner)
    if len(jax.devices()) == 1:
        return _on_one_device(learner)
    shares_of_processes = host and jax.process_count() > 1
    if shares_of_processes:
        _require_stated_examples(learner.layout)
    for mesh in _meshes(learner.layout, batch, shares_of_processes):
        laid = _over(mesh, learner)
        if shares_of_processes or mesh.shape[DATA_AXIS] == 1 or _can_share(laid, state, batch):
            return laid
    raise ConfigError(
        f"the processes' batches have {_examples(learner.layout, batch)} examples each, which their devices cannot "
        f"share equally; use a multiple of {jax.local_device_count()}"
    )


def _can_share(laid: Laid, state: PyTree, batch: PyTree) -> bool:
    """Whether the batches that the learner draws or splits divide equally; only tracing it tells."""
    try:
        jax.eval_shape(laid.program(1, False), state, batch)
    except UnequalShares:
        return False
    return True


def _on_one_device(learner: LearnerLike) -> Laid:
    return Laid(_same, on_device, _same, _jitted(learner), _same, 1)


def _as_placed(learner: LearnerLike) -> Laid:
    """A learner of a mesh or of replicas: its own ``init`` and ``update`` know where arrays lie."""
    mesh, axes = learner.layout.mesh, learner.layout.examples
    if mesh is None:
        return Laid(_same, _same, _same, _jitted(learner), _same, jax.device_count())

    def place_data(data):
        shard = _marks(axes, data)
        return jax.tree.map(lambda leaf, split: _spread(leaf, mesh, P(DATA_AXIS) if split else P()), data, shard)

    def place_batches(batches):
        shard = _marks(axes, batches)
        return jax.tree.map(
            lambda leaf, split: _from_processes(leaf, mesh, P(None, DATA_AXIS) if split else P()), batches, shard
        )

    return Laid(_same, place_data, place_batches, _jitted(learner), _same, mesh.size)


def _over(mesh: Mesh, learner: LearnerLike) -> Laid:
    layout, is_pool = learner.layout, bool(learner.layout.runs)
    state_spec = P(RUNS_AXIS) if is_pool else P()

    def specs(batch: PyTree, stacked: bool) -> PyTree:
        first = (None,) if stacked else ()

        def spec(has_runs: bool, has_examples: bool) -> PartitionSpec:
            names = ([RUNS_AXIS] if has_runs else []) + ([DATA_AXIS] if has_examples else [])
            return P(*first, *names) if names else P()

        runs = _marks(layout.run_axes if is_pool else None, batch)
        return jax.tree.map(spec, runs, _marks(layout.examples, batch))

    def program(k: int, stacked: bool) -> Callable[[Any, Any], tuple[Any, Any]]:
        update = scan_steps(learner, k, stacked=stacked).update

        def share(state, batch):
            state, metrics = update(state, batch)
            if is_pool:
                metrics = jax.tree.map(lambda m: jax.lax.all_gather(m, RUNS_AXIS, axis=1, tiled=True), metrics)
            return state, metrics

        def on_all(state, batch):
            return jax.shard_map(
                share,
                mesh=mesh,
                in_specs=(state_spec, specs(batch, stacked)),
                out_specs=(state_spec, P()),
                check_vma=False,
            )(state, batch)

        return jax.jit(on_all, donate_argnums=0)

    gathered = jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, P()))

    def local(tree: PyTree) -> PyTree:
        return jax.tree.map(_of_this_process, gathered(tree) if is_pool else tree)

    def place_batches(batches: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf, spec: _from_processes(leaf, mesh, spec), batches, specs(batches, True))

    return Laid(
        lambda state: jax.tree.map(lambda leaf: _spread(leaf, mesh, state_spec), state),
        lambda data: jax.tree.map(lambda leaf, spec: _spread(leaf, mesh, spec), data, specs(data, False)),
        place_batches,
        program,
        local,
        mesh.size // mesh.shape[COPIES_AXIS],
    )


def _meshes(layout: Layout, batch: PyTree, shares_of_processes: bool) -> Iterator[Mesh]:
    """Meshes for a learner, that which shares the work among most devices first."""
    total, processes = jax.device_count(), jax.process_count()
    runs = math.gcd(layout.runs, total) if layout.runs and not shares_of_processes else 1
    rest = total // runs
    sizes = _examples(layout, batch)
    size = math.gcd(*sizes) * (processes if shares_of_processes else 1) if sizes else 0
    for data in (n for n in range(rest, 0, -1) if rest % n == 0):
        may_share = data == 1 or ((layout.draws or sizes) and size % data == 0)
        if may_share and (not shares_of_processes or data == rest):
            yield jax.make_mesh(
                (runs, data, rest // data), (RUNS_AXIS, DATA_AXIS, COPIES_AXIS), axis_types=(AxisType.Auto,) * 3
            )


def _examples(layout: Layout, batch: PyTree) -> list[int]:
    """Lengths of the axes of examples."""
    runs = _marks(layout.run_axes if layout.runs else None, batch)
    marked = zip(*map(jax.tree.leaves, (batch, runs, _marks(layout.examples, batch))), strict=True)
    found = [(leaf, int(has_runs)) for leaf, has_runs, has_examples in marked if has_examples]
    for leaf, axis in found:
        if np.ndim(leaf) <= axis:
            raise ConfigError(
                f"a leaf of shape {np.shape(leaf)} of the batch is marked as holding examples along axis {axis}; mark "
                "what all examples share with None in batch_axes"
            )
    return sorted({np.shape(leaf)[axis] for leaf, axis in found})


def _require_stated_examples(layout: Layout) -> None:
    if layout.runs or not jax.tree.leaves(layout.examples):
        raise ConfigError(
            "every process draws batches of its own, but the learner does not say which of their leaves hold examples; "
            "make it with gradient_learner(..., batch_axes=0), or lay it out with data_parallel"
        )


def _marks(axes: BatchAxes, tree: PyTree) -> PyTree:
    """True for the leaves that a prefix marks with an axis, False for those that it marks with None."""
    return jax.tree.map(
        lambda axis, part: jax.tree.map(lambda _: axis is not None, part), axes, tree, is_leaf=lambda node: node is None
    )


def _jitted(learner: LearnerLike) -> Callable[[int, bool], Callable]:
    return lambda k, stacked: jax.jit(scan_steps(learner, k, stacked=stacked).update, donate_argnums=0)


def _same(tree: PyTree) -> PyTree:
    return tree


def on_device(data: PyTree) -> PyTree:
    """Arrays of the host go to the device once and for all; those of a mesh stay where they are."""
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else jax.device_put(leaf), data)


def _spread(leaf: Any, mesh: Mesh, spec: PartitionSpec) -> jax.Array:
    """An array that every process holds, on the devices of a mesh."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf
    return _by_data(leaf, lambda data: _put(data, NamedSharding(mesh, spec)))


def _put(data: Any, sharding: NamedSharding) -> jax.Array:
    if jax.process_count() == 1:
        return jax.device_put(data, sharding)
    values = np.asarray(data)
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])


def _from_processes(leaf: Any, mesh: Mesh, spec: PartitionSpec) -> jax.Array:
    """The array of all processes' shares."""
    sharding = NamedSharding(mesh, spec)
    return _by_data(leaf, lambda data: jax.make_array_from_process_local_data(sharding, np.asarray(data)))


def _of_this_process(leaf: jax.Array) -> jax.Array:
    return _by_data(leaf, lambda data: data.addressable_data(0))


def _by_data(leaf: Any, place: Callable[[Any], jax.Array]) -> jax.Array:
    """Places an array; of random keys, the data that they are made of."""
    if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(place(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    return place(leaf)
