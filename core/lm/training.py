"""From texts of one's own to a trained decoder, and what it would write."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, Integer, Key, PyTree

from core.checks import Count, Natural, Positive, checked
from core.errors import ConfigError
from core.learner import GradientLearner, gradient_learner, keys_at
from core.lm.decoder import Decoder, require_places, require_tokens, token_losses
from core.lm.tokenizers import Tokenizer


@checked
def packed(
    texts: Sequence[str], tokenizer: Tokenizer, length: Count, end: Natural | None = None
) -> Int[np.ndarray, "rows length_and_1"]:
    """All texts as one sequence, cut into rows: every token but the first is the target of one place in one row.

    Args:
      texts: documents, in this order.
      tokenizer: text to ids.
      length: places in a row; it holds one token more, the target of the last, which is the first of the next row.
      end: an id put after every document, such as ``ByteTokenizer.eos``.

    Returns:
      Ids; what is left behind the last whole row is dropped.

    Raises:
      ConfigError: where a text is none, or all of them do not fill a row.
    """
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise ConfigError(f"packed: texts[{place}] is {text!r:.40}, not a text; leave empty entries out")
    closing = [] if end is None else [end]
    ids = np.array([i for text in texts for i in (*tokenizer.encode(text), *closing)], np.int32)
    rows = (len(ids) - 1) // length
    if rows < 1:
        raise ConfigError(
            f"packed: {len(ids)} tokens in all, fewer than a row of {length} + 1; give more, or lower length"
        )
    return ids[np.arange(rows)[:, None] * length + np.arange(length + 1)]


@checked
def decoder_learner(model: Decoder, tx: optax.GradientTransformation) -> GradientLearner:
    """Descends the mean of -log p of every next token; batches are rows of ids [b, s + 1], see :func:`packed`.

    Raises:
      ConfigError: from ``init`` for ids that are not in the vocabulary, or more places than the model has.
    """

    def init_params(key, rows: Int[Array, "b s_and_1"]) -> PyTree:
        return model.init(key, rows[:1, :-1])["params"]

    def loss(params, key, rows: Int[Array, "b s_and_1"]):
        del key
        return token_losses(model, params, rows[:, :-1], rows[:, 1:]).mean(), {}

    learner = gradient_learner(init_params, loss, tx, batch_axes=0)

    def init(key, rows):
        if not jnp.issubdtype(rows.dtype, jnp.integer) or rows.ndim != 2 or rows.shape[1] < 2:
            raise ConfigError(
                f"rows must be ids [rows, places + 1], not {rows.dtype}{list(rows.shape)}; see core.lm.packed"
            )
        require_tokens(model.config, rows)
        return learner.init(key, rows)

    return learner._replace(init=init)


@checked
def continuations(
    model: Decoder,
    params: PyTree,
    starts: Integer[Array, "n s"],
    count: Count,
    key: Key[Array, ""],
    temperature: Positive = 1.0,
) -> Int[Array, "n count"]:
    """Tokens that the model draws after each start, one after another, each with all before it in view.

    Nothing is kept between tokens, so that the cost grows with the square of the length: for small models.

    Args:
      model: the decoder.
      params: its parameters.
      starts: ids, of the same number in each row, at least one.
      count: tokens to draw for each.
      key: of the draws; row i draws the same whatever rows there are beside it.
      temperature: logits are divided by it; near 0 the likeliest token is drawn.

    Raises:
      ConfigError: where there is no token to start from, one is not in the vocabulary, or the model has fewer places.
    """
    rows, first = starts.shape
    if not first or not rows:
        raise ConfigError(f"continuations: starts have shape {list(starts.shape)}; begin with one token or more")
    require_tokens(model.config, starts)
    if model.config.positions == "learned":
        require_places(model.config, first + count)
    keys = keys_at(key, jnp.arange(rows))
    return _drawn(model, count, params, jnp.asarray(starts, jnp.int32), keys, temperature)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _drawn(model: Decoder, count: int, params, starts, keys, temperature):
    first = starts.shape[1]

    def draw(tokens, i):
        logits: Any = model.apply({"params": params}, tokens)
        logits = logits[:, first + i - 1] / temperature  # places after it are not seen
        drawn = jax.vmap(jax.random.categorical)(keys_of(i), logits).astype(jnp.int32)
        return tokens.at[:, first + i].set(drawn), drawn

    def keys_of(i):
        return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, i)

    room = jnp.zeros((starts.shape[0], count), jnp.int32)
    return jax.lax.scan(draw, jnp.concatenate([starts, room], axis=1), jnp.arange(count))[1].T
