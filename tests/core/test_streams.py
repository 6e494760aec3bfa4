"""What a run draws besides its steps' noise comes from named streams of its key."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOMS = ("rec", "interp", "causal", "latent", "experiments")


def folds_of_steps(source: str) -> Iterator[int]:
    """Lines where the number of a step is folded into a key by hand."""
    for node in ast.walk(ast.parse(source)):
        folds = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("fold_in") and len(node.args) == 2
        if folds and ast.unparse(node.args[1]).rsplit(".", 1)[-1] in ("step", "steps", "t"):
            yield node.lineno


def test_no_sampler_draws_with_the_key_of_the_step_itself():
    assert list(folds_of_steps("def sample(data, key, step):\n    return jax.random.fold_in(key, step)")) == [2]
    found = {
        f"{path}:{line}"
        for room in ROOMS
        for path in sorted(Path(room).rglob("*.py"))
        for line in folds_of_steps(path.read_text(encoding="utf-8"))
    }
    assert found == set()
