"""Whether the test that a claim is bound to exists and can fail, read from its source."""

import ast
from collections.abc import Sequence
from pathlib import Path

SKIPS = ("skip", "xfail")


def fault(nodeid: str, root: Path) -> str | None:
    """Why a test cannot be evidence, or None where it can.

    Args:
      nodeid: ``path::test`` or ``path::Class::test``, without parameters.
      root: the folder that the path starts from.
    """
    path, *names = nodeid.split("::")
    if not names or not (root / path).is_file():
        return f"there is no file {path}" if names else "it names a file and no test in it"
    module = ast.parse((root / path).read_text(encoding="utf-8"))
    inside: ast.AST = module
    around: list[ast.AST] = [module]
    for name in names:
        found = [node for node in ast.iter_child_nodes(inside) if getattr(node, "name", None) == name]
        if not found:
            return f"{path} has no test {'::'.join(names)}"
        inside = found[-1]
        around.append(inside)
    if any(_is_switched_off(node) for node in around):
        return "it is always skipped or expected to fail"
    functions = {node.name: node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)}
    return None if _can_fail(inside, functions, frozenset()) else "it checks nothing that could fail"


def _is_switched_off(node: ast.AST) -> bool:
    marks = list(getattr(node, "decorator_list", []))
    body: Sequence[ast.stmt] = getattr(node, "body", [])
    for statement in body:
        if isinstance(statement, ast.Assign) and any(getattr(t, "id", "") == "pytestmark" for t in statement.targets):
            marks += statement.value.elts if isinstance(statement.value, ast.List | ast.Tuple) else [statement.value]
        if isinstance(statement, ast.Expr) and _called(statement.value) in SKIPS:
            return True
    return any(_is_unconditional(mark) for mark in marks)


def _is_unconditional(mark: ast.expr) -> bool:
    """``mark.skip``, and ``mark.xfail`` or ``mark.skipif`` unless under a condition that is computed."""
    name = _name(mark.func if isinstance(mark, ast.Call) else mark)
    if name == "skip":
        return True
    call = mark if isinstance(mark, ast.Call) else None
    conditions = [*call.args, *(k.value for k in call.keywords if k.arg == "condition")] if call else []
    if name == "skipif":
        return any(isinstance(condition, ast.Constant) and condition.value for condition in conditions)
    return name == "xfail" and all(isinstance(condition, ast.Constant) for condition in conditions)


def _can_fail(node: ast.AST, functions: dict[str, ast.FunctionDef], seen: frozenset[str]) -> bool:
    """Whether there is an assertion in it, or in a function of the same module that it calls."""
    for part in ast.walk(node):
        if isinstance(part, ast.Raise) or (isinstance(part, ast.Assert) and not isinstance(part.test, ast.Constant)):
            return True
        name = _called(part)
        if name.startswith(("assert_", "check_")) or name in ("raises", "warns", "fail"):
            return True
        if name in functions and name not in seen and _can_fail(functions[name], functions, seen | {name}):
            return True
    return False


def _called(node: ast.AST) -> str:
    return _name(node.func) if isinstance(node, ast.Call) else ""


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
