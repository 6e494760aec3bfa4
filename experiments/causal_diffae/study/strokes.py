"""StrokeToy: what is trained on strokes of known counterfactuals, and how it is asked for them."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from causal import causal_diffae as cd
from causal import causal_vae, counterfactual_baselines
from causal import image_scms as scm
from causal.counterfactual_worlds import ASKED, Question
from causal.mechanisms import CausalLayer
from core.batches import epoch_sampler
from core.fit import fit
from core.learner import LearnerLike, replicate_seeds, seed_keys, with_ema, with_sampler
from experiments.causal_diffae.config import Config
from experiments.lab import Context, cell_folder
from latent import diffusion
from latent.film import FilmMlp

MAIN, WEAK_GAMMA, DIFFAE = "CausalDiffAE", "CausalDiffAE, small gamma", "DiffAE"
LABELS, PROPAGATED = "labels", "labels, propagated"
Asked = Mapping[str, Any]
"""Images [seeds, b, 12, 12, 1] by what was asked."""


class Variant(NamedTuple):
    """A way to train an autoencoder, as numbers, so that variants are one program."""

    gamma: tuple[float, float] = (1.0, 1.0)
    """Largest weights of the two divergences."""
    fraction: float = 1.0
    """Of examples with labels."""


def autoencoders(config: Config) -> dict[str, tuple[bool, dict[str, Variant]]]:
    """By group, whether there are mechanisms, and variants by name."""
    weak = {f"CausalDiffAE, {fraction:.0%} labels": Variant(fraction=fraction) for fraction in config.fractions}
    small = (config.small_gamma, config.small_gamma)
    return {
        "causal": (True, {MAIN: Variant(), WEAK_GAMMA: Variant(small), **weak}),
        "plain": (False, {"DiffAE aligned": Variant(), DIFFAE: Variant((1.0, 0.0))}),
    }


@functools.cache
def autoencoder(config: Config, causal: bool) -> cd.CausalDiffAE:
    """The model; one object, so that compiled programs are found again."""
    layer = CausalLayer(scm.THICKNESS_INTENSITY, config.block, 32) if causal else None
    denoiser = FilmMlp(config.width, config.blocks)
    return cd.CausalDiffAE(cd.MlpEncoder(2, config.block), denoiser, layer, config.prediction)


@functools.cache
def label_model(config: Config) -> counterfactual_baselines.LabelDiffusion:
    """Label-conditional diffusion and Diff-SCM."""
    denoiser, regressor = FilmMlp(config.width, config.blocks), counterfactual_baselines.NoisyRegressor(2)
    return counterfactual_baselines.LabelDiffusion(denoiser, regressor, prediction=config.prediction)


@functools.cache
def vae(config: Config, causal: bool) -> causal_vae.CausalVae:
    """SCM-VAE where the graph is known, CausalVAE where it is learned."""
    layer = (
        CausalLayer(scm.THICKNESS_INTENSITY, config.block, 32, act=jax.nn.elu)
        if causal
        else causal_vae.LinearThenMask(2, config.block)
    )
    return causal_vae.CausalVae(cd.MlpEncoder(2, config.block), layer, (12, 12, 1))


def levels(config: Config) -> diffusion.Levels:
    """All of the chain, uniformly."""
    return diffusion.chain_levels(diffusion.linear_beta(config.chain))


def grid(config: Config) -> diffusion.Grid:
    """Of sampling and inversion."""
    return diffusion.chain(diffusion.linear_beta(config.chain), config.sampling)


def adam(config: Config, steps: int) -> optax.GradientTransformation:
    """Adam whose rate falls linearly to a hundredth."""
    return optax.adam(optax.linear_schedule(config.rate, config.rate / 100, steps))


def trained(context: Context, name: str, learner: LearnerLike, data: Any, axes: Any, keys: Any, steps: int) -> Any:
    """Averaged parameters of all runs of a learner that draws its batches, trained as one program.

    Args:
      context: its seeds, with ``name``, say where checkpoints lie.
      name: of the network, its own among all that the experiment trains.
      learner: of one run.
      data: what every step is given.
      axes: of ``data``, as in :func:`core.learner.replicate_seeds`.
      keys: of all runs.
      steps: updates in all.
    """
    many = replicate_seeds(learner, keys.shape[0], batch_axes=axes)
    return fit(
        many, data, key=keys, steps=steps, chunk=min(100, steps), progress=context.progress(name),
        workdir=cell_folder(context, network=name, seeds=",".join(map(str, context.seeds))),
    ).state.ema  # fmt: skip


def train_group(config: Config, context: Context, name: str, rows: Any) -> dict[str, Any]:
    """Parameters [seeds, ...] of the autoencoders of a group, by method."""
    causal, variants = autoencoders(config)[name]
    sample, count = epoch_sampler(config.batch), len(context.seeds)
    runs = [variant for variant in variants.values() for _ in context.seeds]
    strengths, fractions = jnp.array([v.gamma for v in runs]), jnp.array([v.fraction for v in runs])
    data = {"rows": rows, "gamma": strengths, "fraction": fractions}

    def draw(data, key, step):
        drawn = sample(data["rows"], key, step)
        is_labelled = drawn.pop("rank") < data["fraction"]
        return {**drawn, "labelled": is_labelled, "gamma": cd.ramp(step, config.steps // 2, data["gamma"])}

    model, tx = autoencoder(config, causal), adam(config, config.steps)
    learner = with_ema(cd.learner(model, levels(config), tx, dropped=config.dropped), config.ema)
    keys = seed_keys([seed for _ in variants for seed in context.seeds])
    axes = {"rows": None, "gamma": 0, "fraction": 0}
    params = trained(context, name, with_sampler(learner, draw), data, axes, keys, config.steps)
    return {
        method: jax.tree.map(lambda leaf, i=i: leaf[i * count : (i + 1) * count], params)
        for i, method in enumerate(variants)
    }


def labelled_learner(
    config: Config, model: cd.CausalDiffAE, chain: diffusion.Levels, tx: Any, *, batch: int, steps: int, ema: float
) -> LearnerLike:
    """Trains an autoencoder on rows that all have labels; gamma rises to 1 over half the steps."""
    sample = epoch_sampler(batch)

    def draw(data, key, step):
        return {**sample(data, key, step), "labelled": jnp.ones(batch, bool), "gamma": cd.ramp(step, steps // 2)}

    return with_sampler(with_ema(cd.learner(model, chain, tx, dropped=config.dropped), ema), draw)


def train_plain(config: Config, context: Context, name: str, learner: LearnerLike, rows: Any, steps: int) -> Any:
    """Parameters [seeds, ...] of a learner of images and labels."""
    drawing = with_sampler(with_ema(learner, config.ema), epoch_sampler(config.batch))
    return trained(context, name, drawing, rows, None, seed_keys(list(context.seeds)), steps)


def by_name(images: Any, names: Sequence[str]) -> Asked:
    """From images [seeds, asked, b, ...]."""
    return {name: images[:, k] for k, name in enumerate(names)}


@functools.cache
def ask_autoencoder(config: Config, causal: bool) -> Callable[..., Any]:
    """``(params [seeds], question) -> (images [seeds, 4, b, ...], z [seeds, b, n, k])``; the last do(t) from new noise.

    One encoding, one inversion, and four decodings as one batch.
    """
    model, steps = autoencoder(config, causal), grid(config)

    def single(params, asked: Question):
        found = cd.abduct(model, params, steps, asked.x, iterations=2)
        fresh = diffusion.starting_noise(jax.random.key(7), asked.x.shape)
        noise = jnp.concatenate([found.noise, found.noise, found.noise, fresh])
        order = jnp.array([0, 1, 2, 1])
        flat = jax.tree.map(lambda leaf: leaf[order].reshape(-1, leaf.shape[-1]), asked.interventions)
        images = cd.predict(model, params, steps, cd.Abducted(jnp.tile(found.u, (4, 1, 1)), noise), flat)
        return images.reshape(4, *asked.x.shape), model.apply(params, found.u, method="code")

    return jax.jit(jax.vmap(single, in_axes=(0, None)))


def guided(config: Config, params: Any, asked: Question) -> Any:
    """do(t) at each weight of guidance, [weights, seeds, b, ...]."""
    model, steps = autoencoder(config, True), grid(config)
    intervention = jax.tree.map(lambda leaf: leaf[1], asked.interventions)

    def single(params, weight):
        found = cd.abduct(model, params, steps, asked.x, "ddim")
        return cd.predict(model, params, steps, found, intervention, weight=weight)

    run = jax.jit(jax.vmap(single, in_axes=(0, None)))
    return jnp.stack([run(params, jnp.float32(weight)) for weight in config.weights])


INVERSIONS: tuple[diffusion.InversionMode, ...] = ("explicit", "fixed_point", "heun")


def ask_labels(config: Config, params: Any, asked: Question) -> dict[str, Asked]:
    """Label-conditional diffusion without and with propagated labels, and Diff-SCM."""
    decoder, steps = cd.Decoder(label_model(config), (-1.0, 1.0)), grid(config)
    told = asked.interventions
    independent = jnp.where(told.is_set, told.value, asked.labels)

    def conditional(params, new):
        return counterfactual_baselines.by_labels(decoder, params, steps, asked.x, asked.labels, new)

    def anticausal(params, which):
        return counterfactual_baselines.by_classifier(
            decoder, params, steps, asked.x, told.value[which], told.is_set[which, 0], config.classifier_scale
        )

    by_label = jax.jit(jax.vmap(conditional, in_axes=(0, None)))
    by_gradient = jax.jit(jax.vmap(anticausal, in_axes=(0, None)))
    alone = {name: by_label(params, independent[k]) for k, name in enumerate(ASKED)}
    return {
        LABELS: alone,
        PROPAGATED: {**alone, "do(t)": by_label(params, asked.answers[1])},
        "Diff-SCM": {name: by_gradient(params, k) for k, name in enumerate(ASKED)},
    }


def ask_vae(config: Config, causal: bool, params: Any, asked: Question) -> tuple[Asked, Any]:
    """Images and codes of a variational autoencoder."""
    model = vae(config, causal)

    def single(params):
        encoded: Any = model.apply(params, asked.x, method="encode")
        images = jax.vmap(lambda intervention: causal_vae.counterfactual(model, params, asked.x, intervention))
        return images(asked.interventions), model.apply(params, encoded.mean, method="code")

    images, codes = jax.jit(jax.vmap(single))(params)
    return by_name(images, ASKED), codes
