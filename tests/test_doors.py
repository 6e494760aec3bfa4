"""Every public function and every configuration checks the modes and numbers that it is given."""

import ast
import dataclasses
import importlib
import inspect
import math
import pkgutil
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import pytest

from core.checks import check_arguments
from core.errors import ConfigError
from core.kinds import Range

ROOT = Path(__file__).parents[1]
ROOMS = ("core", "latent", "rec", "causal", "interp")

UNCHECKED: dict[str, str] = {
    "core.checks": "the checks themselves",
    "core.kinds": "the checks themselves",
    "core.cross_entropy": "called in compiled losses; labels are checked at the doors to them",
    **dict.fromkeys(
        (
            "core.bench.Timing",
            "core.bench.BenchResult",
            "core.bench.Load",
            "core.records.Record",
            "causal.rep4ex.estimator.Fitted",
            "causal.treatment_effects.estimators.Fitted",
            "causal.treatment_effects.evaluation.OutOfFold",
            "interp.ekfac.capture.Block",
        ),
        "a result, made by functions that are checked",
    ),
    **dict.fromkeys(
        (
            "core.learner.stream",
            "core.learner.example_places",
            "latent.diffusion.losses.stratified_times",
            "latent.diffusion.losses.uniform_times",
            "latent.mm_gpvae.fourier.spectrum",
            "latent.scan_eeg.udr.lasso",
            "latent.unet.sinusoids",
            "causal.image_cate.posterior.quantile",
            "causal.mechanisms.stacked",
            "causal.pac_invariance.invariance.on_representation",
            "causal.pac_invariance.invariance.on_subset",
        ),
        "called inside of compiled steps, by functions that are checked",
    ),
    "core.sparse.graph.Graph": "made by Graph.build, which checks the edges",
    "core.stats.comparisons.within": "limits may be infinite, and an interval of one repetition is NaN",
    "causal.mechanisms.in_order": "checks that its graph is square and has parents before children",
}
"""Modules, or functions, whose numbers and modes are not checked at every call, and why."""


def modules() -> Iterator[Any]:
    for room in ROOMS:
        package = importlib.import_module(room)
        for info in pkgutil.walk_packages(package.__path__, f"{room}."):
            yield importlib.import_module(info.name)


def exported(module: Any) -> list[str]:
    """Names that people import from a module: none from inside a package that exports what they need."""
    parent = importlib.import_module(module.__name__.rpartition(".")[0])
    if not hasattr(module, "__path__") and hasattr(parent, "__all__"):
        return []
    own = [name for name, thing in vars(module).items() if getattr(thing, "__module__", "") == module.__name__]
    return list(getattr(module, "__all__", [name for name in own if not name.startswith("_")]))


def is_door(thing: Any) -> bool:
    if getattr(thing, "__module__", "").partition(".")[0] not in ROOMS:
        return False
    is_settings = inspect.isclass(thing) and dataclasses.is_dataclass(thing) and not issubclass(thing, nn.Module)
    return inspect.isfunction(thing) or is_settings


def annotations(thing: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(inspect.unwrap(thing), include_extras=True)
    parameters = dataclasses.fields(thing) if inspect.isclass(thing) else inspect.signature(thing).parameters.values()
    return {p.name: hints[p.name] for p in parameters if p.name in hints}


def members(kind: Any) -> Iterator[Any]:
    """What a value may be: members of unions and elements of sequences count one by one."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType, tuple, list):
        for part in typing.get_args(kind):
            yield from members(part)
    else:
        yield kind


def plain(kind: Any) -> Any:
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind


def is_number_or_mode(kind: Any) -> bool:
    return any(plain(m) in (int, float) or typing.get_origin(plain(m)) is Literal for m in members(kind))


ALL = {
    f"{thing.__module__}.{thing.__qualname__}": thing
    for module in modules()
    for thing in (getattr(module, name) for name in exported(module))
    if is_door(thing) and any(is_number_or_mode(kind) for kind in annotations(thing).values())
}
DOORS = {n: d for n, d in ALL.items() if n not in UNCHECKED and n.rpartition(".")[0] not in UNCHECKED}


@pytest.mark.parametrize("room", ROOMS)
def test_every_door_with_a_number_or_a_mode_is_checked(room):
    here = {name: door for name, door in DOORS.items() if name.startswith(f"{room}.")}
    assert not [name for name, door in here.items() if not hasattr(door, "__checked__")]


def wrong_values(kind: Any) -> Iterator[Any]:
    """Values that a parameter of this kind cannot take: of a single number, or of a mode."""
    kinds = list(members(kind))
    if kinds == [kind] and plain(kind) in (int, float):
        yield "3"
        yield math.nan
        yield from (1.5,) if plain(kind) is int else ()
        for mark in getattr(kind, "__metadata__", ()):
            if isinstance(mark, Range):
                yield from (limit + sign for limit, sign in ((mark.least, -1), (mark.most, 1)) if math.isfinite(limit))
                yield from (limit for limit in (mark.above, mark.below) if math.isfinite(limit))
    if any(typing.get_origin(plain(m)) is Literal for m in kinds) and str not in kinds:
        yield "no such mode"


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_number_or_a_mode_cannot_be_is_refused_by_name(room):
    for name, door in DOORS.items():
        if not name.startswith(f"{room}."):
            continue
        hints = annotations(door)
        for parameter, kind in hints.items():
            if is_number_or_mode(kind):
                for value in wrong_values(kind):
                    with pytest.raises(ConfigError, match=f"{name}: {parameter} "):
                        check_arguments(name, hints, {parameter: value})


TEXTS_FROM_FILES = {
    "core/compilation.py": "a platform's name, from JAX",
    "core/lm/config.py": "what a config.json says, refused where it is none",
    "core/lm/loading.py": "names of tensors; those that are none are refused",
}


def compared_texts() -> Iterator[str]:
    """Parameters annotated as any text whose values are told apart in the body: modes, whose misspelling is another."""
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        if str(path.relative_to(ROOT)) in TEXTS_FROM_FILES:
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            texts = {a.arg for a in arguments if isinstance(a.annotation, ast.Name) and a.annotation.id == "str"}
            for node in ast.walk(function):
                if told_apart(node) in texts:
                    yield f"{path.relative_to(ROOT)}:{node.lineno} {function.name}({told_apart(node)})"


def told_apart(node: ast.AST) -> str | None:
    """The name that is compared with texts, or looked up among them."""
    if isinstance(node, ast.Compare) and isinstance(node.left, ast.Name):
        other = node.comparators[0]
        options = other.elts if isinstance(other, (ast.Tuple, ast.List, ast.Set)) else [other]
        are_texts = all(isinstance(o, ast.Constant) and isinstance(o.value, str) and o.value for o in options)
        return node.left.id if are_texts else None
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Dict) and isinstance(node.slice, ast.Name):
        return node.slice.id
    if isinstance(node, ast.Match) and isinstance(node.subject, ast.Name):
        return node.subject.id
    return None


def test_a_mode_is_no_mere_text():
    assert not list(compared_texts())
