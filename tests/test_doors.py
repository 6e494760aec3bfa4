"""Every public function and every configuration checks the modes and numbers that it is given."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import pytest

from core.checks import check_arguments
from core.errors import ConfigError

ROOT = Path(__file__).parents[1]
ROOMS = ("core", "latent", "rec", "causal", "interp")


def modules() -> Iterator[Any]:
    for room in ROOMS:
        package = importlib.import_module(room)
        for info in pkgutil.walk_packages(package.__path__, f"{room}."):
            yield importlib.import_module(info.name)


def doors() -> dict[str, Any]:
    """What a package exports, and the public functions and dataclasses of modules that lie beside packages."""
    found = {}
    for module in modules():
        is_package = hasattr(module, "__path__")
        parent = importlib.import_module(module.__name__.rpartition(".")[0])
        if not is_package and hasattr(parent, "__all__"):
            continue
        names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
        for name in names:
            thing = getattr(module, name)
            if getattr(thing, "__module__", "").partition(".")[0] not in ROOMS or not (is_package or thing.__module__ == module.__name__):
                continue
            if inspect.isfunction(thing) or (inspect.isclass(thing) and dataclasses.is_dataclass(thing) and not issubclass(thing, nn.Module)):
                found[f"{thing.__module__}.{thing.__qualname__}"] = thing
    return found


DOORS = doors()


def annotations(thing: Any) -> dict[str, Any]:
    target = inspect.unwrap(thing)
    hints = typing.get_type_hints(target, include_extras=True)
    names = [f.name for f in dataclasses.fields(thing)] if inspect.isclass(thing) else inspect.signature(thing).parameters
    return {name: hints[name] for name in names if name in hints}


def leaves(kind: Any) -> Iterator[Any]:
    """The members of unions and the elements of tuples, and the annotation itself."""
    origin = typing.get_origin(kind)
    if origin is Literal or origin is typing.Annotated or not typing.get_args(kind):
        yield kind
        return
    if typing.get_origin(kind) in (typing.Union, __import__("types").UnionType, tuple, list):
        for part in typing.get_args(kind):
            yield from leaves(part)


def is_number_or_mode(kind: Any) -> bool:
    def one(leaf):
        origin = typing.get_origin(leaf)
        if origin is typing.Annotated:
            return one(typing.get_args(leaf)[0])
        return origin is Literal or leaf in (int, float)

    return any(one(leaf) for leaf in leaves(kind))


if __name__ == "__main__":
    import collections
    c = collections.Counter(); done = 0
    for name, thing in DOORS.items():
        if any(is_number_or_mode(k) for k in annotations(thing).values()):
            if hasattr(thing, "__checked__"): done += 1
            else: c[thing.__module__] += 1
    print(done, sum(c.values()), len(DOORS))
    for m, n in sorted(c.items()): print(n, m)
