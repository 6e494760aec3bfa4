"""Discs and triangles: a U-Net per run, one run after another."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.learner import Learner, stream
from experiments.concept_space.config import Config
from experiments.concept_space.study.report import Seen, Setting, Times, clear, controls, prompts, report, train
from experiments.lab import Context, cell_folder
from interp import concept_space as cs
from latent import diffusion


@functools.cache
def disc_network(config: Config) -> tuple[cs.DiscDenoiser, diffusion.Denoiser]:
    """The module and its denoiser: one object per size, so that compiled programs are found again."""
    net = cs.DiscDenoiser(config.channels, config.blocks, dropout=config.dropout, middle_attention=config.attention)
    return net, diffusion.clip_x0(diffusion.denoiser(net.apply))


def disc_learner(config: Config) -> Learner:
    """Trains on stored images and conditions, drawn uniformly on the device."""
    tx = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)
    return cs.image_learner(disc_network(config)[0], tx, config.batch_size)


def disc_data(config: Config, world: cs.World, seed: int) -> dict[str, Any]:
    """Images in [-1, 1] of the seen classes, with the actual values of the concepts as condition."""
    z = jnp.asarray(np.repeat(cs.shown_corners(world.concepts), config.images, axis=0), jnp.float32)
    shown = cs.draw(stream(jax.random.key(seed), "training images"), world, z)
    render = cs.render if config.shape == "disc" else cs.render_triangle
    return {"x": 2 * render(shown, config.side) - 1, "cond": cs.condition(shown, world.concepts)}


@functools.cache
def sampler(config: Config) -> Callable[[Any, cs.Prompt, Any, Any], Any]:
    """``(params, prompts, noise, key) -> images``, compiled once for all runs."""
    _, denoise = disc_network(config)

    @jax.jit
    def draw(params, prompt, x, key):
        operands = diffusion.Conditioned(params, prompt)
        return diffusion.sample(cs.sampling(config.sampling_steps), denoise, operands, x, key)

    return draw


def images(config: Config, context: Context, *, seed: int, setting: Setting) -> None:
    """One run: the trajectory under naive prompts, and what the other protocols elicit at every checkpoint."""
    world, key, count = setting.world, jax.random.key(seed), config.generations
    elicit = world.concepts == 2 and setting.sep_colour in config.elicited
    net, _ = disc_network(config)

    def told(z):
        return cs.condition(cs.typical(world, z), world.concepts)

    @jax.jit
    def points(x):
        return cs.coordinates(cs.measure((x + 1) / 2), world)

    def generator(chosen: dict[str, cs.Prompt], own_key: Any) -> Callable[[Any], dict[str, np.ndarray]]:
        batch = cs.repeated(chosen, count)
        start = diffusion.starting_noise(own_key, (len(chosen) * count, config.side, config.side, 3))

        def generate(params):
            drawn = points(sampler(config)(params, batch, start, own_key))
            return dict(zip(chosen, np.asarray(drawn).reshape(-1, count, world.concepts), strict=True))

        return generate

    def patched(params):
        batch = cs.repeated({"": chosen["class 11"]}, count)
        drawn = points(sampler(config)(cs.patched(params, final.params), batch, naive_start, generation))
        return {"patched": np.asarray(drawn)}

    generation, chosen = stream(key, "generation"), prompts(told, world.concepts, elicit=elicit)
    naive_start = diffusion.starting_noise(generation, (len(chosen) * count, config.side, config.side, 3))[:count]
    generators = [generator(chosen, generation)]
    if elicit:
        ours = controls(told, stream(key, "direction"), net.width)
        generators += [generator(ours, stream(key, "controls")), patched]
    at, cell = Times.of(config.steps, config.checkpoints), context.missing[0]
    final, kept = train(
        disc_learner(config), disc_data(config, world, seed), context,
        f"{config.shape}s {setting.sep_colour}, seed {seed}", folder := cell_folder(context, **cell), at, key,
        lambda state: state.params,
    )  # fmt: skip
    found = [{name: p for each in generators for name, p in each(params).items()} for params in kept]
    signals = [float(cs.concept_signal(world, config.side, concept)) for concept in range(world.concepts)]
    generated = {name: np.stack([each[name] for each in found]) for name in found[0]}
    place = context.at(dataset=f"{config.shape}s", seed=seed, part="images", **setting.place)
    report(place, Seen(np.array(at.looks), generated, np.array(signals)))
    clear(folder)
