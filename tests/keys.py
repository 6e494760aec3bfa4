"""Whether a program draws twice from one key: random keys are followed through its jaxpr as symbols.

A key is known by how it was derived: from which input, by which splits (and which part of them), by folding in which
numbers. A number below 2^31 that is not known while tracing is a count, and may equal any other count; constants from
2^31 on are purposes (:class:`core.learner.Stream`), and equal nothing else. Two draws from keys that may be equal are a
fault, unless the program takes only one of them (branches), or they are one draw, computed again (rematerialised).
Splitting a key counts as drawing from it; folding a number into it does not.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import source_info_util
from jax._src.interpreters.partial_eval import dce_jaxpr
from jax.extend.core import Literal

ANY = None
"""A part of a split that is not known, or many of them."""
PURPOSES = 2**31

Step = tuple[str, Any]
Path = tuple[Step, ...]


class Count(NamedTuple):
    """A number that is folded in and not known while tracing."""

    name: int


class Draw(NamedTuple):
    """A place of a program that uses up a key."""

    key: Path
    calls: tuple[str, ...]
    """Lines of the calls that lead there."""
    branches: tuple[tuple[int, int], ...]
    """Of which conditionals it lies in which branch."""

    def __str__(self) -> str:
        return " > ".join(dict.fromkeys(line for call in self.calls for line in call.split("\n")))


def draws(fn: Callable, *args: Any) -> list[Draw]:
    """The draws of ``fn(*args)``; the program is traced and not run."""
    jaxpr = jax.make_jaxpr(fn)(*args)
    alive = dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars), instantiate=True)[0]  # what is used
    names = itertools.count()
    roots = [((("input", next(names)),) if _is_key(v.aval) else None) for v in alive.invars]
    consts = [((("constant", next(names)),) if _is_key(v.aval) else None) for v in alive.constvars]
    found: list[Draw] = []
    _follow(alive, consts, roots, (), (), found, names)
    return found


def drawn_twice(found: list[Draw]) -> list[str]:
    """Pairs of draws from keys that may be equal, in words."""
    return [
        f"{a}\n   and\n{b}\n   draw from one key {a.key}"
        for a, b in itertools.combinations(found, 2)
        if _may_be_equal(a.key, b.key) and a.calls != b.calls and not _exclusive(a, b)
    ]


def _exclusive(a: Draw, b: Draw) -> bool:
    of_a = dict(a.branches)
    return any(of_a.get(where, branch) != branch for where, branch in b.branches)


def _may_be_equal(a: Path, b: Path) -> bool:
    return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))


def _same(a: Step, b: Step) -> bool:
    if a[0] != b[0]:
        return False
    x, y = a[1], b[1]
    if a[0] == "part":
        return len(x) != len(y) or all(ANY in (i, j) or i == j for i, j in zip(x, y, strict=True))
    if isinstance(x, Count) or isinstance(y, Count):
        constant = next((n for n in (x, y) if not isinstance(n, Count)), 0)
        return constant < PURPOSES
    return x == y


def _is_key(aval: Any) -> bool:
    return jnp.issubdtype(getattr(aval, "dtype", np.float32), jax.dtypes.prng_key)


def _known(value: Any) -> bool:
    return isinstance(value, (int, np.integer))


def _follow(jaxpr, consts, args, calls, branches, found, names) -> list[Any]:
    """Paths of the outputs that are keys, known integers of those that are such, and None of others."""
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))

    def read(var):
        if not isinstance(var, Literal):
            return values.get(var)
        return int(var.val) if np.ndim(var.val) == 0 and np.issubdtype(np.asarray(var.val).dtype, np.integer) else None

    for eqn in jaxpr.eqns:
        operands = [read(v) for v in eqn.invars]
        here = (*calls, _lines(eqn)) if eqn.primitive.name not in ("remat2", "checkpoint") else calls
        outs = _step(eqn, operands, here, branches, found, names)
        values.update(zip(eqn.outvars, outs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _lines(eqn: Any) -> str:
    frames = source_info_util.user_frames(eqn.source_info.traceback)
    mine = [f for f in frames if "site-packages" not in f.file_name]
    return "\n".join(f"{'/'.join(f.file_name.split('/')[-2:])}:{f.start_line}:{f.start_column}" for f in mine)


def _step(eqn, operands, calls, branches, found, names) -> list[Any]:
    name, p = eqn.primitive.name, eqn.params
    count = len(eqn.outvars)
    if name in ("random_bits", "random_gamma") and operands[0] is not None:
        found.append(Draw(operands[0], calls, branches))
        return [None] * count
    if name == "random_split":
        found.append(Draw(operands[0], calls, branches))
        return [(*operands[0], ("split", tuple(p["shape"])), ("part", ()))]
    if name == "random_fold_in":
        number = operands[1]
        return [(*operands[0], ("fold", number % 2**32 if _known(number) else Count(next(names))))]
    if name == "random_seed":
        return [(("seed", operands[0] if _known(operands[0]) else next(names)),)]
    if name == "random_wrap":
        return [operands[0] if isinstance(operands[0], tuple) else (("data", next(names)),)]
    if name == "random_unwrap":
        return [operands[0]]
    if name == "cond":
        results = [
            _follow(
                b.jaxpr, [None] * len(b.jaxpr.constvars), operands[1:], calls, (*branches, (id(eqn), i)), found, names
            )
            for i, b in enumerate(p["branches"])
        ]
        return results[0]
    if name == "scan":
        consts, carry = p["num_consts"], p["num_consts"] + p["num_carry"]
        inside = [*operands[:consts], *[x if isinstance(x, tuple) else None for x in operands[consts:carry]]]
        inside += [x if isinstance(x, tuple) else None for x in operands[carry:]]
        return _follow(p["jaxpr"].jaxpr, [None] * len(p["jaxpr"].consts), inside, calls, branches, found, names)
    if name == "while":
        n, m = p["cond_nconsts"], p["body_nconsts"]
        inside = [*operands[n : n + m], *[x if isinstance(x, tuple) else None for x in operands[n + m :]]]
        return _follow(
            p["body_jaxpr"].jaxpr, [None] * len(p["body_jaxpr"].consts), inside, calls, branches, found, names
        )
    inner = next((p[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in p and hasattr(p[k], "eqns")), None)
    if inner is not None:
        jaxpr = getattr(inner, "jaxpr", inner)
        return _follow(jaxpr, [None] * len(jaxpr.constvars), operands, calls, branches, found, names)
    keys = [x for x, v in zip(operands, eqn.invars, strict=True) if isinstance(x, tuple)]
    if any(_is_key(v.aval) for v in eqn.outvars) and keys:
        return [_moved(eqn, keys[0])] * count
    if name in ("convert_element_type", "broadcast_in_dim", "reshape", "squeeze", "copy") and _known(operands[0]):
        return [operands[0]]
    if len(keys) == 1 and count == 1 and name in ("slice", "squeeze", "reshape", "convert_element_type", "copy"):
        return [keys[0]]
    return [None] * count


def _moved(eqn: Any, path: Path) -> Path:
    """The path after an operation on an array of keys: of a split, which part is cut out, where that is a constant."""
    if eqn.primitive.name != "slice" or path[-1] != ("part", ()):
        return path
    starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
    return (*path[:-1], ("part", tuple(s if limit - s == 1 else ANY for s, limit in zip(starts, limits, strict=True))))
