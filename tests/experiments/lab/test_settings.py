"""Every setting of every system has a range, and is refused by name outside of it, before any work."""

import dataclasses
import math
import typing
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest

from core.errors import ConfigError
from core.kinds import Length, Range
from experiments.lab import registry, settings
from experiments.lab.cli import main

SYSTEMS = sorted(registry.available())


def configuration(slug: str) -> Any:
    return registry.load(slug).system.presets["small"]


def inner(config: Any):
    """The configuration and those inside of it, each with how it is put into a new one."""
    yield config, lambda one: one
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            for one, put in inner(value):
                yield one, lambda new, put=put, name=field.name: dataclasses.replace(config, **{name: put(new)})


def kinds(config: Any) -> dict[str, Any]:
    return typing.get_type_hints(type(config), include_extras=True)


def leaves(kind: Any, marks: tuple = ()):
    """The types in an annotation that are no containers, with the marks on each."""
    if get_origin(kind) is Annotated:
        yield from leaves(get_args(kind)[0], kind.__metadata__)
    elif get_origin(kind) is Literal or not get_args(kind):
        yield kind, marks
    else:
        for one in get_args(kind):
            if one is not Ellipsis:
                yield from leaves(one)


def container(kind: Any) -> Any:
    return get_origin(get_args(kind)[0] if get_origin(kind) is Annotated else kind)


def wrong(kind: Any, number: type, mark: Range) -> list[Any]:
    """Values just outside of a range, and what is no number of this kind."""
    step = 1 if number is int else 1e-6
    low = [mark.least - step] if mark.least > -math.inf else [mark.above]
    high = [mark.most * (1 + 1e-6) + step] if mark.most < math.inf else [mark.below]
    high = [math.ceil(value) for value in high] if number is int else high
    low = [math.floor(value) for value in low] if number is int else low
    return [*low, *high, math.nan, math.inf, -math.inf, "x", True, None if container(kind) is None else [], 10**400]


@pytest.mark.parametrize("slug", SYSTEMS)
def test_every_number_has_a_range_and_is_refused_outside_of_it_by_its_name(slug):
    for config, put in inner(configuration(slug)):
        assert getattr(type(config), "__checked__", False), type(config)
        for name, kind in kinds(config).items():
            numbers = [(one, marks) for one, marks in leaves(kind) if one in (int, float)]
            for number, marks in numbers:
                [mark] = [mark for mark in marks if isinstance(mark, Range)]
                assert max(mark.least, mark.above) > -math.inf, (name, mark)
                assert min(mark.most, mark.below) < math.inf, (name, mark)
                for value in wrong(kind, number, mark):
                    if value is None and type(None) in get_args(kind):
                        continue
                    size = len(getattr(config, name)) if container(kind) is tuple else 0
                    given = (value,) * (size or 1) if container(kind) is tuple else value
                    with pytest.raises(ConfigError, match=rf"\b{name}\b"):
                        put(dataclasses.replace(config, **{name: given}))


@pytest.mark.parametrize("slug", SYSTEMS)
def test_every_word_is_one_of_those_that_are_known(slug):
    for config, _ in inner(configuration(slug)):
        for name, kind in kinds(config).items():
            if any(one is str or get_origin(one) is Literal for one, _ in leaves(kind)):
                given = ("nonsense",) if container(kind) is tuple else "nonsense"
                with pytest.raises(ConfigError, match="nonsense"):
                    dataclasses.replace(config, **{name: given})


@pytest.mark.parametrize("slug", SYSTEMS)
def test_what_must_not_be_empty_is_refused_where_it_is(slug):
    for config, _ in inner(configuration(slug)):
        for name, kind in kinds(config).items():
            if any(isinstance(mark, Length) for mark in getattr(kind, "__metadata__", ())):
                with pytest.raises(ConfigError, match=rf"\b{name}\b must have 1 or more"):
                    dataclasses.replace(config, **{name: ()})


@pytest.mark.parametrize("slug", SYSTEMS)
def test_every_setting_is_read_back_from_the_command_line(slug):
    config = configuration(slug)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            with pytest.raises(ConfigError, match=field.name):
                settings.apply(config, [f"{field.name}=1"])
            continue
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert getattr(settings.apply(config, [f"{field.name}={text}"]), field.name) == value


REFUSED = {
    "dccf": ("dim=-1", "layers=-1", "learning_rate=-1", "evaluations=0", "users=1", "items=1", "methods=",
             "dataset=nosuch", "temperature=0", "batch_size=0", "users=0", "dim=1000000", "methods=DCCF K=0"),
    "jepa_linear": ("until=nan", "replications=0", "depths=", "share=2"),
    "moe_trajectories": ("persons=0",),
    "diffusion_transforms": ("samples=0",),
    "pac_invariance": ("d=0",),
}  # fmt: skip


@pytest.mark.parametrize(("slug", "assignment"), [(slug, each) for slug, all_ in REFUSED.items() for each in all_])
def test_a_setting_out_of_range_ends_a_run_before_any_work(slug, assignment, tmp_path, capsys):
    preset = ["--preset", "smoke", "--workdir", str(tmp_path)]
    assert main(["run", slug, *preset, "--set", assignment]) == 2
    said = capsys.readouterr().err
    assert assignment.partition("=")[0].removesuffix("s") in said
    assert not list(tmp_path.iterdir())


def test_an_unknown_setting_is_answered_with_the_ranges_of_those_that_there_are(capsys):
    assert main(["run", "dccf", "--set", "dimm=3"]) == 2
    said = capsys.readouterr().err
    assert "did you mean dim?" in said
    assert "dim: int of at least 1 and at most 65536 = 32" in said
