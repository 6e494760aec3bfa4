"""Models of the next item: SASRec in two forms, GRU4Rec and a BERT4Rec-style model.

Each is a module ``(items, segments) -> states [..., length, d]``: the state at a place is the query for what follows
it, and an item's score is its dot product with the item's embedding. ``query`` gives the state after whole
left-padded histories, ``table`` the embeddings. Parameters are float32; ``dtype`` is the type of the computation, whose
scores are at least float32. ``epsilon`` is added to the variance in every layer normalisation; it is that of the
implementation which a model follows.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from core.checks import Count, Fraction, Natural, Positive, checked
from core.errors import ConfigError
from rec.sequential.histories import PAD, Items, Segments, default_segments, places, previous, visible

SMALL = nn.initializers.normal(0.01)
States = Float[Array, "*batch length d"]


@checked
class Sequential(nn.Module):
    """What the models share: a catalogue with embeddings E [I, d]."""

    num_items: Count
    dim: Count = 64
    dropout: Fraction = 0.0
    dtype: Any = jnp.float32
    length: Count = 20
    """Longest history."""

    def setup(self):
        """E ~ N(0, 0.01^2)."""
        self.items = self.param("items", SMALL, (self.num_items, self.dim), jnp.float32)

    def table(self) -> Float[Array, "items d"]:
        """E."""
        return self.items.astype(self.dtype)

    def embed(self, items: Items) -> States:
        """E[x], and 0 at empty places."""
        return _only(items != PAD, self.table()[jnp.maximum(items, 0)])

    def query(self, histories: Items) -> Float[Array, "*batch d"]:
        """The state after left-padded histories."""
        return self(histories)[..., -1, :]


def normalisation(module: Any, name: str) -> nn.LayerNorm:
    """A layer normalisation of a model, within its ``__call__``."""
    return nn.LayerNorm(module.epsilon, module.dtype, name=name)


def product(pattern: str, *arrays: Any) -> Array:
    """An einsum whose sums are at least float32."""
    kind = jnp.promote_types(jnp.float32, jnp.result_type(*arrays))
    return jnp.einsum(pattern, *arrays, preferred_element_type=kind)


@checked
class Attention(nn.Module):
    """softmax(q k^T / sqrt(d_h)) v with biases in q, k, v; 0 where nothing is visible.

    With positions P [n, d] given, keys and values of place j as seen from place i are those of x_j + P[i - j]: the
    position is counted back from the place that looks, so that one pass serves all prefixes of a history.
    """

    dim: Count
    heads: Count = 1
    dtype: Any = jnp.float32

    def setup(self):
        """Three square kernels, their biases apart because positions enter without."""
        if self.dim % self.heads:
            raise ConfigError(f"Attention: {self.dim} dimensions do not divide into {self.heads} heads")
        dense = partial(nn.Dense, self.dim, use_bias=False, dtype=self.dtype, kernel_init=SMALL)
        self.q, self.k, self.v = dense(), dense(), dense()
        self.biases = self.param("biases", SMALL, (3, self.dim), jnp.float32)

    def __call__(
        self,
        queries: States,
        x: States,
        mask: Bool[Array, "*batch length length"],
        positions: Float[Array, "n d"] | None = None,
    ) -> States:
        """What each place gathers from those that it may look at."""
        kernels, inputs, biases = (self.q, self.k, self.v), (queries, x, x), self.biases.astype(self.dtype)
        q, k, v = (self._heads(dense(y) + b) for dense, y, b in zip(kernels, inputs, biases, strict=True))
        scores = product("...ihd,...jhd->...hij", q, k)
        if positions is not None:
            near = _distances(x.shape[-2], positions.shape[0])
            by_distance = product("...ihd,thd->...hit", q, self._heads(self.k(positions)))
            scores += product("...hit,ijt->...hij", by_distance, near)
        weights = masked_softmax(scores / jnp.sqrt(self.dim / self.heads), mask[..., None, :, :]).astype(self.dtype)
        mixed = product("...hij,...jhd->...ihd", weights, v)
        if positions is not None:
            by_distance = product("...hij,ijt->...hit", weights, near)
            mixed += product("...hit,thd->...ihd", by_distance.astype(self.dtype), self._heads(self.v(positions)))
        return mixed.reshape(*mixed.shape[:-2], self.dim).astype(self.dtype)

    def _heads(self, x):
        return x.reshape(*x.shape[:-1], self.heads, -1)


def _distances(length: int, count: int) -> Float[Array, "i j t"]:
    """1 where place j lies t before place i: a product with it is a gather whose gradient needs no scatter."""
    index = jnp.arange(length)
    return jax.nn.one_hot(index[:, None] - index, count)


def masked_softmax(scores: Float[Array, "*n m"], mask: Bool[Array, "*n m"]) -> Float[Array, "*n m"]:
    """Softmax over what the mask admits; zeros where it admits nothing."""
    best = jnp.max(scores, axis=-1, keepdims=True, where=mask, initial=-1e30)
    weights = jnp.where(mask, jnp.exp(jnp.where(mask, scores - jax.lax.stop_gradient(best), 0.0)), 0.0)
    return weights / jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), 1e-30)


@checked
class SASRec(Sequential):
    """SASRec in the form of ReChorus, the subject of RecSAE: post-norm, positions counted from the most recent item.

    h_j = E[x_j] + P[1 + (n - j)] for a history of n items; per block a = LN(h + att(h)), h = LN(a + ff(a)); the user is
    the state of the last item. With one block (the paper's) the state at each place is exactly the one that the history
    cut there would give. Deeper blocks attend to the states of prefixes, and without positions.

    Kang and McAuley, Self-Attentive Sequential Recommendation, ICDM 2018; Wang et al., ReChorus2.0, RecSys 2024.
    """

    blocks: Natural = 1
    heads: Count = 1
    epsilon: Positive = 1e-5
    """PyTorch's own, which ReChorus leaves as it is."""

    @nn.compact
    def __call__(self, items: Items, segments: Segments | None = None, *, train: bool = False) -> States:
        """The states at all places."""
        segments = default_segments(items) if segments is None else segments
        mask, drop = visible(segments, causal=True), nn.Dropout(self.dropout, deterministic=not train)
        positions = self.param("positions", SMALL, (self.length, self.dim), jnp.float32).astype(self.dtype)
        x, own = self.embed(items), positions[0]
        for block in range(self.blocks):
            attention = Attention(self.dim, self.heads, self.dtype, name=f"attention_{block}")
            h = x + own if block == 0 else x
            gathered = attention(h, x, mask, positions if block == 0 else None)
            a = normalisation(self, f"attended_{block}")(h + drop(gathered))
            update = FeedForward(self.dim, dtype=self.dtype, name=f"feed_forward_{block}")(a)
            x = normalisation(self, f"state_{block}")(a + drop(update))
        return _only(segments > 0, x)


@checked
class SASRecPreNorm(Sequential):
    """SASRec in its original form: normed queries, positions counted from the first item, a last normalisation.

    h = sqrt(d) E[x] + P[position]; per block h = q + W att(q, h), q = LN(h), then with a = LN(h): h = a + ff(a).
    Kang and McAuley, Self-Attentive Sequential Recommendation, ICDM 2018.
    """

    blocks: Natural = 2
    heads: Count = 1
    epsilon: Positive = 1e-8
    """As in the authors' code."""

    @nn.compact
    def __call__(self, items: Items, segments: Segments | None = None, *, train: bool = False) -> States:
        """The states at all places."""
        segments = default_segments(items) if segments is None else segments
        mask, drop = visible(segments, causal=True), nn.Dropout(self.dropout, deterministic=not train)
        positions = self.param("positions", SMALL, (self.length, self.dim), jnp.float32).astype(self.dtype)
        h = drop(self.dim**0.5 * self.embed(items) + positions[places(segments)])
        for block in range(self.blocks):
            q = normalisation(self, f"query_{block}")(h)
            gathered = Attention(self.dim, self.heads, self.dtype, name=f"attention_{block}")(q, h, mask)
            h = q + nn.Dense(self.dim, dtype=self.dtype, name=f"output_{block}")(gathered)
            a = normalisation(self, f"attended_{block}")(h)
            h = a + drop(FeedForward(self.dim, dtype=self.dtype, name=f"feed_forward_{block}")(a))
        return _only(segments > 0, normalisation(self, "state")(h))


@checked
class FeedForward(nn.Module):
    """W_2 f(W_1 x), d -> width -> d."""

    dim: Count
    width: Count | None = None
    activation: Any = nn.relu
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: States) -> States:
        """The update of each place, by itself."""
        hidden = self.activation(nn.Dense(self.width or self.dim, dtype=self.dtype, kernel_init=SMALL)(x))
        return nn.Dense(self.dim, dtype=self.dtype, kernel_init=SMALL)(hidden)


@checked
class GRU4Rec(Sequential):
    """GRU4Rec: h_t = GRU(E[x_t], h_{t-1}), state = W h_t.

    Hidasi et al., Session-based Recommendations with Recurrent Neural Networks, ICLR 2016.
    """

    hidden: Count = 64

    @nn.compact
    def __call__(self, items: Items, segments: Segments | None = None, *, train: bool = False) -> States:
        """The states at all places; each history starts from h = 0."""
        segments = default_segments(items) if segments is None else segments
        x = nn.Dropout(self.dropout, deterministic=not train)(self.embed(items))
        goes_on = ((segments == previous(segments)) & (segments > 0))[..., None].astype(self.dtype)
        recurrence = nn.scan(_step, variable_broadcast="params", split_rngs={"params": False}, in_axes=-2, out_axes=-2)
        cell = nn.GRUCell(self.hidden, dtype=self.dtype, name="cell")
        start = jnp.zeros((*items.shape[:-1], self.hidden), self.dtype)
        _, h = recurrence(cell, start, (x, goes_on))
        return _only(segments > 0, nn.Dense(self.dim, dtype=self.dtype, name="state")(h))


def _step(cell: nn.GRUCell, carry, inputs):
    x, goes_on = inputs
    return cell(carry * goes_on, x)


@checked
class Bert4Rec(Sequential):
    """A BERT4Rec-style model: attention in both directions, hidden items predicted from what surrounds them.

    h = E[x] + P[position], a learned vector in the place of E[x] where the item is hidden; post-norm blocks with GELU.
    The query is the state of a hidden item put after the history.
    Sun et al., BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations, CIKM 2019.
    """

    blocks: Natural = 2
    heads: Count = 2
    epsilon: Positive = 1e-12
    """That of TensorFlow's ``layer_norm``, by which the authors' code normalises."""

    @nn.compact
    def __call__(
        self,
        items: Items,
        segments: Segments | None = None,
        hidden: Bool[Array, "*batch length"] | None = None,
        *,
        train: bool = False,
    ) -> States:
        """The states at all places, the items at hidden places unknown."""
        segments = default_segments(items) if segments is None else segments
        mask, drop = visible(segments, causal=False), nn.Dropout(self.dropout, deterministic=not train)
        unknown = self.param("unknown", SMALL, (self.dim,), jnp.float32).astype(self.dtype)
        positions = self.param("positions", SMALL, (self.length, self.dim), jnp.float32).astype(self.dtype)
        x = self.embed(items)
        x = x if hidden is None else jnp.where(hidden[..., None], unknown, x)
        h = drop(normalisation(self, "embedded")(x + positions[places(segments)]))
        for block in range(self.blocks):
            gathered = Attention(self.dim, self.heads, self.dtype, name=f"attention_{block}")(h, h, mask)
            gathered = nn.Dense(self.dim, dtype=self.dtype, name=f"output_{block}")(gathered)
            a = normalisation(self, f"attended_{block}")(h + drop(gathered))
            feed_forward = FeedForward(self.dim, 4 * self.dim, nn.gelu, self.dtype, name=f"feed_forward_{block}")
            h = normalisation(self, f"state_{block}")(a + drop(feed_forward(a)))
        return _only(segments > 0, nn.Dense(self.dim, dtype=self.dtype, name="readout")(h))

    def query(self, histories: Items) -> Float[Array, "*batch d"]:
        """The state of a hidden item after the history, whose oldest place it takes."""
        last = jnp.zeros_like(histories[..., :1])
        items = jnp.concatenate([histories[..., 1:], last], axis=-1)
        hidden = jnp.zeros(items.shape, bool).at[..., -1].set(True)
        return self(items, None, hidden)[..., -1, :]


def _only(there: Bool[Array, "*n"], x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """x, and 0 elsewhere."""
    return jnp.where(there[..., None], x, jnp.zeros((), x.dtype))


@checked
def item_scores(module: Sequential, params: Any, histories: Int[Array, "b length"]) -> Float[Array, "b items"]:
    """<query, E_i> for all items."""
    query: Any = module.apply(params, histories, method=module.query)
    table: Any = module.apply(params, method=module.table)
    return product("bd,id->bi", query, table)


@checked
def states_at_places(
    module: Sequential, params: Any, items: Int[Array, "rows length"], segments: Int[Array, "rows length"]
) -> tuple[Float[np.ndarray, "places d"], Int[np.ndarray, " places"]]:
    """The states at all places of packed rows but the padding, and the item at each place."""
    states, there = _by_blocks(jax.jit(module.apply), params, items, segments), np.asarray(items)
    return states[there != PAD], there[there != PAD]


@checked
def queries_after(module: Sequential, params: Any, histories: Items) -> Float[np.ndarray, "users d"]:
    """The states after histories, with which next items are ranked."""
    return _by_blocks(jax.jit(partial(module.apply, method=module.query)), params, histories)


def _by_blocks(apply: Callable, params: Any, *inputs: Array, block: int = 512) -> np.ndarray:
    """``apply(params, *inputs)`` in equal blocks, the last one padded."""
    parts = []
    for start in range(0, inputs[0].shape[0], block):
        part = [np.asarray(leaf[start : start + block]) for leaf in inputs]
        padded = [np.pad(leaf, ((0, block - len(leaf)), (0, 0)), mode="edge") for leaf in part]
        parts.append(np.asarray(apply(params, *padded))[: len(part[0])])
    return np.concatenate(parts)
