"""Options of the compiler are set for a block and no longer."""

import jax
import pytest

from core.compilation import quick_compilation

NAME = "jax_disable_most_optimizations"


@pytest.mark.parametrize(("variable", "quick"), [(None, True), ("0", False)])
def test_quick_compilation_lasts_for_a_block(monkeypatch, full_compilation, variable, quick):
    monkeypatch.delenv(NAME.upper(), raising=False)
    if variable is not None:
        monkeypatch.setenv(NAME.upper(), variable)
    with quick_compilation():
        assert jax.config.read(NAME) is quick
    assert jax.config.read(NAME) is False
