"""Small networks on which attributions are compared, as pure functions of parameters and one example."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from core.checks import Count, checked
from interp.likelihoods import Task, categorical, gaussian

Parts = tuple[Task, Callable[[Array], PyTree], Callable[[PyTree, Any], Array]]
"""Of a network: task, initialisation ``key -> params``, and the last hidden layer of one example."""


class TanhMlp(nn.Module):
    """Two tanh layers; ``features`` are the second."""

    width: int
    outputs: int

    def setup(self):  # noqa: D102
        self.layers = [nn.Dense(self.width), nn.Dense(self.width)]
        self.head = nn.Dense(self.outputs)

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """The outputs: a mean, or logits."""
        return self.head(self.features(x))

    def features(self, x: Float[Array, " inputs"]) -> Float[Array, " width"]:
        """The last hidden layer."""
        for layer in self.layers:
            x = nn.tanh(layer(x))
        return x


@checked
@functools.cache
def mlp(inputs: Count, width: Count, outputs: Count) -> Parts:
    """A tanh network on examples {"x": [inputs], "y"}: a Gaussian mean for one output, classes for more.

    The same functions for the same sizes, so that what is compiled of one serves all.
    """
    model = TanhMlp(width, outputs)
    likelihood = gaussian(lambda e: e["y"]) if outputs == 1 else categorical(lambda e: e["y"])
    return (
        Task(lambda p, e: model.apply({"params": p}, e["x"]), likelihood),
        lambda key: model.init(key, jnp.zeros(inputs))["params"],
        lambda p, e: model.bind({"params": p}).features(e["x"]),
    )
