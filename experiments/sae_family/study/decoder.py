"""Dictionaries of a small decoder's residual stream."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.batches import epoch_sampler
from core.datasets import shakespeare
from core.fit import fit
from core.learner import Stream, gradient_learner, stream, with_sampler
from core.lm import Decoder, DecoderConfig, logits_from, residual, token_losses
from experiments.lab.system import Context
from experiments.sae_family.config import Config
from experiments.sae_family.study.training import measured, note, train
from interp import sae


def language_model(config: Config, context: Context, seeds: list[int]) -> None:
    """Dictionaries of a decoder's residual stream over m and k, and the model's loss with one spliced in."""
    text = np.asarray(shakespeare.load(context.data_dir), np.int32)
    model, params = small_decoder(config, context, text)
    layer = model.config.layers // 2
    sequences = text[: config.lm_sequences * 64].reshape(-1, 64)
    streams = jax.jit(lambda params, tokens: residual(model, params, tokens, layer))(params, sequences)
    x = streams[:, 1:].reshape(-1, config.lm_width)  # the first position is an outlier in most decoders
    held_out = text[-256 * 65 :].reshape(-1, 65)

    def make(row):
        return sae.topk(row["knob"], max(config.real_ks))

    rows = {"knob": np.array(config.real_ks, np.int32)}
    splice = jax.jit(jax.vmap(jax.vmap(
        lambda row, one: spliced_loss(model, params, held_out, layer, lambda h: sae.reconstruct(make(row), one, h))
    ), in_axes=(None, 0)))  # fmt: skip
    clean, zeroed = (
        float(spliced_loss(model, params, held_out, layer, replace)) for replace in (lambda h: h, jnp.zeros_like)
    )
    for m in config.real_latents:
        trained = train(
            make, rows, x, epoch_sampler(config.sweep_batch), latents=m, steps=config.real_steps,
            rate=config.learning_rate / 3, seeds=seeds, context=context, name=f"real {m}",
        )  # fmt: skip
        quality = measured(make, rows, trained, x[:: max(1, len(x) // config.examples)])
        losses = np.asarray(splice(rows, trained))
        for i, seed in enumerate(seeds):
            for j, k in enumerate(config.real_ks):
                place = {"dataset": "decoder", "method": "TopK", "part": "real", "m": m, "k": k}
                note(context, quality, None, seed=seed, at=(i, j), **place)
                recovered = sae.loss_recovered(clean, losses[i, j], zeroed)
                context.record(metric="loss recovered", seed=seed, value=float(recovered), **place)


def small_decoder(config: Config, context: Context, text: np.ndarray) -> tuple[Decoder, Any]:
    """A decoder of characters, trained briefly."""
    model = Decoder(DecoderConfig(256, config.lm_width, layers=2, heads=4, max_length=64))

    def sample(text, key, step):
        starts = jax.random.randint(stream(key, Stream.EXAMPLES, step), (16,), 0, len(text) - 64)
        return text[starts[:, None] + jnp.arange(65)]

    def loss(params, key, tokens):
        return token_losses(model, params, tokens[:, :-1], tokens[:, 1:]).mean(), {}

    learner = gradient_learner(
        lambda key, b: model.init(key, b[:, :-1])["params"], loss, optax.adam(3e-3), batch_axes=0
    )
    done = fit(
        with_sampler(learner, sample), jnp.asarray(text), key=jax.random.key(0), steps=config.lm_steps,
        workdir=context.workdir / "decoder", progress=context.progress("decoder"),
    )  # fmt: skip
    return model, done.state.params


def spliced_loss(model: Decoder, params: Any, tokens: Any, layer: int, replace: Callable[[jax.Array], jax.Array]):
    """Mean loss of the next character where the residual stream is replaced, at all positions but the first."""
    h = residual(model, params, tokens[:, :-1], layer)
    new = replace(h[:, 1:].reshape(-1, h.shape[-1])).reshape(h[:, 1:].shape)
    logits = logits_from(model, params, jnp.concatenate([h[:, :1], new], axis=1), layer)
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()
