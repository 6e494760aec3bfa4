"""Real digits: MorphoMNIST with thickness and intensity, a small U-Net, attributes measured in the images."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from causal import causal_diffae as cd
from causal import counterfactual_metrics as cm
from causal import image_scms as scm
from causal import stroke_measures
from causal.counterfactual_worlds import ASKED
from causal.mechanisms import CausalLayer, Intervention
from core.batches import epoch_sampler
from core.datasets import morphomnist
from core.fit import fit
from core.learner import LearnerLike, with_ema, with_sampler
from core.patches import patches, unpatched
from experiments.causal_diffae.config import Config
from experiments.causal_diffae.study import strokes as st
from experiments.causal_diffae.study.scores import keep_picture
from experiments.lab import Context, cell_folder
from latent import diffusion

DATASET = "MorphoMNIST"
THICKNESS, INTENSITY = (1.5, 4.0), (70.0, 250.0)
"""Ranges from which interventions are drawn, in pixels and grey levels."""
PICTURES = 8
"""Digits of which the pixels are kept, for the figure."""


def blocks_of(images: Any) -> Any:
    """[n, h, w, 1] in [0, 1] to blocks of 2 x 2 pixels [n, h/2, w/2, 4] in [-1, 1]: what the U-Net works on."""
    return 2 * patches(jnp.asarray(images), 2, 2) - 1


def images_of(x: Any) -> Any:
    """The inverse of :func:`blocks_of`, clipped to [0, 1]."""
    return np.clip((np.asarray(unpatched(x, 2)) + 1) / 2, 0, 1)


def labels_of(thickness: Any, intensity: Any) -> Any:
    """Standardised labels."""
    return np.stack([(thickness - 2.5) / 0.63, (intensity - 158) / 48.4], axis=1).astype(np.float32)


@functools.cache
def autoencoder(config: Config) -> cd.CausalDiffAE:
    """Encoder, mechanism and U-Net for 14 x 14 x 4."""
    denoiser = cd.UNetDenoiser(4, config.digit_channels, 1, (), groups=8, middle_attention=False, embedding=128)
    layer = CausalLayer(scm.THICKNESS_INTENSITY, config.digit_block, 32)
    return cd.CausalDiffAE(cd.ConvEncoder(2, config.digit_block, (16, 32, 64)), denoiser, layer, config.prediction)


class Asked(NamedTuple):
    """Test digits and two interventions on each."""

    strokes: morphomnist.Strokes
    labels: np.ndarray
    """[3, b, 2]: factual, under do(t), under do(i)."""


def question(config: Config, data: morphomnist.Strokes, seed: int) -> Asked:
    """do(t') and do(i') uniformly, the intensity under do(t') by the causal model."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(data.digit), min(config.digit_test, len(data.digit)), replace=False)
    strokes = morphomnist.Strokes(*(column[chosen] for column in data))
    t, i = (rng.uniform(*limits, len(chosen)).astype(np.float32) for limits in (THICKNESS, INTENSITY))
    follows = np.asarray(scm.counterfactual_intensity(strokes.thickness, strokes.intensity, t))
    factual = (strokes.thickness, strokes.intensity)
    labels = [labels_of(*factual), labels_of(t, follows), labels_of(strokes.thickness, i)]
    return Asked(strokes, np.stack(labels))


def trained(context: Context, name: str, learner: LearnerLike, data: Any, seed: int, steps: int) -> Any:
    """Averaged parameters."""
    return fit(
        learner, data, key=jax.random.key(seed), steps=steps, chunk=min(100, steps), progress=context.progress(name),
        workdir=cell_folder(context, network=f"digits, {name}", seed=seed),
    ).state.ema  # fmt: skip


def autoencoder_learner(config: Config) -> LearnerLike:
    """Draws its batches and gamma."""
    sample = epoch_sampler(config.digit_batch)

    def draw(data, key, step):
        labelled = jnp.ones(config.digit_batch, bool)
        return {**sample(data, key, step), "labelled": labelled, "gamma": cd.ramp(step, config.digit_steps // 2)}

    chain = diffusion.chain_levels(diffusion.linear_beta(1000))
    tx = optax.adam(optax.linear_schedule(config.digit_rate, config.digit_rate / 100, config.digit_steps))
    return with_sampler(with_ema(cd.learner(autoencoder(config), chain, tx, dropped=config.dropped), 0.99), draw)


def digits(config: Config, context: Context, seed: int) -> None:
    """Trains autoencoder and classifier, asks the interventions, measures."""
    train, test = (morphomnist.load(split, context.data_dir) for split in ("train", "test"))
    x = blocks_of(train.images)
    classifier = cm.Predictor(10, (64,), (16, 32))
    reader = cm.predictor_learner(classifier, st.adam(config, config.classifier_steps), "digit", classes=True)
    reader = with_sampler(with_ema(reader, 0.99), epoch_sampler(64))
    reading = trained(context, "classifier", reader, {"x": x, "digit": train.digit}, seed, config.classifier_steps)
    data = {"x": x, "labels": labels_of(train.thickness, train.intensity)}
    params = trained(context, "autoencoder", autoencoder_learner(config), data, seed, config.digit_steps)

    @jax.jit
    def read(x):
        found: Any = classifier.apply(reading, x)
        return jnp.argmax(found.output, axis=1)

    asked = question(config, test, seed)
    images = ask(config, params, asked)
    at = context.at(dataset=DATASET, method=st.MAIN, seed=seed)
    at.record_all(scores(asked, images, lambda x: np.asarray(read(blocks_of(x)))))
    accuracy = (np.asarray(read(blocks_of(test.images))) == test.digit).mean()
    context.at(dataset=DATASET, method="classifier", seed=seed).record("accuracy", accuracy)
    for name, pictures in {"factual": asked.strokes.images, **dict(zip(ASKED, images, strict=True))}.items():
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


def ask(config: Config, params: Any, asked: Asked) -> np.ndarray:
    """[3, b, 28, 28, 1] in [0, 1]: nothing, do(t) and do(i), from one encoding and one inversion."""
    is_set = jnp.broadcast_to(jnp.array([[0, 0], [1, 0], [0, 1]], bool)[:, None], asked.labels.shape)
    interventions = Intervention(is_set, jnp.asarray(asked.labels))
    out = answer(config)(params, blocks_of(asked.strokes.images), interventions)
    return np.stack([images_of(each) for each in out])


def scores(asked: Asked, images: np.ndarray, read: Any) -> dict[str, float]:
    """Attributes measured in the images; a digit is kept where the classifier reads it as it reads the original."""
    original, out = read(asked.strokes.images), {}
    measured = [labels_of(stroke_measures.thickness(x), stroke_measures.intensity(x)) for x in images]
    for k, name in enumerate(ASKED):
        for j, attribute in enumerate("ti"):
            if k:
                out[f"r({attribute}), {name}"] = cm.correlation(measured[k][:, j], asked.labels[k, :, j])
            out[f"MAE({attribute}) measured, {name}"] = np.abs(measured[k][:, j] - asked.labels[k, :, j]).mean()
        kept = read(images[k]) == original
        out[f"digits kept, {name}"] = kept.mean()
        out[f"digits, {name}"] = len(kept)
    out["reconstruction MSE"] = ((images[0] - asked.strokes.images) ** 2).mean()
    out["composition l1, 1"] = np.abs(images[0] - asked.strokes.images).mean()
    return out
