"""Digests of arrays and of traced programs: the same for the same content, in every process and on every device."""

import enum
import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jax.sharding import AbstractMesh, Mesh, Sharding
from jaxtyping import PyTree

from core.errors import ConfigError

PLACES = (Mesh, AbstractMesh, Sharding, jax.Device)
"""Where a program runs, which does not change what it computes."""
CALLBACKS = frozenset({"pure_callback", "io_callback", "python_callback"})
"""Primitives that compute by a function of Python, which has no digest."""
SKIPPED = frozenset({"name", "debug_info", "source_info", "donated_invars", "in_layouts", "out_layouts", "ctx_mesh"})
"""Parameters of primitives that do not change what is computed."""


def of_arrays(tree: PyTree) -> str:
    """SHA-256 of the structure, types, shapes and values of a tree of arrays, random keys included."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        total.update(f"{jax.tree_util.keystr(path)} {getattr(leaf, 'dtype', type(leaf))} {np.shape(leaf)}".encode())
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            total.update(_of_all_processes(leaf))
        else:
            total.update(_bytes(_values(leaf)))
    return total.hexdigest()


def of_program(fn: Callable[..., Any], *args: Any, named: bool = False) -> str:
    """SHA-256 of what a function computes for arguments of these shapes and types.

    Two functions have the same digest where they trace to the same operations with the same constants: names, comments
    and how the code is arranged do not count, a constant such as a learning rate does.

    Args:
      fn: what ``jax.jit`` can trace.
      args: arrays, or their shapes and types.
      named: whether the caller says otherwise what functions of Python the program calls.

    Raises:
      ConfigError: where the program calls a function of Python, whose content no digest tells, unless ``named``.
    """
    total = hashlib.sha256()
    _Walk(total.update, named).closed(jax.make_jaxpr(fn)(*args))
    return total.hexdigest()


def _of_all_processes(leaf: jax.Array) -> bytes:
    """Of an array that no process holds alone: of the parts that each holds, in the order of the processes."""
    from jax.experimental import multihost_utils

    own = hashlib.sha256()
    for shard in leaf.addressable_shards:
        if shard.replica_id == 0:
            own.update(str(shard.index).encode() + bytes(_bytes(_values(shard.data))))
    everyones = multihost_utils.process_allgather(np.frombuffer(own.digest(), np.uint8))
    return np.asarray(everyones).tobytes()


def _values(leaf: Any) -> np.ndarray:
    is_key = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.ascontiguousarray(jax.random.key_data(leaf) if is_key else leaf)


def _bytes(array: np.ndarray) -> Any:
    return array.reshape(-1).view(np.uint8).data if array.dtype != object else repr(array.tolist()).encode()


class _Walk:
    """Feeds the canonical form of a jaxpr to a hash: variables by the order in which they appear."""

    def __init__(self, update: Callable[[bytes], Any], named: bool):
        self._update, self._named = update, named

    def closed(self, program: ClosedJaxpr) -> None:
        """A program with its constants."""
        self.jaxpr(program.jaxpr)
        for constant in program.consts:
            self._value(constant)

    def jaxpr(self, jaxpr: Jaxpr) -> None:
        """The operations of a program."""
        numbers: dict[Any, int] = {}

        def name(variable: Any) -> None:
            if isinstance(variable, Literal):
                self._text(f"literal {variable.aval}")
                self._value(variable.val)
            else:
                self._text(f"v{numbers.setdefault(variable, len(numbers))} {variable.aval}")

        for variable in (*jaxpr.constvars, *jaxpr.invars):
            name(variable)
        for eqn in jaxpr.eqns:
            if eqn.primitive.name in CALLBACKS and not self._named:
                raise ConfigError(
                    "the training step calls a function of Python (a callback), whose content cannot be compared with "
                    "that of an earlier run; say what it computes with fit(..., identity={...})"
                )
            self._text(eqn.primitive.name)
            for variable in (*eqn.invars, *eqn.outvars):
                name(variable)
            self._value({key: value for key, value in eqn.params.items() if key not in SKIPPED})
        for variable in jaxpr.outvars:
            name(variable)

    def _text(self, text: str) -> None:
        self._update(text.encode() + b"\0")

    @functools.singledispatchmethod
    def _value(self, value: Any) -> None:
        """A parameter or constant. What has no content of its own, such as a function, counts by its type."""
        if isinstance(value, PLACES):
            return
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            array = _values(value)
            self._text(f"array {array.dtype} {array.shape}")
            self._update(bytes(_bytes(array)))
        elif isinstance(value, list | tuple):
            self._text(f"{len(value)} of a list")
            for part in value:
                self._value(part)
        else:
            self._text(_plain(value))

    @_value.register(ClosedJaxpr)
    def _(self, value: ClosedJaxpr) -> None:
        self.closed(value)

    @_value.register(Jaxpr)
    def _(self, value: Jaxpr) -> None:
        self.jaxpr(value)

    @_value.register(Mapping)
    def _(self, value: Mapping) -> None:
        for key in sorted(value, key=str):
            self._text(str(key))
            self._value(value[key])

    @_value.register(set | frozenset)
    def _(self, value: set | frozenset) -> None:
        self._text(",".join(sorted(map(_plain, value))))


def _plain(value: Any) -> str:
    """A value in words that do not depend on where it lies in memory."""
    if isinstance(value, str | bytes | int | float | complex | bool | None | enum.Enum | np.dtype):
        return repr(value)
    if isinstance(value, type):
        return value.__qualname__
    if callable(value):
        return type(value).__qualname__
    text = repr(value)
    return type(value).__qualname__ if " at 0x" in text else text
