"""What a run is given: whether it is arrays, whether a learner takes it, and how to say what it was."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from core.errors import ConfigError, RelicError
from core.kinds import shown

Leaves = list[Any]
"""Path, shape and type of every leaf."""

_SHOWN = 6
"""So many leaves are described in a message."""


def require_arrays(data: PyTree) -> None:
    """Refuses data of a run that are no arrays.

    Raises:
      ConfigError: names the leaf.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        if not isinstance(leaf, jax.Array) and np.asarray(leaf).dtype.kind not in "biufcV":
            name = jax.tree_util.keystr(path) or "the data"
            raise ConfigError(f"data of a run must be arrays of numbers, but {name} is {shown(leaf)}")


def require_numbers(found: Any) -> None:
    """Refuses what an evaluation gives if it is no numbers by name.

    Raises:
      ConfigError: names what was given.
    """
    if not isinstance(found, Mapping):
        raise ConfigError(f"evaluate must give numbers by name, as {{'accuracy': 0.9}}, not {shown(found)}")
    for name, value in found.items():
        if not isinstance(name, str) or not _is_numbers(value):
            raise ConfigError(f"evaluate must give numbers by name, but {name!r} is {shown(value)}")


def _is_numbers(value: Any) -> bool:
    try:
        dtype = np.asarray(value).dtype
    except (TypeError, ValueError):
        return False
    return jnp.issubdtype(dtype, jnp.bool_) or jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)


def described(batch: PyTree) -> Leaves:
    """What a batch is made of."""
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    return [(jax.tree_util.keystr(path), np.shape(leaf), _dtype(leaf)) for path, leaf in leaves]


def _dtype(leaf: Any) -> str:
    return str(leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype)


def in_words(leaves: Leaves) -> str:
    """Shapes and types of a batch in a line."""
    more = f" and {len(leaves) - _SHOWN} more" if len(leaves) > _SHOWN else ""
    words = ", ".join(f"{path}{' ' * bool(path)}{dtype}{list(shape)}" for path, shape, dtype in leaves[:_SHOWN])
    return (words or "nothing") + more


@contextlib.contextmanager
def taking(data: PyTree, what: str) -> Iterator[None]:
    """Says with which data a learner's function could not be traced, where arrays do not fit what it does with them.

    Raises:
      ConfigError: in place of what Python and JAX raise then, which is its cause.
    """
    try:
        yield
    except RelicError:
        raise
    except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        lines = str(error).strip().splitlines() or [""]
        raise ConfigError(
            f"the learner's {what} cannot take these data ({in_words(described(data))}): "
            f"{type(error).__name__}: {lines[0][:200]}"
        ) from error
