"""No learner and no folder of the public interface goes without the laws of its kind."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from types import FunctionType

import causal
import core
import interp
import latent
import rec
from tests.examples import EXAMPLES, NO_EXAMPLE
from tests.test_folders import FOLDERS

ROOMS = (core, rec, interp, causal, latent)


def public_functions() -> Iterator[tuple[str, FunctionType]]:
    """Public functions and methods of all rooms, by name."""
    for room in ROOMS:
        for found in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            module = importlib.import_module(found.name)
            for name, value in vars(module).items():
                if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
                    continue
                if inspect.isclass(value):
                    yield from (
                        (f"{module.__name__}.{name}.{method}", function)
                        for method, function in vars(value).items()
                        if inspect.isfunction(function) and not method.startswith("_")
                    )
                elif inspect.isfunction(value):
                    yield f"{module.__name__}.{name}", value


def returns_a_learner(function: FunctionType) -> bool:
    kind = str(function.__annotations__.get("return", ""))
    return any(kind.endswith(end) for end in (".Learner'>", ".GradientLearner'>", "LearnerLike"))


def test_every_learner_has_an_example_or_a_reason_to_have_none():
    called = set()

    def note(frame, event, _):
        if event == "call":
            called.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        for example in EXAMPLES.values():
            example()
    finally:
        sys.setprofile(before)
    learners = {name: function for name, function in public_functions() if returns_a_learner(function)}
    assert len(learners) > 40
    without = [name for name, function in learners.items() if function.__code__ not in called]
    assert [name for name in without if name.rsplit(".", 1)[-1] not in NO_EXAMPLE] == []


def test_every_function_with_a_folder_is_held_to_what_the_folder_belongs_to():
    wanted = {name for name, function in public_functions() if "workdir" in inspect.signature(function).parameters}
    assert wanted >= {"core.fit.fit", "interp.ekfac.influence.fit_curvature"}
    assert wanted - set(FOLDERS) == set()
