"""Real digits: MorphoMNIST with thickness and intensity, a small U-Net, attributes measured in the images."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from causal import causal_diffae as cd
from causal import counterfactual_metrics as cm
from causal import counterfactual_worlds as cw
from causal import image_scms as scm
from causal.counterfactual_answers import of_digits
from causal.mechanisms import CausalLayer, Intervention
from core.batches import epoch_sampler
from core.datasets import morphomnist
from core.fit import fit
from core.learner import LearnerLike, with_ema, with_sampler
from experiments.causal_diffae.config import Config
from experiments.causal_diffae.study import strokes as st
from experiments.causal_diffae.study.scores import keep_picture
from experiments.lab import Context, cell_folder
from latent import diffusion

DATASET = "MorphoMNIST"
PICTURES = 8
"""Digits of which the pixels are kept, for the figure."""


@functools.cache
def autoencoder(config: Config) -> cd.CausalDiffAE:
    """Encoder, mechanism and U-Net for 14 x 14 x 4."""
    denoiser = cd.UNetDenoiser(4, config.digit_channels, 1, (), groups=8, middle_attention=False, embedding=128)
    layer = CausalLayer(scm.THICKNESS_INTENSITY, config.digit_block, 32)
    return cd.CausalDiffAE(cd.ConvEncoder(2, config.digit_block, (16, 32, 64)), denoiser, layer, config.prediction)


def trained(context: Context, name: str, learner: LearnerLike, data: Any, seed: int, steps: int) -> Any:
    """Averaged parameters."""
    return fit(
        learner, data, key=jax.random.key(seed), steps=steps, chunk=min(100, steps), progress=context.progress(name),
        workdir=cell_folder(context, network=f"digits, {name}", seed=seed),
    ).state.ema  # fmt: skip


def autoencoder_learner(config: Config) -> LearnerLike:
    """Draws its batches and gamma."""
    chain, steps = diffusion.chain_levels(diffusion.linear_beta(1000)), config.digit_steps
    tx = optax.adam(optax.linear_schedule(config.digit_rate, config.digit_rate / 100, steps))
    model, batch = autoencoder(config), config.digit_batch
    return st.labelled_learner(config, model, chain, tx, batch=batch, steps=steps, ema=0.99)


def digits(config: Config, context: Context, seed: int) -> None:
    """Trains autoencoder and classifier, asks the interventions, measures."""
    train, test = (morphomnist.load(split, context.data_dir) for split in ("train", "test"))
    x = cw.blocks_of(train.images)
    classifier = cm.Predictor(10, (64,), (16, 32))
    reader = cm.predictor_learner(classifier, st.adam(config, config.classifier_steps), "digit", classes=True)
    reader = with_sampler(with_ema(reader, 0.99), epoch_sampler(64))
    reading = trained(context, "classifier", reader, {"x": x, "digit": train.digit}, seed, config.classifier_steps)
    data = {"x": x, "labels": cw.labels_of(train.thickness, train.intensity)}
    params = trained(context, "autoencoder", autoencoder_learner(config), data, seed, config.digit_steps)

    @jax.jit
    def read(x):
        found: Any = classifier.apply(reading, x)
        return jnp.argmax(found.output, axis=1)

    asked = cw.digit_question(config.digit_test, test, seed)
    images = ask(config, params, asked)
    at = context.at(dataset=DATASET, method=st.MAIN, seed=seed)
    at.record_all(of_digits(asked, images, lambda x: np.asarray(read(cw.blocks_of(x)))))
    accuracy = (np.asarray(read(cw.blocks_of(test.images))) == test.digit).mean()
    context.at(dataset=DATASET, method="classifier", seed=seed).record("accuracy", accuracy)
    for name, pictures in {"factual": asked.strokes.images, **dict(zip(cw.ASKED, images, strict=True))}.items():
        for example, picture in enumerate(pictures[:PICTURES]):
            keep_picture(at, name, example, picture)


@functools.cache
def answer(config: Config) -> Callable[[Any, Any, Intervention], Any]:
    """``(params, blocks [b, ...], interventions [m, b, 2]) -> blocks [m, b, ...]``, compiled once for all seeds."""
    model, grid = autoencoder(config), diffusion.chain(diffusion.linear_beta(1000), config.digit_sampling)

    @jax.jit
    def compiled(params, x, interventions):
        found = cd.abduct(model, params, grid, x, iterations=1)
        return cd.predict_all(model, params, grid, found, interventions)

    return compiled


def ask(config: Config, params: Any, asked: cw.DigitQuestion) -> np.ndarray:
    """[3, b, 28, 28, 1] in [0, 1]: nothing, do(t) and do(i), from one encoding and one inversion."""
    is_set = jnp.broadcast_to(jnp.array([[0, 0], [1, 0], [0, 1]], bool)[:, None], asked.labels.shape)
    interventions = Intervention(is_set, jnp.asarray(asked.labels))
    out = answer(config)(params, cw.blocks_of(asked.strokes.images), interventions)
    return np.stack([cw.images_of(each) for each in out])
