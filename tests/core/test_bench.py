import math
import time

import jax.numpy as jnp
import pytest

from core.bench import beside, peer_module, require_agreement
from core.errors import RelicError


def test_a_peer_is_imported_and_a_missing_one_is_named_with_the_remedy():
    assert peer_module("math") is math
    with pytest.raises(RelicError, match=r"needs no_such_peer.*make peers"):
        peer_module("no_such_peer")


def test_what_the_first_call_takes_longer_is_compilation_and_seconds_are_per_step():
    naps = iter([0.3, *[0.02] * 5])

    def ours():
        time.sleep(next(naps))
        return jnp.zeros(())

    found = beside("a nap", ours, "a longer one", lambda: time.sleep(0.08), steps=2, repeats=5)
    assert 0.2 < found.compile_s < 0.4
    assert 0.01 <= found.ours_s < found.peer_s
    assert 0.04 <= found.peer_s < 0.08
    assert found.ratio == pytest.approx(found.peer_s / found.ours_s)


@pytest.mark.parametrize("difference", [0.1, math.nan])
def test_sides_that_disagree_are_not_compared(difference):
    require_agreement(1e-5, 1e-4, "losses")
    with pytest.raises(RelicError, match="losses differ"):
        require_agreement(difference, 1e-4, "losses")
