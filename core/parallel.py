"""Many devices: jit over a mesh, pmap over replicas, and one program over many hosts."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from core import errors
from core.checks import Count, Natural, checked
from core.errors import ConfigError, RelicError
from core.learner import (
    DATA_AXIS,
    STATED,
    Batch,
    BatchAxes,
    Layout,
    Learner,
    LearnerLike,
    Metrics,
    equal_share,
    map_examples,
    stated_axes,
)

P = PartitionSpec
Rules = Sequence[tuple[str, PartitionSpec]]
"""(regular expression, partition): the first whose expression is found in a parameter's path decides its sharding."""


@checked
def data_mesh(devices: Sequence[Any] | None = None, **axes: Count) -> Mesh:
    """A mesh whose data axis takes the devices that the further named axes (``model=2``) leave."""
    devices = jax.devices() if devices is None else devices
    rest = int(np.prod(list(axes.values()), initial=1))
    if len(devices) % rest:
        raise ConfigError(f"axes {axes} need a multiple of {rest} devices, there are {len(devices)}")
    shape = (len(devices) // rest, *axes.values())
    return jax.make_mesh(shape, (DATA_AXIS, *axes), axis_types=(AxisType.Auto,) * len(shape), devices=devices)


@checked
def data_parallel(learner: LearnerLike, mesh: Mesh, batch_axes: BatchAxes = STATED, rules: Rules = ()) -> Learner:
    """The same learner on a mesh: examples spread over the data axis, state replicated or sharded by rules.

    The compiler sees the global batch, so every loss is exact, losses across examples included.

    Args:
      learner: any learner.
      mesh: see :func:`data_mesh`.
      batch_axes: prefix of the batch telling which leaves hold examples (0) or are shared by all devices (None); as the
        learner states it if not given.
      rules: sharding of parameters and of the optimiser's moments by path, e.g.
        ``[("embedding$", P("model", None))]``; what no rule names is replicated.

    Returns:
      A learner whose ``init`` and ``update`` are jitted; ``update`` donates the state.

    Raises:
      ConfigError: where a rule has no expression or names no axis of the mesh; later, where it does not fit a
        parameter, or the devices cannot share the examples equally.
    """
    _check_rules(mesh, rules)
    axes = stated_axes(learner, batch_axes)

    def state_sharding(state: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(lambda path, leaf: _leaf_sharding(path, leaf, mesh, rules), state)

    def init(key, batch):
        sharding = state_sharding(jax.eval_shape(learner.init, key, batch))
        return jax.jit(learner.init, out_shardings=sharding)(key, shard_batch(batch, mesh, axes))

    def update(state, batch) -> tuple[Any, Metrics]:
        spread = NamedSharding(mesh, P(DATA_AXIS))
        map_examples(lambda leaf: equal_share(_count(leaf), mesh.shape[DATA_AXIS]), batch, axes)
        batch = map_examples(lambda leaf: jax.lax.with_sharding_constraint(leaf, spread), batch, axes)
        state, metrics = learner.update(state, batch)
        return jax.lax.with_sharding_constraint(state, state_sharding(state)), metrics

    return Learner(init, jax.jit(update, donate_argnums=0), Layout(axes, placed=True, mesh=mesh))


@checked
def shard_batch(batch: Batch, mesh: Mesh, batch_axes: BatchAxes = 0) -> Batch:
    """Puts a host's share of the global batch on its devices; leaves without examples go to all of them.

    With one process the share is the whole batch.

    Raises:
      ConfigError: where its devices cannot share the examples equally.
    """
    spread, everywhere = NamedSharding(mesh, P(DATA_AXIS)), NamedSharding(mesh, P())

    def place(axis, part):
        sharding = everywhere if axis is None else spread
        if axis is not None:
            for leaf in jax.tree.leaves(part):
                equal_share(_count(leaf), _devices_of(leaf, mesh))
        return jax.tree.map(lambda leaf: _place(leaf, sharding), part)

    return jax.tree.map(place, batch_axes, batch, is_leaf=lambda node: node is None)


def _count(leaf) -> int:
    if not np.ndim(leaf):
        raise ConfigError("a number is marked as holding examples; mark what all of them share with None in batch_axes")
    return np.shape(leaf)[0]


def _devices_of(leaf, mesh: Mesh) -> int:
    """Along the data axis: of the global batch, or of a process's share."""
    is_global = isinstance(leaf, Tracer) or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable)
    return (mesh if is_global or jax.process_count() == 1 else mesh.local_mesh).shape[DATA_AXIS]


def _check_rules(mesh: Mesh, rules: Rules) -> None:
    if DATA_AXIS not in mesh.shape:
        raise ConfigError(f"the mesh has axes {', '.join(map(str, mesh.shape))}, none of which is {DATA_AXIS!r}")
    for pattern, spec in rules:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"sharding rule {pattern!r} is no regular expression: {error}") from error
        named = [axis for part in spec for axis in ((part,) if isinstance(part, str) else part or ())]
        unknown = [axis for axis in named if axis not in mesh.shape]
        if unknown:
            known = ", ".join(map(str, mesh.shape))
            raise ConfigError(f"sharding rule {pattern!r} names the axis {unknown[0]!r}; the mesh has {known}")


def _place(leaf, sharding: NamedSharding):
    if isinstance(leaf, Tracer) or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable):
        return leaf
    if jax.process_count() == 1:
        return jax.device_put(leaf, sharding)
    return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))


def _leaf_sharding(path, leaf, mesh: Mesh, rules: Rules) -> NamedSharding:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    spec = next((spec for pattern, spec in rules if re.search(pattern, name)), P())
    if len(spec) > leaf.ndim:
        raise ConfigError(f"sharding rule {spec} has {len(spec)} axes, but {name} has shape {tuple(leaf.shape)}")
    for size, axis in zip(leaf.shape, spec, strict=False):
        parts = int(np.prod([mesh.shape[a] for a in ((axis,) if isinstance(axis, str) else axis or ())]))
        if size % parts:
            raise ConfigError(f"{name} of shape {tuple(leaf.shape)} does not divide into {parts} along axis {axis!r}")
    return NamedSharding(mesh, spec)


@checked
def pmap_parallel(learner: LearnerLike, batch_axes: BatchAxes = STATED) -> Learner:
    """Per-device replicas of the same learner; each sees its share of the batch and gradients are averaged.

    Exact where the loss is a mean over examples; a loss across examples must gather them over
    :data:`core.learner.DATA_AXIS` itself. The update is pmapped; a learner that draws its own batches may be scanned
    first, ``pmap_parallel(scan_steps(learner, k), None)``.

    Args:
      learner: any learner.
      batch_axes: prefix of the batch telling which leaves hold examples (0) or go to every device (None); as the
        learner states it if not given.

    Returns:
      A learner whose state has a leading device axis (see :func:`unreplicate`) and whose metrics have none.
    """
    devices, axes = jax.local_device_count(), stated_axes(learner, batch_axes)
    step = jax.pmap(learner.update, axis_name=DATA_AXIS, in_axes=(0, axes), donate_argnums=0)

    def init(key, batch):
        state = jax.jit(learner.init)(key, batch)
        return jax.pmap(lambda index, state: state, in_axes=(0, None))(np.arange(devices), state)

    def update(state, batch) -> tuple[Any, Metrics]:
        state, metrics = step(state, map_examples(split, batch, axes))
        return state, unreplicate(metrics)

    def split(leaf):
        return jnp.reshape(leaf, (devices, equal_share(leaf.shape[0], devices), *leaf.shape[1:]))

    return Learner(init, update, Layout(axes, placed=True))


def unreplicate(tree: PyTree) -> PyTree:
    """The first replica of a pmapped state or of its metrics."""
    return jax.tree.map(lambda leaf: leaf[0], tree)


def agreed(decide: Callable[[], Any]) -> Any:
    """What the first process decides, a JSON value, in every process of the run; or the error that it meets.

    Raises:
      RelicError: in all processes, where ``decide`` raises one in the first; of its class and message.
    """
    if jax.process_count() == 1:
        return decide()
    from jax.experimental import multihost_utils

    message = b""
    if is_primary():
        try:
            message = json.dumps({"value": decide()}).encode()
        except RelicError as error:
            message = json.dumps({"error": type(error).__name__, "message": str(error)}).encode()
    length = int(multihost_utils.broadcast_one_to_all(np.asarray(len(message))))
    padded = np.frombuffer(message.ljust(length), np.uint8) if is_primary() else np.zeros(length, np.uint8)
    answer = json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))).decode())
    if "error" in answer:
        raise getattr(errors, answer["error"], RelicError)(answer["message"])
    return answer["value"]


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process of the run; all get the answer, and wait for each other."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def in_all_processes(do: Callable[[], Any]) -> Any:
    """What ``do`` returns in this process, where it succeeds in all of them.

    Raises:
      RelicError: in all processes, where it raises one in any; those where it succeeded learn only that.
    """
    try:
        value, failure = do(), None
    except RelicError as error:
        value, failure = None, error
    failed = any_process(failure is not None)
    if failure:
        raise failure
    if failed:
        raise RelicError("another process of this run cannot go on; its message says why")
    return value


def of_first_process(tree: PyTree) -> PyTree:
    """The arrays of the first process, in every process of the run."""
    if jax.process_count() == 1:
        return tree
    from jax.experimental import multihost_utils

    def of_first(leaf):
        if not (hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)):
            return jnp.asarray(multihost_utils.broadcast_one_to_all(leaf), leaf.dtype)
        data = multihost_utils.broadcast_one_to_all(jax.random.key_data(leaf))
        return jax.random.wrap_key_data(jnp.asarray(data), impl=jax.random.key_impl(leaf))

    return jax.tree.map(of_first, tree)


def require_same_everywhere(text: str, what: str) -> None:
    """Compares a short text, such as a digest, between the processes of a run.

    Raises:
      ConfigError: in all processes, where it differs.
    """
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    everyones = np.asarray(multihost_utils.process_allgather(digest))
    if (everyones != everyones[0]).any():
        raise ConfigError(f"the processes of this run differ in {what}; give all of them the same")


def is_primary() -> bool:
    """Whether this process is the one that writes records and logs."""
    return jax.process_index() == 0


@checked
def initialize(
    coordinator_address: str | None = None, num_processes: Count | None = None, process_id: Natural | None = None
) -> int:
    """Joins the processes of a cluster into one JAX program; call it before any other use of JAX.

    Explicit arguments come first, then ``JAX_COORDINATOR_ADDRESS``, ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID``, then
    what JAX finds out by itself on TPU pods, under Slurm and in Kubernetes. A lone process stays as it is.

    Args:
      coordinator_address: "host:port" of process 0.
      num_processes: processes in all.
      process_id: this one's number, from 0.

    Returns:
      The number of processes.

    Raises:
      ConfigError: where only some of the three are known, or one cannot be.
    """
    explicit = {
        "coordinator_address": coordinator_address or os.environ.get("JAX_COORDINATOR_ADDRESS"),
        "num_processes": _integer(num_processes, "JAX_NUM_PROCESSES"),
        "process_id": _integer(process_id, "JAX_PROCESS_ID"),
    }
    missing = [name for name, value in explicit.items() if value is None]
    if missing and len(missing) < len(explicit):
        raise ConfigError(f"joining processes needs {', '.join(missing)} too (as a flag or JAX_{missing[0].upper()})")
    if missing and not _in_a_cluster():
        return 1
    if not missing:
        _check_cluster(**explicit)
    jax.distributed.initialize(**({} if missing else explicit))
    return jax.process_count()


def _check_cluster(coordinator_address: str, num_processes: int, process_id: int) -> None:
    if not re.fullmatch(r"\S+:\d{1,5}", coordinator_address):
        raise ConfigError(f"coordinator_address is {coordinator_address!r}; it must be host:port, as 10.0.0.1:1234")
    if not 0 <= process_id < num_processes:
        raise ConfigError(f"process_id is {process_id}; {num_processes} processes are numbered from 0")


def _integer(value: int | None, variable: str) -> int | None:
    text = os.environ.get(variable)
    if value is not None or text is None:
        return value
    if not text.isdecimal():
        raise ConfigError(f"{variable} must be a whole number, not {text!r}")
    return int(text)


def _in_a_cluster() -> bool:
    """Whether JAX's own detection has something to find."""
    return any(
        name in os.environ for name in ("SLURM_PROCID", "TPU_WORKER_HOSTNAMES", "MEGASCALE_COORDINATOR_ADDRESS")
    ) or {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= set(os.environ)
