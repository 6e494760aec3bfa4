"""Settings from the command line: ``--set key=value`` onto a frozen dataclass, and lists of seeds."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from core.errors import ConfigError
from core.kinds import Length, Range

Many = Annotated[int, Range(1, 1_000_000_000)]
"""Steps, examples, repetitions: at least one."""
ManyOrNone = Annotated[int, Range(0, 1_000_000_000)]
"""The same where 0 leaves a part out."""
Rate = Annotated[float, Range(above=0, most=10)]
"""A learning rate."""
Weight = Annotated[float, Range(0, 1e6)]
"""A factor of a term, which 0 switches off."""
Scale = Annotated[float, Range(above=0, most=1e6)]
"""A factor that is divided by: never 0."""
Share = Annotated[float, Range(0, below=1)]
"""A share that is never all: of what is left out, or of a moving average."""

LARGEST_SEED = 2_000_000_000
"""With what experiments add to a seed, it stays below 2^31: in JAX a larger integer would wrap around."""
MOST_SEEDS = 100_000
TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def apply(config: Any, assignments: Sequence[str]) -> Any:
    """The configuration with each ``key=value`` put in, later ones winning.

    Raises:
      ConfigError: where a key is unknown or a value is not of its type; names what is possible.
    """
    kinds = typing.get_type_hints(type(config), include_extras=True)
    changes = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set takes key=value, not {assignment!r}")
        if key not in kinds:
            raise ConfigError(_unknown(key, config, kinds))
        try:
            changes[key] = parse(text, kinds[key])
        except ValueError as error:
            raise ConfigError(
                f"setting {key} takes {_name(kinds[key])}, not {text!r}{_hint(text, kinds[key])}"
            ) from error
    try:
        return dataclasses.replace(config, **changes)
    except ValueError as error:  # raised by the configuration's own checks
        raise ConfigError(f"settings {', '.join(assignments)}: {error}") from error


def differences(config: Any, preset: Any) -> dict[str, Any]:
    """Settings in which a configuration differs from a preset."""
    pairs = {f.name: (getattr(config, f.name), getattr(preset, f.name)) for f in dataclasses.fields(config)}
    return {name: ours for name, (ours, theirs) in pairs.items() if ours != theirs}


def parse(text: str, kind: Any) -> Any:
    """A value of a type from text; tuples are separated by commas.

    Raises:
      ValueError: where the text is no such value.
    """
    origin, parameters = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return parse(text, parameters[0])
    if origin in (typing.Union, types.UnionType):
        return _first_that_fits(text, parameters)
    if origin is Literal:
        options = {str(option): option for option in parameters}
        return options[text] if text in options else _fail(text)
    if origin in (tuple, list) or kind in (tuple, list):
        return _sequence(text, origin or kind, parameters)
    if kind is type(None):
        return None if text.lower() in ("none", "null", "") else _fail(text)
    if kind is bool:
        return TRUTH[text.lower()] if text.lower() in TRUTH else _fail(text)
    if kind not in (int, float, str):  # settings of their own, which a line of text cannot hold
        return _fail(text)
    return int(text.replace("_", "")) if kind is int else kind(text)


def _first_that_fits(text: str, kinds: Sequence[Any]) -> Any:
    for kind in sorted(kinds, key=lambda kind: (kind is not type(None), kind is str)):  # anything fits a str
        try:
            return parse(text, kind)
        except ValueError:
            continue
    return _fail(text)


def _sequence(text: str, container: type, kinds: Sequence[Any]) -> Any:
    parts = [part.strip() for part in text.strip("()[] ").split(",") if part.strip()]
    if container is list or Ellipsis in kinds:
        return container(parse(part, kinds[0] if kinds else str) for part in parts)
    if kinds and len(parts) != len(kinds):
        return _fail(text)
    return tuple(parse(part, kind) for part, kind in zip(parts, kinds or [str] * len(parts), strict=True))


def _fail(text: str) -> Any:
    raise ValueError(text)


def _name(kind: Any) -> str:
    """A type in words, with the range of its values."""
    origin, parameters = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        ranges = [f" {mark}" for mark in kind.__metadata__ if isinstance(mark, Range)]
        lengths = [f", {mark.least} or more" for mark in kind.__metadata__ if isinstance(mark, Length)]
        return "".join([_name(parameters[0]), *ranges, *lengths])
    if origin is Literal:
        return "one of " + ", ".join(map(str, parameters))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_name, parameters))
    if origin in (tuple, list):
        return "several, each " + " and ".join(_name(each) for each in parameters if each is not Ellipsis)
    return "none" if kind is type(None) else getattr(kind, "__name__", str(kind))


def _hint(text: str, kind: Any) -> str:
    """The names that somebody may have meant, where a setting takes one of some."""
    while typing.get_origin(kind) in (Annotated, tuple):
        kind = typing.get_args(kind)[0]
    return _near(text.rpartition(",")[2], map(str, typing.get_args(kind))) if typing.get_origin(kind) is Literal else ""


def _near(text: str, options: Iterable[str]) -> str:
    near = difflib.get_close_matches(text, list(options), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def require_known(what: str, names: Iterable[str], possible: Iterable[str]) -> None:
    """For the checks of a configuration's own (``__post_init__``), where a setting takes several names.

    Raises:
      ConfigError: for the first name that is not possible; names what is, and what may have been meant.
    """
    options = list(possible)
    for name in names:
        if name not in options:
            raise ConfigError(f"there is no {what} {name!r}{_near(name, options)}; possible: {', '.join(options)}")


def _unknown(key: str, config: Any, kinds: dict[str, Any]) -> str:
    near = difflib.get_close_matches(key, kinds, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    possible = ", ".join(f"{name}: {_name(kind)} = {getattr(config, name)!r}" for name, kind in kinds.items())
    return f"there is no setting {key!r}; {hint}possible: {possible}"


def seeds(text: str) -> tuple[int, ...]:
    """Seeds from a count ("5" is 0 to 4) or a list ("0,3,7"; "7," is seed 7 alone).

    Raises:
      ConfigError: where the text is neither, or a seed is above :data:`LARGEST_SEED`.
    """
    try:
        numbers = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ConfigError(f"--seeds takes a count (5) or a list (0,3,7), not {text!r}") from error
    if "," not in text and sum(numbers) > MOST_SEEDS:
        raise ConfigError(f"--seeds takes a count of at most {MOST_SEEDS:,}, not {text!r}; name single seeds as 7,")
    chosen = numbers if "," in text else tuple(range(sum(numbers)))
    if not chosen or min(chosen) < 0 or max(chosen) > LARGEST_SEED or len(set(chosen)) < len(chosen):
        raise ConfigError(f"--seeds takes at least one seed, none twice, all from 0 to {LARGEST_SEED:,}, not {text!r}")
    return chosen
