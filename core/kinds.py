"""Whether a value fits an annotation, and what is wrong where it does not: the inside of :mod:`core.checks`.

What is wrong is said as the end of a sentence which the argument's name begins.
"""

import collections.abc
import difflib
import math
import numbers
import pathlib
import types
import typing
from collections.abc import Iterable
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import AbstractArray

Lengths = dict[str, tuple[int, str]]
"""Of each name in the shapes of one call: its length, and the argument that had it first."""


class Range(NamedTuple):
    """Numbers that an argument may take."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    """Below all of them, and none itself."""
    below: float = math.inf

    def holds(self, value: float) -> bool:
        """Whether a number is one of them; NaN never is."""
        above = value > self.above if self.above > -math.inf else True
        return self.least <= value <= self.most and above and (value < self.below or self.below == math.inf)

    def __str__(self) -> str:
        parts = [
            f"{word} {limit:g}"
            for word, limit, none in (
                ("of at least", self.least, -math.inf), ("above", self.above, -math.inf),
                ("at most", self.most, math.inf), ("below", self.below, math.inf),
            )
            if limit != none
        ]  # fmt: skip
        return " and ".join(parts)


class Length(NamedTuple):
    """Marks a sequence which must have so many entries at least."""

    least: int


class Finite(NamedTuple):
    """Marks an array, or a tree of arrays, which must hold no NaN and no infinity."""


def problem_of(kind: Any, value: Any, name: str, lengths: Lengths) -> str | None:
    """What is wrong with a value, as the end of a sentence that its name begins; None where it fits."""
    if kind is Any:  # a class since Python 3.11, but of no instances
        return None
    origin, parameters = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return problem_of(parameters[0], value, name, lengths) or _first(
            _marked(mark, value) for mark in kind.__metadata__
        )
    if origin in (typing.Union, types.UnionType):
        return _no_member(parameters, value, name, lengths)
    if origin is Literal:
        fits = any(type(value) is type(option) and value == option for option in parameters)
        return None if fits else not_one_of(value, parameters)
    if _is_array_kind(kind):
        return _array_problem(kind, value, name, lengths)
    if origin in (tuple, list, collections.abc.Sequence):
        return _sequence_problem(origin, parameters, value, name, lengths)
    return _scalar_problem(origin or kind, value)


def _first(problems: Iterable[str | None]) -> str | None:
    return next((problem for problem in problems if problem), None)


def _marked(mark: Any, value: Any) -> str | None:
    if isinstance(mark, Length) and len(value) < mark.least:
        return f"must have {mark.least} or more entries, not {shown(value)}"
    if isinstance(mark, Range) and not is_traced(value):
        if np.ndim(value):
            return _outside(mark, np.asarray(value))
        if not mark.holds(value):
            return f"must be a number {mark}, not {shown(value)}"
    if isinstance(mark, Finite):
        for path, leaf in jax.tree_util.tree_leaves_with_path(value):
            if place := first_not_finite(leaf):
                return f"has {place}{_of_leaf(path)}; remove or impute such rows"
    return None


def _outside(mark: Range, array: np.ndarray) -> str | None:
    """The first entry of an array that lies outside of a range."""
    fits = (array >= mark.least) & (array <= mark.most)
    fits &= (array > mark.above) | (mark.above == -math.inf)
    fits &= (array < mark.below) | (mark.below == math.inf)
    if fits.all():
        return None
    place = tuple(int(i) for i in np.argwhere(~fits)[0])
    return f"must hold numbers {mark}, but has {array[place]} at {list(place)}"


def _of_leaf(path: Any) -> str:
    return f" of {jax.tree_util.keystr(path)}" if path else ""


def _no_member(parameters: Any, value: Any, name: str, lengths: Lengths) -> str | None:
    problems = []
    for member in parameters:
        trial = dict(lengths)
        problem = problem_of(member, value, name, trial)
        if problem is None:
            lengths.update(trial)
            return None
        problems.append((member, problem))
    named = [(member, problem) for member, problem in problems if member is not type(None)]
    closest = [problem for member, problem in named if _is_near(member, value)]
    if closest or len(named) == 1:
        return closest[0] if closest else named[0][1]
    return f"must be {' or '.join(dict.fromkeys(_called(member) for member, _ in named))}, not {shown(value)}"


def _is_near(kind: Any, value: Any) -> bool:
    """Whether a value seems to have been meant as of this kind."""
    origin, parameters = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _is_near(parameters[0], value)
    if origin is Literal:
        return isinstance(value, str)
    if _is_array_kind(kind):
        return hasattr(value, "shape")
    if kind in (int, float):
        return isinstance(value, numbers.Number) and not isinstance(value, bool)
    return False


def _called(kind: Any) -> str:
    """An annotation in words."""
    origin, parameters = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        ranges = [f" {mark}" for mark in kind.__metadata__ if isinstance(mark, Range)]
        return _called(parameters[0]) + "".join(ranges)
    if origin is Literal:
        return "one of " + ", ".join(repr(option) for option in parameters)
    if _is_array_kind(kind):
        return f"an array [{kind.dim_str.strip()}]"
    words = {int: "an integer", float: "a number", bool: "True or False", str: "a text", type(None): "None"}
    return words.get(kind, f"a {getattr(kind, '__name__', kind)}")


def not_one_of(value: Any, options: Iterable[Any]) -> str:
    """What is possible, and which option may have been meant."""
    names = {str(option).lower(): str(option) for option in options}
    near = difflib.get_close_matches(str(value).lower(), names, n=1, cutoff=0.5)
    hint = f"; did you mean {names[near[0]]!r}?" if near else ""
    return f"must be one of {', '.join(map(repr, options))}, not {shown(value)}{hint}"


def _sequence_problem(origin: Any, parameters: Any, value: Any, name: str, lengths: Lengths) -> str | None:
    if isinstance(value, (str, bytes)) or not _is_sequence(value):
        return f"must be a sequence, not {shown(value)}"
    if origin is tuple and parameters and Ellipsis not in parameters:
        if len(value) != len(parameters):
            return f"must have {len(parameters)} entries, not {len(value)}"
        kinds = parameters
    else:
        kinds = [parameters[0] if parameters else Any] * len(value)
    for i, (kind, one) in enumerate(zip(kinds, value, strict=True)):
        if problem := problem_of(kind, one, f"{name}[{i}]", lengths):
            return f"at place {i} {problem}"
    return None


def _is_sequence(value: Any) -> bool:
    """Whether it is a list or the like; columns and an index of pandas are, a table is not."""
    known = isinstance(value, (collections.abc.Sequence, np.ndarray, jax.Array))
    return known or (hasattr(value, "__array__") and getattr(value, "ndim", 0) == 1)


def _scalar_problem(kind: Any, value: Any) -> str | None:
    if kind in (int, float, bool):
        return _number_problem(kind, value)
    if kind is str:
        return None if isinstance(value, str) else f"must be a text, not {shown(value)}"
    if kind is pathlib.Path:
        return None if isinstance(value, (str, pathlib.Path)) else f"must be a path, not {shown(value)}"
    if kind in (np.ndarray, jax.Array):
        return None if _is_array(value) else f"must be an array, not {shown(value)}"
    if kind is collections.abc.Callable:
        return None if callable(value) else f"must be a function, not {shown(value)}"
    if kind is type(None):
        return None if value is None else f"must be None, not {shown(value)}"
    checkable = isinstance(kind, type) and not getattr(kind, "_is_protocol", False) and kind is not object
    if checkable and kind.__module__ != "jaxtyping" and not isinstance(value, kind):
        return f"must be a {kind.__name__}, not {shown(value)}"
    return None


def _number_problem(kind: Any, value: Any) -> str | None:
    wanted = {int: "an integer", float: "a number", bool: "True or False"}[kind]
    refused = f"must be {wanted}, not {shown(value)}"
    if _is_array(value) and np.ndim(value) == 0:
        fits = {
            int: jnp.issubdtype(value.dtype, jnp.integer),
            float: jnp.issubdtype(value.dtype, jnp.integer) or jnp.issubdtype(value.dtype, jnp.floating),
            bool: value.dtype == bool,
        }[kind]
        return None if fits and (is_traced(value) or not _is_nan(value)) else refused
    if kind is bool:
        return None if isinstance(value, (bool, np.bool_)) else refused
    if isinstance(value, (bool, np.bool_)):
        return refused
    fits = isinstance(value, numbers.Integral if kind is int else numbers.Real)
    return None if fits and not _is_nan(value) else refused


def _is_nan(value: Any) -> bool:
    return bool(value != value)


def _is_array_kind(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, AbstractArray)


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic, jax.Array, jax.ShapeDtypeStruct)) or is_traced(value)


def is_traced(value: Any) -> bool:
    """Whether only shape and dtype of a value are known."""
    return isinstance(value, (Tracer, jax.ShapeDtypeStruct))


def array_of(kind: Any, value: Any) -> tuple[Any] | None:
    """The array, alone in a tuple, that a list stands for; None where it is no list, or no array is asked for.

    Args:
      kind: annotation; one that takes sequences too leaves a list as it is.
      value: what fits it.
    """
    if not isinstance(value, (list, tuple)):
        return None
    if typing.get_origin(kind) is Annotated:
        return array_of(typing.get_args(kind)[0], value)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(kind) if member is not type(None)]
        fitting = [m for m in members if problem_of(m, value, "", {}) is None]
        return array_of(fitting[0], value) if fitting else None
    if not _is_array_kind(kind):
        return None
    make = np.asarray if kind.array_type is np.ndarray else jnp.asarray
    try:
        array = make(value)
    except OverflowError:  # integers beyond 32 bits are the function's own affair
        return None
    wanted = {"Float": float, "Int": int, "Bool": bool}.get(kind.__name__.partition("[")[0])
    is_other = wanted is float and not jnp.issubdtype(array.dtype, jnp.floating)
    return (array.astype(wanted) if wanted and (is_other or not array.size) else array,)


def _array_problem(kind: Any, value: Any, name: str, lengths: Lengths) -> str | None:
    try:
        array = value if _is_array(value) else np.asarray(value)
    except jax.errors.TracerArrayConversionError:  # a list of what is being traced
        try:
            array = jnp.asarray(value)
        except (TypeError, ValueError):
            return f"must be an array [{kind.dim_str.strip()}], not {shown(value)}"
    except ValueError:
        return f"must be an array [{kind.dim_str.strip()}], not rows of different lengths"
    if not holds_numbers(array):
        return f"must be an array of numbers [{kind.dim_str.strip()}], not {shown(value)}"
    return _dtype_problem(kind, array, value, name) or _shape_problem(kind.dim_str, array.shape, name, lengths)


_DTYPES = {"Float": jnp.floating, "Int": jnp.integer, "Integer": jnp.integer, "Bool": jnp.bool_, "Inexact": jnp.inexact}


def _dtype_problem(kind: Any, array: Any, value: Any, name: str) -> str | None:
    family = kind.__name__.partition("[")[0]
    if family == "Key":
        is_key = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
        return None if is_key else f"must be a random key, as jax.random.key(0) makes, not {shown(value)}"
    if family not in _DTYPES or jnp.issubdtype(array.dtype, _DTYPES[family]):
        return None
    if not _is_array(value) and (not array.size or (family == "Float" and array.dtype.kind in "iu")):
        return None  # a list of Python integers is a list of numbers, an empty one a list of anything
    wanted = {"Float": "floating-point numbers", "Bool": "True and False"}.get(family, "integers")
    is_whole = family == "Float" and array.dtype.kind in "iub"
    return f"must hold {wanted}, not {array.dtype}" + (f"; pass {name}.astype(np.float32)" if is_whole else "")


def _shape_problem(dims: str, shape: tuple[int, ...], name: str, lengths: Lengths) -> str | None:
    tokens = dims.split()
    many = [i for i, token in enumerate(tokens) if token == "..." or token.startswith("*")]
    wanted = f"must have shape [{', '.join(tokens)}], not {list(shape)}"
    if many:
        before, after = tokens[: many[0]], tokens[many[0] + 1 :]
        if len(shape) < len(before) + len(after):
            return wanted
        pairs = [*zip(before, shape, strict=False), *zip(after[::-1], shape[::-1], strict=False)]
    else:
        if len(shape) != len(tokens):
            return wanted
        pairs = list(zip(tokens, shape, strict=True))
    for token, size in pairs:
        if token.isdigit() and int(token) != size:
            return wanted
        if token.isidentifier() and not token.startswith("_"):
            known, where = lengths.setdefault(token, (size, name))
            if known != size:
                return f"{wanted}: {token} is {size} here and {known} in {where}"
    return None


def holds_numbers(array: Any) -> bool:
    """Whether an array is of numbers, of True and False or of random keys."""
    families = (jnp.number, jnp.bool_, jax.dtypes.prng_key)
    return any(jnp.issubdtype(array.dtype, family) for family in families)


def _is_on_accelerator(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and any(device.platform != "cpu" for device in leaf.devices())


def first_not_finite(leaf: Any) -> str | None:
    """The first NaN or infinity and its place, in words; None where there is none or nothing can be known."""
    if is_traced(leaf):
        return None
    kept = leaf if _is_array(leaf) else np.asarray(leaf)  # a range, columns of pandas: JAX gives these no type
    if not jnp.issubdtype(kept.dtype, jnp.inexact):
        return None
    if _is_on_accelerator(kept) and bool(jnp.isfinite(kept).all()):  # only what is wrong is brought to the host
        return None
    array = np.asarray(kept)
    if np.isfinite(array).all():
        return None
    place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
    return f"{array[place]} at {list(place)}" if place else f"the value {array}"


def at_place(place: tuple[int, ...]) -> str:
    """A place in an array, as it is written after its name."""
    return f"[{', '.join(map(str, place))}]" if place else ""


def shown(value: Any) -> str:
    """A value, in few characters."""
    if _is_array(value) and np.ndim(value):
        return f"an array {value.dtype}{list(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
