"""A little that differs between all numbers of made-up records: equal differences are no evidence of a difference."""

import hashlib


def noise(*names: object) -> float:
    """A number between -5e-6 and 5e-6 that depends on the names."""
    digest = hashlib.sha256(repr(names).encode()).digest()
    return 1e-5 * (int.from_bytes(digest[:4]) / 2**32 - 0.5)
