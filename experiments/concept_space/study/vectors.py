"""Points: all settings and seeds of a group as one program."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.bench import first_call
from core.learner import Learner, replicate_seeds, seed_keys, stream
from experiments.concept_space.config import Config
from experiments.concept_space.study.report import Seen, Setting, Times, clear, controls, prompts, report, train
from experiments.lab import Context, cell_folder
from interp import concept_space as cs
from latent import diffusion

MANY, COST_STEPS = 48, 200
"""Runs that are one program, and steps of which the time is taken."""


def settings_of(config: Config) -> dict[str, list[Setting]]:
    """Groups of runs, each one program: sweeps, underspecified prompts and controls; and three that run otherwise."""
    plain = {Setting(sep): None for sep in config.sweep} | {Setting(0.4, sep): None for sep in config.sweep}
    hidden = [Setting(0.4, variant="underspecified", alpha=alpha) for alpha in config.alphas]
    others = [Setting(0.8, variant=variant) for variant in ("unconditional", "permuted")]
    return {
        "diffusion": [*plain, *hidden, *others],
        "guided": [Setting(0.2, variant="guided")],
        "deterministic": [Setting(0.2, variant="deterministic")],
        "cube": [Setting(0.4, sep_background=0.4)],
    }


@functools.cache
def point_network(width: int) -> tuple[cs.PointDenoiser, diffusion.Denoiser]:
    """The module and its denoiser."""
    net = cs.PointDenoiser(width)
    return net, diffusion.denoiser(net.apply)


def point_learner(config: Config, kind: Setting) -> Learner:
    """One run; its "batch" is its setting as numbers, from which it draws points; ``kind`` says what is static."""
    net, tx = point_network(config.vector_width)[0], optax.adam(config.vector_rate)
    regresses = kind.variant == "deterministic"
    return cs.point_learner(net, tx, kind.world.concepts, config.vector_batch, regresses=regresses)


def as_numbers(config: Config, settings: Sequence[Setting]) -> dict[str, Any]:
    """The settings of runs of one kind, stacked."""
    columns = zip(*(setting.world for setting in settings), strict=True)
    telling = cs.Telling(
        jnp.array([s.alpha for s in settings]),
        jnp.array([s.variant == "permuted" for s in settings]),
        jnp.array([float(s.variant != "unconditional") for s in settings]),
        jnp.array([config.dropped if s.variant == "guided" else 0.0 for s in settings]),
    )
    world = cs.World(*(None if column[0] is None else jnp.array(column) for column in columns))
    return {"world": world, "telling": telling}


def drawn(config: Config, kind: Setting, params: Any, batch: cs.Prompt, key: Any) -> jax.Array:
    """Points that a model of a kind makes of prompts."""
    net, denoise = point_network(config.vector_width)
    if kind.variant == "deterministic":
        return cs.regressed(net, params, batch)
    operands: Any = diffusion.Conditioned(params, batch)
    if kind.variant == "guided":
        denoise = diffusion.cfg(denoise, null=lambda prompt: prompt._replace(
            cond=jnp.full_like(prompt.cond, -1.0), base=jnp.full_like(prompt.cond, -1.0),
            strength=jnp.ones(prompt.cond.shape[0]),
        ))  # fmt: skip
        operands = diffusion.Guided(operands, config.guidance)
    start = diffusion.starting_noise(key, batch.cond.shape)
    return diffusion.sample(cs.sampling(config.sampling_steps), denoise, operands, start, key)


def vectors(config: Config, context: Context, *, settings: Sequence[Setting]) -> None:
    """All settings and seeds of a group as one vmapped program."""
    runs, kind = [(setting, seed) for setting in settings for seed in context.seeds], settings[0]
    data, keys = as_numbers(config, [setting for setting, _ in runs]), seed_keys([seed for _, seed in runs])
    concepts, count = kind.world.concepts, config.vector_generations
    elicit = concepts == 2

    @jax.jit
    @jax.vmap
    def generate(params, setting, key):
        world, is_told = setting["world"], setting["telling"].conditional
        told = functools.partial(cs.told_point, world)

        def points(chosen, key):
            batch = cs.repeated(chosen, count)
            batch = batch._replace(cond=batch.cond * is_told, base=batch.base * is_told)
            x = drawn(config, kind, params, batch, key)
            found = cs.point_coordinates(x, world).reshape(len(chosen), count, concepts)
            return dict(zip(chosen, found, strict=True))

        found = points(prompts(told, concepts, elicit=elicit), stream(key, "generation"))
        ours = controls(told, stream(key, "direction"), config.vector_width) if elicit else {}
        return found | (points(ours, stream(key, "controls")) if elicit else {})

    at = Times.of(config.vector_steps, config.vector_checkpoints)
    many = replicate_seeds(point_learner(config, kind), len(runs), batch_axes=0)
    folder = cell_folder(context, **context.missing[0])
    _, seen = train(
        many, data, context, "vectors", folder, at, keys, lambda state: generate(state.params, data, keys)
    )  # fmt: skip
    points = {name: np.stack([each[name] for each in seen], axis=1) for name in seen[0]}
    for row, (setting, seed) in enumerate(runs):
        place = context.at(dataset="vectors", seed=seed, part="vectors", **setting.place)
        signals = np.asarray(setting.world.separations)
        report(place, Seen(np.array(at.looks), {name: p[row] for name, p in points.items()}, signals))
    clear(folder)


def cost(config: Config, context: Context) -> None:
    """Seconds of some steps of one run, and of many as one program."""
    for count in (1, MANY):
        data, keys = as_numbers(config, [Setting(0.4)] * count), seed_keys(range(count))
        many = replicate_seeds(point_learner(config, Setting(0.4)), count, batch_axes=0)

        def steps(state, many=many, data=data):
            return jax.lax.fori_loop(0, COST_STEPS, lambda _, state: many.update(state, data)[0], state)

        state = many.init(keys, data)
        program = jax.jit(steps).lower(state).compile()
        for repeat in range(config.cost_repeats):
            seconds = first_call(lambda program=program, state=state: program(state))
            context.at(dataset="cost", method="vectors", part="cost", seed=repeat, runs=count).record(
                "seconds", seconds
            )
