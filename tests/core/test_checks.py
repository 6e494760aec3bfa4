"""What public functions check of their arguments, by their annotations."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key

from core.checks import FINITE, Count, OpenFraction, Range, checked, require_finite, require_indices, require_one_of
from core.errors import ConfigError


@checked
def door(
    x: Annotated[Float[Array, "n d"], FINITE],
    labels: Int[Array, " n"] | None = None,
    k: Count = 1,
    mode: Literal["exact", "sampled"] = "exact",
    *more: int,
    key: Key[Array, ""] | None = None,
    sizes: tuple[int, ...] = (),
    fn: Callable | None = None,
    rate: float = 0.5,
    path: Path | None = None,
    last: Float[Array, "... d"] | None = None,
):
    del labels, k, mode, more, key, sizes, fn, rate, path, last
    return x


X = jnp.ones((3, 2))
REFUSED = {
    "another length": ({"labels": [0, 1]}, "labels must have shape [n], not [2]: n is 2 here and 3 in x"),
    "floats for integers": ({"labels": jnp.ones(3)}, "labels must hold integers, not float32"),
    "no such mode": ({"mode": "Exact"}, "mode must be one of 'exact', 'sampled', not 'Exact'; did you mean 'exact'?"),
    "no mode": ({"mode": None}, "mode must be one of 'exact', 'sampled', not None"),
    "zero": ({"k": 0}, "k must be a number of at least 1, not 0"),
    "a broken count": ({"k": 1.5}, "k must be an integer, not 1.5"),
    "a count as text": ({"k": "3"}, "k must be an integer, not '3'"),
    "a count as truth": ({"k": True}, "k must be an integer, not True"),
    "NaN": ({"rate": float("nan")}, "rate must be a number, not nan"),
    "a number for a key": ({"key": 0}, "key must be a random key, as jax.random.key(0) makes, not 0"),
    "a text among sizes": ({"sizes": (1, "a")}, "sizes at place 1 must be an integer, not 'a'"),
    "no function": ({"fn": 3}, "fn must be a function, not 3"),
    "no path": ({"path": 3}, "path must be a path, not 3"),
    "another last axis": (
        {"last": jnp.ones((4, 3))},
        "last must have shape [..., d], not [4, 3]: d is 3 here and 2 in x",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_argument_that_does_not_fit_is_named(case):
    arguments, message = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        door(X, **arguments)
    assert str(caught.value) == f"door: {message}"


def test_what_fits_passes():
    door(
        [[1, 2], [3, 4]],
        np.array([0, 1]),
        np.int64(2),
        "sampled",
        5,
        key=jax.random.key(0),
        sizes=[1, 2],
        fn=len,
        rate=1,
    )
    door(np.ones((0, 2)), labels=[])
    door(np.ones((2, 3)), last=np.ones((5, 4, 3)), path="here", rate=jnp.float32(0.1))


@pytest.mark.parametrize("x", [X[0], X.astype(int), "text", None, [[1.0], [2.0, 3.0]], X.at[1, 0].set(jnp.inf)])
def test_arrays_of_another_kind_are_refused(x):
    with pytest.raises(ConfigError, match=r"door: x (must|has inf at \[1, 0\])"):
        door(x)


def test_a_traced_value_is_checked_by_its_shape_and_adds_nothing_to_the_program():
    plain = jax.make_jaxpr(lambda x: x + 1)(X)
    assert str(jax.make_jaxpr(lambda x: door(x) + 1)(X)) == str(plain)
    with pytest.raises(ConfigError, match="shape"):
        jax.eval_shape(door, X[0])


@checked
@dataclasses.dataclass(frozen=True)
class Plain:
    dim: Count = 64
    rate: OpenFraction = 0.5


@checked
@dataclasses.dataclass(frozen=True)
class Deriving:
    dim: Count = 64

    def __post_init__(self):
        assert 64 // self.dim  # fails in its own way for 0, which is refused before


def test_a_configuration_is_checked_when_it_is_made():
    with pytest.raises(ConfigError, match="Plain: dim must be a number of at least 1, not -1"):
        Plain(dim=-1)
    with pytest.raises(ConfigError, match="Plain: rate must be a number above 0 and below 1, not 1"):
        dataclasses.replace(Plain(), rate=1.0)
    with pytest.raises(ConfigError, match="Deriving: dim"):
        Deriving(dim=0)


@checked
class Layer(nn.Module):
    dim: Count = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.dim, dtype=self.dtype)(x)


@checked
class Deep(Layer):
    depth: Annotated[int, Range(0)] = 1

    @nn.compact
    def __call__(self, x):
        for _ in range(self.depth):
            x = Layer(self.dim)(x)
        return x


def test_a_module_of_flax_is_checked_when_it_is_made():
    for wrong, message in (({"dim": 0}, "dim must"), ({"depth": -1}, "depth must")):
        with pytest.raises(ConfigError, match=f"Deep: {message}"):
            Deep(**wrong)
    assert Deep(3).init_with_output(jax.random.key(0), X)[0].shape == (3, 3)


def test_trees_and_indices():
    with pytest.raises(ConfigError, match=r"examples\['x'\] has nan at \[1, 0\]; drop it"):
        require_finite("examples", {"x": X.at[1, 0].set(jnp.nan), "y": jnp.arange(3)}, "drop it")
    with pytest.raises(ConfigError, match=r"items\[2\] is 3, but there are 3 entries, numbered 0 to 2"):
        require_indices("items", [0, 2, 3], 3)
    with pytest.raises(ConfigError, match="item is -1, but there are 3 entries"):
        require_indices("item", -1, 3)
    with pytest.raises(ConfigError, match="method must be one of 'a', 'b'"):
        require_one_of("method", "c", ("a", "b"))
    require_indices("items", [0, 2], 3)
    chex.assert_trees_all_equal(jax.jit(lambda i: (require_indices("i", i, 1), i)[1])(jnp.arange(3)), jnp.arange(3))


def test_any_fits_everything():
    @checked
    def anything(value: Any, more: Any = None):
        return value

    assert anything(3, more="x") == 3


def test_a_range_holds_for_every_entry_of_an_array():
    @checked
    def share(p: Annotated[Float[np.ndarray, "..."] | float, Range(above=0, below=1)]):
        return p

    assert share(0.5) == 0.5
    share(np.array([0.2, 0.8]))
    for value, place in ((np.array([0.2, 1.0]), "1.0 at [1]"), (np.array([[np.nan]]), "nan at [0, 0]")):
        with pytest.raises(ConfigError, match=re.escape(f"p must hold numbers above 0 and below 1, but has {place}")):
            share(value)


def test_a_single_index_is_checked_too():
    require_indices("target", 2, 3)
    with pytest.raises(ConfigError, match="target is 3, but there are 3 entries, numbered 0 to 2"):
        require_indices("target", 3, 3)


def test_columns_of_pandas_are_sequences_and_arrays():
    @checked
    def named(columns: Sequence[str], x: Annotated[Float[np.ndarray, "..."], FINITE] | None = None):
        return list(columns)

    table = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, np.nan]})
    assert (
        named(table.columns) == named(pd.Series(["a", "b"], index=[5, 4])) == named(np.array(["a", "b"])) == ["a", "b"]
    )
    named(["a"], table[["a"]])
    named(["a"], range(3))
    with pytest.raises(ConfigError, match=re.escape("x has nan at [1, 1]")):
        named(["a"], table)
    for wrong in ("ab", table, {"a", "b"}, 3):
        with pytest.raises(ConfigError, match="columns must be a sequence"):
            named(wrong)


def test_a_list_given_for_an_array_is_handed_on_as_one():
    @checked
    def given(
        x: Float[Array, "n d"],
        labels: Int[np.ndarray, " n"] | None = None,
        both: Sequence[float] | Float[np.ndarray, " m"] = (),
    ):
        return x, labels, both

    x, labels, both = given([[1, 2], [3, 4]], (0, 1), [1.0, 2.0])
    assert isinstance(x, jax.Array)
    assert x.dtype == jnp.float32
    assert isinstance(labels, np.ndarray)
    assert both == [1.0, 2.0]
    stacked = jax.jit(lambda a: given([a, a])[0])(jnp.ones(3))
    chex.assert_trees_all_equal(stacked, jnp.ones((2, 3)))
