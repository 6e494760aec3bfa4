"""The residual stream of a decoder: read between two layers, and the rest of the model from there on."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from core.checks import Natural, checked
from core.errors import ConfigError
from core.lm.decoder import Decoder, Layer, layer_angles, visible


@checked
def residual(
    model: Decoder, params: PyTree, tokens: Int[Array, "*batch s"], layer: Natural
) -> Float[Array, "*batch s width"]:
    """The residual stream after ``layer`` layers (0: the embeddings), of sequences without padding."""
    _require_layer(model, layer)
    if model.config.positions == "learned" and tokens.shape[-1] > model.config.max_length:
        raise ConfigError(
            f"{tokens.shape[-1]} tokens, but the model has {model.config.max_length} positions (max_length)"
        )
    h = model.bind({"params": params}).embed(tokens)
    if model.config.positions == "learned":
        h = h + params["positions"]["embedding"][: tokens.shape[-1]].astype(h.dtype)
    return _through(model, params, h, 0, layer)


@checked
def logits_from(
    model: Decoder, params: PyTree, h: Float[Array, "*batch s width"], layer: Natural
) -> Float[Array, "*batch s vocab"]:
    """Logits where the residual stream after ``layer`` layers is ``h``: what splicing something in does to a model."""
    _require_layer(model, layer)
    bound = model.bind({"params": params})
    return bound.logits(bound.norm(_through(model, params, h, layer, model.config.layers)))


def _require_layer(model: Decoder, layer: int) -> None:
    if layer > model.config.layers:
        raise ConfigError(f"layer is {layer}; the model has {model.config.layers}")


def _through(model: Decoder, params: PyTree, h: Array, first: int, last: int) -> Array:
    c, lead = model.config, h.shape[:-1]
    positions = jnp.broadcast_to(jnp.arange(lead[-1]), lead)
    seen: Bool[Array, "*batch s s"] = visible(jnp.ones(lead, bool), c.window)
    angles, module = layer_angles(c, positions), Layer(c)

    def one(h, weights):
        return module.apply({"params": weights}, h, seen, angles)[0], None

    return jax.lax.scan(one, h, jax.tree.map(lambda leaf: leaf[first:last], params["layers"]))[0]
