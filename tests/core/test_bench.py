import math

import pytest

from core.bench import peer_module
from core.errors import RelicError


def test_a_peer_is_imported_and_a_missing_one_is_named_with_the_remedy():
    assert peer_module("math") is math
    with pytest.raises(RelicError, match=r"needs no_such_peer.*make peers"):
        peer_module("no_such_peer")
