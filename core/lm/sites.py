"""The residual stream of a decoder: read between two layers, and the rest of the model from there on."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from core.checks import Natural, checked
from core.errors import ConfigError
from core.lm.decoder import Decoder, Layer, layer_angles, require_places, require_tokens, visible


@checked
def residual(
    model: Decoder, params: PyTree, tokens: Int[Array, "*batch s"], layer: Natural
) -> Float[Array, "*batch s width"]:
    """The residual stream after ``layer`` layers (0: the embeddings), of sequences without padding.

    Raises:
      ConfigError: where the model has fewer layers or positions, or a token is not in its vocabulary.
    """
    _require_layer(model, layer)
    require_tokens(model.config, tokens)
    if model.config.positions == "learned":
        require_places(model.config, tokens.shape[-1])
    h = model.bind({"params": params}).embed(tokens)
    if model.config.positions == "learned":
        h = h + params["positions"]["embedding"][: tokens.shape[-1]].astype(h.dtype)
    return _through(model, params, h, 0, layer)


@checked
def logits_from(
    model: Decoder, params: PyTree, h: Float[Array, "*batch s width"], layer: Natural
) -> Float[Array, "*batch s vocab"]:
    """Logits where the residual stream after ``layer`` layers is ``h``: what splicing something in does to a model.

    Raises:
      ConfigError: where the model has fewer layers, or streams of another width.
    """
    _require_layer(model, layer)
    if h.shape[-1] != model.config.width:
        raise ConfigError(f"logits_from: h has shape {h.shape}, but the model's width is {model.config.width}")
    bound = model.bind({"params": params})
    return bound.logits(bound.norm(_through(model, params, h, layer, model.config.layers)))


@checked
def spliced_loss(
    model: Decoder, params: PyTree, tokens: Int[Array, "b s"], layer: Natural,
    replace: Callable[[Float[Array, "n width"]], Float[Array, "n width"]],
) -> Float[Array, ""]:  # fmt: skip
    """Mean loss of the next token where the residual stream is replaced at all positions but the first.

    Args:
      model: the decoder.
      params: its parameters.
      tokens: sequences; the last token of each is predicted only.
      layer: after how many layers the stream is replaced.
      replace: from streams to what is spliced in.
    """
    h = residual(model, params, tokens[:, :-1], layer)
    new = replace(h[:, 1:].reshape(-1, h.shape[-1])).reshape(h[:, 1:].shape)
    logits = logits_from(model, params, jnp.concatenate([h[:, :1], new], axis=1), layer)
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


def _require_layer(model: Decoder, layer: int) -> None:
    if layer > model.config.layers:
        raise ConfigError(f"layer is {layer}, but the model has {model.config.layers} layers: 0 to that many")


def _through(model: Decoder, params: PyTree, h: Array, first: int, last: int) -> Array:
    c, lead = model.config, h.shape[:-1]
    positions = jnp.broadcast_to(jnp.arange(lead[-1]), lead)
    seen: Bool[Array, "*batch s s"] = visible(jnp.ones(lead, bool), c.window)
    angles, module = layer_angles(c, positions), Layer(c)

    def one(h, weights):
        return module.apply({"params": weights}, h, seen, angles)[0], None

    return jax.lax.scan(one, h, jax.tree.map(lambda leaf: leaf[first:last], params["layers"]))[0]
