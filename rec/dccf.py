r"""DCCF: disentangled contrastive collaborative filtering.

Ren, Xia, Zhao, Yin, Huang, Disentangled Contrastive Collaborative Filtering, SIGIR 2023, arXiv 2305.02759.

Parameters are the embeddings X_0 = E of all nodes and K prototypes per side, C_u and C_i [d, K]. Layer l maps X to::

    Z       = Abar X                                     the plain graph (local view)
    R       = P C^T,  P = softmax(X C)                   the expected prototype (global view), users and items apart
    H_beta  = A(Z) X                                     the graph re-weighted by the local view
    H_gamma = A(R) X                                     the graph re-weighted by the global view
    X_{l+1} = Z + R + H_beta + H_gamma + X

where A(Q) weighs an edge by alpha_ui = (cos(q_u, q_i) + 1) / 2 and each node's edges to sum 1, in both directions. The
readout is X_0 + ... + X_L. Training adds to the ranking loss the contrast of Z with each of the other three views.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from core.checks import Count, Natural, NonNegative, Positive, checked
from core.errors import ConfigError
from core.learner import DATA_AXIS, Learner, Params, axis_is_bound
from core.sparse import Graph, sddmm, spmm
from rec.bpr import bpr, bpr_learner, embedding_table, embeddings, squared_rows
from rec.contrastive import first_occurrence, nce, unit_rows
from rec.graph import Nodes, RecGraph, propagate
from rec.sampling import Batch, Triples

View = Literal["r", "h_beta", "h_gamma"]
Prototypes = tuple[Float[Array, "d K"], Float[Array, "d K"]]
"""Those of users and of items."""
XAVIER_NORMAL = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")


class Variant(NamedTuple):
    """An ablation: the views that a layer adds up, and those of them that are contrasted with Z."""

    views: tuple[View, ...] = ("r", "h_beta", "h_gamma")
    contrasted: tuple[View, ...] = ("r", "h_beta", "h_gamma")


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "DCCF": Variant(),
        "DCCF -Disen": Variant(views=("h_beta",), contrasted=("h_beta",)),
        "DCCF -LocalR": Variant(views=("r", "h_gamma"), contrasted=("r", "h_gamma")),
        "DCCF -DisenR": Variant(views=("r", "h_beta"), contrasted=("r", "h_beta")),
        "DCCF -DisenG": Variant(contrasted=("h_beta",)),
        "DCCF -AllAda": Variant(contrasted=("r",)),
        "DCCF -SSL": Variant(contrasted=()),
    }
)
"""The paper's ablations by name, and the model without contrast. A view that is not added up has no contrast."""


class Layer(NamedTuple):
    """The views of one layer; None for those that the variant leaves out."""

    z: Nodes
    p: Nodes | None
    """Intent assignments P: users [U, K], items [I, K]."""
    r: Nodes | None
    h_beta: Nodes | None
    h_gamma: Nodes | None


@checked
class DCCF(nn.Module):
    """The encoder."""

    dim: Count = 32
    layers: Natural = 2
    intents: Count = 128
    views: tuple[View, ...] = Variant().views

    @nn.compact
    def encode(self, graph: RecGraph) -> tuple[Nodes, tuple[Layer, ...]]:
        """The readout and the views of every layer."""
        x = embedding_table(self, graph, self.dim, XAVIER_NORMAL)
        c = self._prototypes() if {"r", "h_gamma"} & set(self.views) else None
        readout, layers = x, ()
        for _ in range(self.layers):
            layer = views_of(graph, x, c, self.views)
            x = _add(x, layer.z, *(getattr(layer, view) for view in self.views))
            readout, layers = _add(readout, x), (*layers, layer)
        return readout, layers

    def __call__(self, graph: RecGraph) -> Nodes:
        """X_out, with scores <x_u, x_i>."""
        return self.encode(graph)[0]

    def _prototypes(self) -> Prototypes:
        shape = (self.dim, self.intents)
        return (
            self.param("user_prototypes", XAVIER_NORMAL, shape, jnp.float32),
            self.param("item_prototypes", XAVIER_NORMAL, shape, jnp.float32),
        )


@checked
def weights_and_intents(
    model: DCCF, params: Params, graph: RecGraph
) -> tuple[Float[Array, " edges"], Float[Array, "users K"] | None]:
    """What a trained model sees, averaged over layers: the local view's weights alpha of all edges, and the shares of
    intents P of all users; None for the latter where the variant has no intents.
    """
    encoded: Any = model.apply(params, graph, method=DCCF.encode)
    layers: tuple[Layer, ...] = encoded[1]
    weights = [alphas(graph.user_item, layer.z) for layer in layers]
    shares = [layer.p[0] for layer in layers if layer.p is not None]
    return jnp.mean(jnp.stack(weights), axis=0), jnp.mean(jnp.stack(shares), axis=0) if shares else None


@checked
def views_of(graph: RecGraph, x: Nodes, c: Prototypes | None, views: tuple[View, ...]) -> Layer:
    """The views of a layer with input X and prototypes C."""
    z = propagate(graph, *x)
    p = r = None
    if c is not None:
        p = assign(x[0], c[0]), assign(x[1], c[1])
        r = p[0] @ c[0].T, p[1] @ c[1].T
    h_beta = adaptive(graph.user_item, z, x) if "h_beta" in views else None
    h_gamma = adaptive(graph.user_item, r, x) if r is not None and "h_gamma" in views else None
    return Layer(z, p, r, h_beta, h_gamma)


@checked
def assign(x: Float[Array, "n d"], c: Float[Array, "d K"]) -> Float[Array, "n K"]:
    """P = softmax(X C), the share of each intent in every node."""
    return nn.softmax(x @ c)


@checked
def adaptive(pattern: Graph, q: tuple[Float[Array, "users e"], Float[Array, "items e"]], x: Nodes) -> Nodes:
    """H = A(Q) X: means of the neighbours' rows of X, weighted by how alike the ends of an edge are in the view Q."""
    users, items = both_ways(pattern, alphas(pattern, q), (with_one(x[0]), with_one(x[1])))
    return over_last(users), over_last(items)


def with_one(x: Float[Array, "n d"]) -> Float[Array, "n d_and_1"]:
    """Each row with a 1 behind it: in a weighted sum of rows, the sum of the weights."""
    return jnp.pad(x, ((0, 0), (0, 1)), constant_values=1)


def over_last(sums: Float[Array, "n d_and_1"]) -> Float[Array, "n d"]:
    """Each row divided by its last entry, which is left out; 0 where that is 0."""
    total = sums[:, -1:]
    return jnp.where(total > 0, sums[:, :-1] / jnp.where(total > 0, total, 1), 0)


def alphas(pattern: Graph, q: Nodes) -> Float[Array, " edges"]:
    """alpha_ui = (cos(q_u, q_i) + 1) / 2, from 0 to 1."""
    users, items = q
    return (sddmm(pattern, unit_rows(users), unit_rows(items)) + 1) / 2


@checked
def both_ways(pattern: Graph, weights: Float[Array, " edges"], x: Nodes) -> Nodes:
    """(A x_items, A^T x_users) for the matrix A with these entries, of which no transposed copy is made."""
    product, transpose = jax.vjp(lambda items: spmm(pattern, items, weights), x[1])
    return product, transpose(x[0])[0]


@checked
def contrast(
    layers: tuple[Layer, ...], contrasted: tuple[View, ...], triples: Triples, tau: Positive, **options
) -> Float[Array, ""]:
    """L_ssl: the sum of NCE(Z, V) over layers, contrasted views V and sides, the batch's users and positive items."""
    pairs = []
    for side, ids in enumerate((triples.users, triples.positives)):
        mask = first_occurrence(ids)
        for layer in layers:
            anchors = layer.z[side][ids]
            pairs += [(anchors, getattr(layer, view)[side][ids], mask) for view in contrasted]
    if not pairs:
        return jnp.zeros(())
    anchors, others, masks = (jnp.stack(parts) for parts in zip(*pairs, strict=True))
    return jnp.sum(jax.lax.map(lambda pair: nce(pair[0], pair[1], pair[2], tau, **options), (anchors, others, masks)))


@checked
def dccf_loss(
    model: DCCF,
    contrasted: tuple[View, ...] = Variant().contrasted,
    *,
    ssl: NonNegative = 0.1,
    embedding_reg: NonNegative = 2.5e-5,
    prototype_reg: NonNegative = 5e-3,
    tau: Positive = 1.0,
    **options,
):
    """L = L_bpr + lambda_2 L_emb + lambda_3 L_cen + lambda_1 L_ssl.

    L_bpr is a mean over the batch but L_emb = sum |E_u|^2 + |E_i+|^2 + |E_i-|^2 is a sum, so that its strength grows
    with the batch: to keep it, keep ``embedding_reg`` times the batch size (published: 2.5e-5 times 10,240).

    Args:
      model: the encoder.
      contrasted: the views that are contrasted with Z.
      ssl: lambda_1.
      embedding_reg: lambda_2.
      prototype_reg: lambda_3.
      tau: temperature of the contrast.
      **options: of :func:`rec.contrastive.nce`.

    Raises:
      ConfigError: where a view is contrasted that the model does not add up.
    """
    if missing := set(contrasted) - set(model.views):
        raise ConfigError(f"dccf_loss: contrasted has {', '.join(sorted(missing))}, which the model does not add up")

    def loss(params: Params, key, batch: Batch):
        encoded: Any = model.apply(params, batch.graph, method=DCCF.encode)
        readout, layers = encoded
        terms = {
            "bpr": bpr(readout, batch.triples),
            "emb": embedding_reg * _replicas() * squared_rows(embeddings(params), batch.triples),
            "cen": prototype_reg * squared_prototypes(params),
            "ssl": ssl * contrast(layers, contrasted, batch.triples, tau, **options),
        }
        return sum(terms.values(), jnp.zeros(())), terms

    return loss


def squared_prototypes(params: Params) -> Float[Array, ""]:
    """L_cen = |C_u|^2 + |C_i|^2."""
    prototypes = (leaf for name, leaf in params["params"].items() if name.endswith("prototypes"))
    return sum((jnp.sum(jnp.square(leaf)) for leaf in prototypes), jnp.zeros(()))


@checked
def dccf_learner(
    *,
    dim: Count = 32,
    layers: Natural = 2,
    intents: Count = 128,
    batch_size: Count = 10240,
    learning_rate: Positive = 1e-3,
    variant: Variant = VARIANTS["DCCF"],
    **loss_options,
) -> Learner:
    """DCCF as its authors train it; ``loss_options`` are those of :func:`dccf_loss`."""
    model = DCCF(dim, layers, intents, variant.views)
    loss = dccf_loss(model, variant.contrasted, **loss_options)
    return bpr_learner(model, loss, batch_size=batch_size, tx=optax.adam(learning_rate))


def _replicas() -> int:
    """How many shares of the batch there are; a sum over the batch is the mean over replicas of this times theirs."""
    return jax.lax.axis_size(DATA_AXIS) if axis_is_bound() else 1


def _add(*terms: Nodes) -> Nodes:
    return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *terms)
