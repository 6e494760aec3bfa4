"""The house itself: style, types, import directions and names."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("core", "latent", "rec", "causal", "interp", "experiments")
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"}
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def run(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(Path(sys.executable).with_name(command[0])), *command[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "--no-cache", "."),
        ("ruff", "format", "--no-cache", "--check", "."),
        ("lint-imports", "--no-cache"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_clean(command):
    result = run(*command)
    assert result.returncode == 0, result.stdout + result.stderr


def test_types_check():
    probe = run("pyright", "--version")
    if probe.returncode:
        pytest.skip("pyright cannot start here: it fetches Node.js and itself on its first run")
    result = run("pyright")
    assert result.returncode == 0, result.stdout


def test_methods_are_pure():
    """No printing, opening of files or flags outside of core and experiments."""
    methods = [path for path in SOURCES if path.relative_to(ROOT).parts[0] not in ("core", "experiments")]
    calls = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.func.id}"
        for path in methods
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "open", "input")
    }
    assert not calls


def test_no_module_lacks_a_home_or_a_docstring():
    assert not [path for path in SOURCES if path.stem in ("utils", "util", "helpers", "misc", "common")]
    assert not [path for path in SOURCES if ast.get_docstring(ast.parse(path.read_text())) is None]


def unsafe(path: Path) -> list[str]:
    """Where a module unpickles or evaluates text; methods that happen to be called so (``network.eval()``) do not."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names) if any(name.name.split(".")[0] in UNPICKLERS for name in names):
                found.append("imports an unpickler")
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in UNPICKLERS:
                found.append("imports an unpickler")
            case ast.Attribute(value=ast.Name(id="builtins"), attr="eval" | "exec"):
                found.append(f"builtins.{node.attr}")
            case ast.Name(id="eval" | "exec"):
                found.append(node.id)
            case ast.keyword(arg="allow_pickle", value=value) if not (
                isinstance(value, ast.Constant) and value.value is False
            ):
                found.append("allow_pickle")
            case ast.keyword(arg="weights_only", value=ast.Constant(value=False)):
                found.append("weights_only=False")
    return [f"{path.relative_to(ROOT)}: {what}" for what in found]


def test_nothing_is_unpickled_or_evaluated():
    found = [line for path in SOURCES for line in unsafe(path)]
    assert not found, found
