r"""Neural mechanisms on a known causal graph, over blocks of a latent code.

Variable i owns a block of k numbers. Exogenous u become z in topological order, z_i = f_i(z_parents) + u_i; under an
intervention do(z_i := c) the variable's own equation is struck out and everything downstream is recomputed from the
same u. Used by :mod:`causal.causal_diffae` and by the variational baselines of :mod:`causal.causal_vae`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from core.checks import Count, checked, require_indices
from core.errors import ConfigError

Graph = tuple[tuple[int, ...], ...]
"""Parents: ``graph[j][i]`` is 1 where j causes i; variables are in topological order."""

Mode = Literal["paper", "code"]
"""How parents enter a mechanism: their z, in topological order, or the sum of their exogenous means (as in the
authors' code, which agrees with the paper on graphs of depth one only)."""


class Intervention(NamedTuple):
    """do(z_i := value_i) where ``is_set[i]``; a value fills the whole block."""

    is_set: Bool[Array, "*#b n"]
    value: Float[Array, "*#b n"]


@checked
def do(variables: Count, settings: Mapping[int, Any]) -> Intervention:
    """``do(2, {0: 1.5})``: of two variables the first set to 1.5, or to one value per example.

    Raises:
      ConfigError: where a variable is set that there is not.
    """
    require_indices("do: settings", list(settings), variables, "variables")
    values = [jnp.asarray(settings.get(i, 0.0), jnp.float32) for i in range(variables)]
    return Intervention(
        jnp.array([i in settings for i in range(variables)]), jnp.stack(jnp.broadcast_arrays(*values), axis=-1)
    )


def stacked(interventions: Iterable[Intervention], examples: int) -> Intervention:
    """Several interventions on the same examples, [m, examples, n]."""
    wide = [
        jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (examples, leaf.shape[-1])), each) for each in interventions
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *wide)


def settled(z: Float[Array, "b n k"], intervention: Intervention, variables: Iterable[int]) -> Float[Array, "b n k"]:
    """Z with the blocks of those of ``variables`` that are set overwritten."""
    is_set = jnp.broadcast_to(intervention.is_set, z.shape[:2])
    value = jnp.broadcast_to(intervention.value, z.shape[:2])
    for i in variables:
        z = z.at[:, i].set(jnp.where(is_set[:, i, None], value[:, i, None], z[:, i]))
    return z


def in_order(graph: Graph) -> Bool[np.ndarray, "n n"]:
    """The graph as a matrix.

    Raises:
      ConfigError: where it is not square and upper triangular, that is, variables are not in topological order.
    """
    parents = np.asarray(graph, bool)
    if parents.ndim != 2 or parents.shape[0] != parents.shape[1] or np.tril(parents).any():
        raise ConfigError(
            "the graph must be a square matrix with parents before children (upper triangular, no loops): reorder the "
            "variables topologically"
        )
    return parents


@checked
class CausalLayer(nn.Module):
    """f_i(x) = Linear, activation, Linear of every variable, applied along a known graph."""

    graph: Graph
    block: Count
    """k, the width of a variable's block."""
    hidden: Count = 64
    mode: Mode = "paper"
    act: Callable[[Array], Array] = nn.leaky_relu

    @nn.compact
    def __call__(self, u: Float[Array, "b n k"], intervention: Intervention | None = None) -> Float[Array, "b n k"]:
        """Z of exogenous u, under an intervention if one is given.

        Raises:
          ValueError: for a graph that is not in topological order.
        """
        parents = in_order(self.graph)
        n = len(parents)
        inputs = n * self.block if self.mode == "paper" else self.block
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=1, out_axis=2, batch_axis=(0,))
        weights = (
            self.param("inner_kernel", init, (n, inputs, self.hidden)),
            self.param("inner_bias", nn.initializers.zeros, (n, self.hidden)),
            self.param("outer_kernel", init, (n, self.hidden, self.block)),
            self.param("outer_bias", nn.initializers.zeros, (n, self.block)),
        )
        if self.mode == "code":
            return self._from_means(weights, parents, u, intervention)
        z = u
        for i in range(n):
            if parents[:, i].any():
                entry = (z * parents[:, i, None]).reshape(z.shape[0], 1, -1)
                own = jax.tree.map(lambda w, i=i: w[i : i + 1], weights)
                z = z.at[:, i].set(mechanisms(own, entry, self.act)[:, 0] + u[:, i])
            if intervention is not None:
                z = settled(z, intervention, (i,))
        return z

    def _from_means(self, weights, parents, u, intervention) -> Float[Array, "b n k"]:
        """The authors' z_i = f_i(sum_j A_ji u_j) + u_i; interventions overwrite u, as in their qualitative part."""
        if intervention is not None:
            u = settled(u, intervention, range(len(parents)))
        z = mechanisms(weights, jnp.einsum("ji,bjk->bik", jnp.asarray(parents, u.dtype), u), self.act) + u
        return z if intervention is None else settled(z, intervention, range(len(parents)))


def mechanisms(
    weights: tuple[Array, ...], x: Float[Array, "b n d"], act: Callable[[Array], Array] = nn.leaky_relu
) -> Float[Array, "b n k"]:
    """f_i(x_i) of every variable at once."""
    inner, inner_bias, outer, outer_bias = weights
    hidden = act(jnp.einsum("bnd,ndh->bnh", x, inner) + inner_bias)
    return jnp.einsum("bnh,nhk->bnk", hidden, outer) + outer_bias
