"""What public functions check of their arguments: types say it once, :func:`checked` does it at the door.

A function that people call, and a configuration that they write, carry the decorator :func:`checked`. Their annotations
are then what they promise *and* what is checked, once, on the host, before any work::

    @checked
    def share(x: Annotated[Float[Array, "n d"], FINITE], labels: Int[Array, " n"], k: Count,
              method: Literal["exact", "sampled"] = "exact"): ...

=====================================  =========================================================================
annotation                             what is refused
=====================================  =========================================================================
``Literal["a", "b"]``                  every other value; the message names the options and the one that is near
``Count``, ``Positive``, ``Fraction``  what is no such number; ``Annotated[int, Range(2, 10)]`` for other ranges
``int``, ``float``, ``bool``, ``str``  another type; NaN in place of a number
``Float[Array, "n d"]`` and its kin    another dtype or number of axes; two lengths for one name among the arguments
``Annotated[..., FINITE]``             NaN and infinities in an array; the message says where the first one is
``Annotated[..., Range(0, 1)]``        of an array: an entry outside; the message says where the first one is
``Key[Array, ""]``                     what is no random key
``NonEmpty[Count]``                    an empty tuple, and entries that are no counts; ``Length(2)`` marks other lengths
``Callable``, classes, tuples, unions  what is neither callable nor an instance; elements are checked in turn
=====================================  =========================================================================

Values that are being traced have a shape and a dtype only, and only these are checked: compiled programs do not grow.
A list given for an array is handed on as one.

What relates values to each other is checked in the body, by :class:`core.errors.ConfigError` too, or by
:func:`require_finite` and :func:`require_indices`.
"""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar

import jax
import numpy as np
from jaxtyping import PyTree

from core.errors import ConfigError
from core.kinds import (
    Finite,
    Length,
    Lengths,
    Range,
    array_of,
    at_place,
    first_not_finite,
    holds_numbers,
    is_traced,
    not_one_of,
    problem_of,
)

Checked = TypeVar("Checked", bound=Callable)

FINITE = Finite()
Count = Annotated[int, Range(1)]
"""How many there are, at least one."""
Natural = Annotated[int, Range(0)]
"""A number of things of which there may be none."""
Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(0)]
Size = Annotated[int, Range(1, 65_536)]
"""Units of a layer, dimensions, examples of a batch: the lengths of arrays, so that a slip takes no memory."""
Fraction = Annotated[float, Range(0, 1)]
"""A share or probability, 0 and 1 among them."""
OpenFraction = Annotated[float, Range(above=0, below=1)]
"""A share or probability that is neither 0 nor 1."""
Element = TypeVar("Element")
NonEmpty = Annotated[tuple[Element, ...], Length(1)]
"""Tuples of one entry or more: ``NonEmpty[Size]``."""


OF_FLAX = ("parent", "name")
"""Fields that every module of flax.linen has beside those of its own."""


def checked(target: Checked) -> Checked:
    """The function, or the dataclass, whose arguments are checked by their annotations at every call.

    Raises (the function returned):
      ConfigError: names function, argument and what is possible.
    """
    if inspect.isclass(target):
        return _checked_class(target)
    signature = inspect.signature(target)
    kinds = functools.cache(lambda: typing.get_type_hints(target, include_extras=True))

    @functools.wraps(target)
    def call(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)  # a wrong number of arguments is Python's own TypeError
        check_arguments(target.__qualname__, kinds(), bound.arguments, signature)
        arrays = {name: array_of(kinds().get(name), value) for name, value in bound.arguments.items()}
        arrays = {name: found[0] for name, found in arrays.items() if found}
        if not arrays:
            return target(*args, **kwargs)
        bound.arguments.update(arrays)
        return target(*bound.args, **bound.kwargs)

    call.__checked__ = True  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


def _checked_class(target: Any) -> Any:
    kinds = functools.cache(lambda: typing.get_type_hints(target, include_extras=True))
    fields = [field.name for field in dataclasses.fields(target) if field.init and field.name not in OF_FLAX]

    def check(self) -> None:
        check_arguments(target.__qualname__, kinds(), {name: getattr(self, name) for name in fields})

    if hasattr(target, "__post_init__"):  # its own checks may rely on these
        target.__post_init__ = _before(check, target.__post_init__)
    else:
        target.__init__ = _after(target.__init__, check)
    target.__checked__ = True
    return target


def _before(check: Callable, function: Callable) -> Callable:
    @functools.wraps(function)
    def both(self, *args, **kwargs):
        check(self)
        return function(self, *args, **kwargs)

    return both


def _after(function: Callable, check: Callable) -> Callable:
    @functools.wraps(function)
    def both(self, *args, **kwargs):
        function(self, *args, **kwargs)
        check(self)

    return both


def check_arguments(
    of: str, kinds: Mapping[str, Any], arguments: Mapping[str, Any], signature: inspect.Signature | None = None
) -> None:
    """Checks values by the annotations of the same names.

    Args:
      of: what they are arguments of, for the message.
      kinds: annotations by name; what has none is not checked.
      arguments: values by name.
      signature: tells arguments that collect several values (``*args``) from others; a default value passes.

    Raises:
      ConfigError: for the first that does not fit.
    """
    lengths: Lengths = {}
    for name, value in arguments.items():
        if name not in kinds:
            continue
        parameter = None if signature is None else signature.parameters[name]
        if parameter is not None and parameter.default is value:
            continue
        if parameter is not None and parameter.kind is parameter.VAR_KEYWORD:
            values = value
        elif parameter is not None and parameter.kind is parameter.VAR_POSITIONAL:
            values = {f"{name}[{i}]": each for i, each in enumerate(value)}
        else:
            values = {name: value}
        for label, one in values.items():
            if problem := problem_of(kinds[name], one, label, lengths):
                raise ConfigError(f"{of}: {label} {problem}")


def require_finite(name: str, tree: PyTree, remedy: str = "remove or impute such rows") -> None:
    """Refuses NaN, infinities and what is no number in the arrays of a tree, with an error that names leaf and place.

    Raises:
      ConfigError: where there is one; of values that are being traced nothing is asked.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        at = name + jax.tree_util.keystr(path)
        if isinstance(leaf, np.ndarray) and not holds_numbers(leaf):
            like = f", such as {leaf.flat[:1].tolist()[0]!r:.40}" if leaf.size else ""
            raise ConfigError(
                f"{at} is of type {leaf.dtype}{like}, not of numbers; convert it, and number what is text: "
                "names, numbers = np.unique(texts, return_inverse=True)"
            )
        if place := first_not_finite(leaf):
            raise ConfigError(f"{at} has {place}; {remedy}")


def require_indices(name: str, values: Any, count: int, of: str = "entries") -> None:
    """Refuses integers outside of 0 ... count - 1.

    Raises:
      ConfigError: names the first place; of values that are being traced nothing is asked.
    """
    if is_traced(values):
        return
    array = np.asarray(values)
    wrong = np.argwhere((array < 0) | (array >= count))
    if len(wrong):  # of a number by itself the place has no entries
        place = tuple(int(i) for i in wrong[0])
        raise ConfigError(
            f"{name}{at_place(place)} is {array[place]}, but there are {count} {of}, numbered 0 to {count - 1}"
        )


def require_one_of(what: str, value: Any, options: Iterable[Any]) -> None:
    """Refuses what is not one of the options; for options that are known at run time only, others are ``Literal``.

    Raises:
      ConfigError: names the options and the one that may have been meant.
    """
    possible = list(options)
    if not any(value is option or (type(value) is type(option) and value == option) for option in possible):
        raise ConfigError(f"{what} {not_one_of(value, possible)}")
