"""What is measured for ``concept_space``."""

import dataclasses
import functools
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.fit import fit
from core.learner import (
    GradientLearner,
    Learner,
    LearnerLike,
    Stream,
    gradient_learner,
    replicate_seeds,
    seed_keys,
    step_key,
    stream,
    with_sampler,
)
from core.records import Scalar
from experiments.concept_space.config import EXAGGERATIONS, STRENGTHS, Config
from experiments.lab.looks import Looks
from experiments.lab.system import Context, cell_folder
from interp import concept_space as cs
from interp.concept_space import Prompt, World
from latent import diffusion
from latent.diffusion import Conditioned

SCHEDULE = diffusion.linear_logsnr(5.0, -10.0)


def run(config: Config, context: Context) -> None:
    """The vectors of all seeds at once, then the images run by run; cells which a rerun skips."""
    seeds = ",".join(map(str, context.seeds))
    plans = [(seed, Setting(sep)) for sep in config.separations for seed in context.seeds]
    plans += [(seed, Setting(0.8, sep_background=0.8)) for seed in context.seeds[: config.cubes]]
    context.cells({"part": "vectors", "group": group, "seeds": seeds} for group in settings_of(config))
    context.cells(itertools.starmap(cell_of, plans))
    for group, settings in settings_of(config).items():
        cell = {"part": "vectors", "group": group, "seeds": seeds}
        if context.done(**cell):
            continue
        context.say(f"concept_space: vectors, {group}")
        vectors(config, context, settings, folder := cell_folder(context, **cell))
        finish(context, cell, folder)
    for seed, setting in plans:
        cell = cell_of(seed, setting)
        if context.done(**cell):
            continue
        context.say(f"concept_space: {config.shape}s, {setting.cube}, sep_colour {setting.sep_colour}, seed {seed}")
        images(config, context, seed, setting, folder := cell_folder(context, **cell))
        finish(context, cell, folder)


def finish(context: Context, cell: dict[str, Any], folder: Path) -> None:
    """A finished cell needs its checkpoints and looks no more, and they are many; other processes may still read."""
    context.finish(**cell)
    if jax.process_count() == 1:
        shutil.rmtree(folder, ignore_errors=True)


def cell_of(seed: int, setting: "Setting") -> dict[str, Scalar]:
    """The name of a run with images."""
    return {"part": "images", "seed": seed, "sep_colour": setting.sep_colour, "world": setting.cube}


@dataclasses.dataclass(frozen=True)
class Setting:
    """A run: its world and what is done to its prompts."""

    sep_colour: float
    sep_size: float = 0.4
    sep_background: float | None = None
    variant: str = "plain"
    alpha: float = 0.0

    @property
    def cube(self) -> str:
        """Two or three concepts."""
        return "2 x 2" if self.sep_background is None else "2 x 2 x 2"

    @property
    def world(self) -> World:
        """As numbers."""
        return World(self.sep_colour, self.sep_size, self.sep_background)

    @property
    def place(self) -> dict[str, Any]:
        """Where its records belong."""
        own = dataclasses.asdict(self)
        own.pop("sep_background")
        return own | {"world": self.cube}


class Times(NamedTuple):
    """When to look at a training."""

    first: int
    """Steps to the first look; the others are at multiples, and at the end."""
    looks: list[int]

    @classmethod
    def of(cls, steps: int, count: int) -> "Times":
        """Evenly spaced square roots."""
        first = max(1, min(25, steps // count))
        roots = np.linspace(first**0.5, steps**0.5, count)
        inside = {round(root**2 / first) * first for root in roots}
        return cls(first, sorted({step for step in inside if step <= steps} | {steps}))


def train(
    learner: LearnerLike,
    data: Any,
    context: Context,
    name: str,
    folder: Path,
    at: Times,
    key: Any,
    seen: Callable[[Any], Any],
) -> tuple[Any, list[Any]]:
    """A trained state, and what was ``seen`` of the states at all looks: it is kept on disk until the cell is done."""
    looks = Looks(folder)

    def evaluate(state):
        step = int(np.max(state.step))
        if step in at.looks:
            looks.keep(step, seen(state))
        return {}

    state = fit(
        learner, data, key=key, steps=at.looks[-1], chunk=at.first, workdir=folder, evaluate=evaluate,
        evaluate_every=at.first, progress=context.progress(name),
    ).state  # fmt: skip
    like = jax.eval_shape(seen, state)
    return state, [looks.read(step, like) for step in at.looks]


def training_levels(key: Any, count: int) -> diffusion.Drawn:
    """Stratified times in [0, 1]."""
    return diffusion.continuous_levels(SCHEDULE)(key, count)


@functools.cache
def plan(steps: int) -> diffusion.Plan:
    """Ancestral sampling from the noisiest level to the clean one."""
    times = np.linspace(1, 0, steps)
    levels = diffusion.continuous(SCHEDULE, times).logsnr
    return diffusion.ddpm(diffusion.variance_preserving(np.append(levels, np.inf), np.append(times, 0.0)))


def prompts(told: Callable[[Any], Any], concepts: int = 2, *, elicit: bool = True) -> dict[str, Prompt]:
    """By name, a prompt of one row each: all classes, and exaggerated colours and steered embeddings of class 11.

    Args:
      told: from concept values [n, k] to conditions [n, c], linear in the values.
      concepts: k.
      elicit: whether to add the second kind, for two concepts.
    """
    values = cs.corners(concepts)
    classes = told(jnp.asarray(values, jnp.float32))
    out = {name_of(z): cs.plain(classes[n : n + 1]) for n, z in enumerate(values)}
    if not elicit:
        return out
    for k in EXAGGERATIONS:
        out[f"over {k:g}"] = cs.plain(told(jnp.array([[0.5 + k * 0.5, 1.0]])))
    for s in STRENGTHS:
        out[f"latent {s:g}"] = Prompt(classes[3:], classes[1:2], jnp.full(1, s))
    return out


def name_of(z: np.ndarray) -> str:
    """Of a class."""
    return "class " + "".join(map(str, z.tolist()))


def repeated(chosen: dict[str, Prompt], count: int) -> Prompt:
    """All prompts as one batch, each ``count`` times."""
    stacked = jax.tree.map(lambda *rows: jnp.concatenate(rows), *chosen.values())
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), stacked)


@functools.cache
def disc_network(config: Config) -> tuple[cs.DiscDenoiser, diffusion.Denoiser]:
    """The module and its denoiser: one object per size, so that compiled programs are found again."""
    net = cs.DiscDenoiser(
        config.channels, config.blocks, dropout=config.dropout, middle_attention=config.attention
    )  # fmt: skip
    return net, diffusion.clip_x0(diffusion.denoiser(net.apply))


def disc_learner(config: Config) -> Any:
    """Trains on stored images and conditions, drawn uniformly on the device."""
    net, _ = disc_network(config)

    def init(key, batch):
        return net.init(key, batch["x"][:1], jnp.zeros(1), cs.plain(batch["cond"][:1]))

    def loss(params, key, batch):
        dropout_key = stream(key, "dropout")

        def network(params, x, time, prompt):
            if not config.dropout:
                return net.apply(params, x, time, prompt)
            return net.apply(params, x, time, prompt, deterministic=False, rngs={"dropout": dropout_key})

        losses = diffusion.denoising_loss(network, training_levels)
        return losses(params, key, batch["x"], cs.plain(batch["cond"]))[0].mean(), {}

    tx = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)
    learner = gradient_learner(init, loss, tx, key_of=step_key, batch_axes=0)

    def draw(data, key, step):
        rows = jax.random.randint(stream(key, Stream.EXAMPLES, step), (config.batch_size,), 0, data["x"].shape[0])
        return jax.tree.map(lambda leaf: leaf[rows], data)

    return with_sampler(learner, draw)


def disc_data(config: Config, world: World, seed: int) -> dict[str, Any]:
    """Images in [-1, 1] of the seen classes, with the actual values of the concepts as condition."""
    z = jnp.asarray(np.repeat(cs.shown_corners(world.concepts), config.images, axis=0), jnp.float32)
    shown = cs.draw(stream(jax.random.key(seed), "training images"), world, z)
    render = cs.render if config.shape == "disc" else cs.render_triangle
    return {"x": 2 * render(shown, config.side) - 1, "cond": cs.condition(shown, world.concepts)}


@functools.cache
def sampler(config: Config) -> Callable[[Any, Prompt, Any, Any], Any]:
    """``(params, prompts, noise, key) -> images``, compiled once for all runs."""
    _, denoise = disc_network(config)

    @jax.jit
    def draw(params, prompt, x, key):
        return diffusion.sample(plan(config.sampling_steps), denoise, Conditioned(params, prompt), x, key)

    return draw


def images(config: Config, context: Context, seed: int, setting: Setting, folder: Path) -> None:
    """One run: the trajectory under naive prompts, and what the other protocols elicit at every checkpoint."""
    world, key = setting.world, jax.random.key(seed)
    elicit = world.concepts == 2 and setting.sep_colour in config.elicited
    chosen = prompts(lambda z: cs.condition(cs.typical(world, z), world.concepts), world.concepts, elicit=elicit)
    batch = repeated(chosen, config.generations)
    shape = (len(chosen) * config.generations, config.side, config.side, 3)
    start = diffusion.starting_noise(stream(key, "generation"), shape)

    @jax.jit
    def points(x):
        return cs.coordinates(cs.measure((x + 1) / 2), world)

    def generate(params, prompt, x):
        drawn = sampler(config)(params, prompt, x, stream(key, "generation"))
        return np.asarray(points(drawn)).reshape(-1, config.generations, world.concepts)

    at = Times.of(config.steps, config.checkpoints)
    final, kept = train(
        disc_learner(config), disc_data(config, world, seed), context,
        f"{config.shape}s {setting.sep_colour}, seed {seed}", folder, at, key, lambda state: state.params,
    )  # fmt: skip
    found, patches = [], []
    for params in kept:
        found.append(generate(params, batch, start))
        if elicit:
            naive = repeated({"class 11": chosen["class 11"]}, config.generations)
            patches.append(generate(cs.patched(params, final.params), naive, start[: config.generations])[0])
    signals = [float(cs.concept_signal(world, config.side, concept)) for concept in range(world.concepts)]
    seen = Seen(
        np.array(at.looks), list(chosen), np.stack(found), np.array(signals), np.stack(patches) if elicit else None
    )
    report(context, f"{config.shape}s", seed, {"part": "images", **setting.place}, seen)


class Seen(NamedTuple):
    """What a run generated."""

    steps: np.ndarray
    names: list[str]
    """Of the prompts."""
    points: np.ndarray
    """[checkpoints, prompts, generations, concepts] in concept space."""
    signals: np.ndarray
    """Of the concepts."""
    patched: np.ndarray | None = None
    """[checkpoints, generations, 2]: class 11 with the final embedding of prompts."""


def report(context: Context, dataset: str, seed: int, place: dict[str, Any], seen: Seen) -> None:
    """Records the trajectory of the unseen class, and times of learning and elicitation."""

    def note(method: str, metric: str, value: Any, **more: Any) -> None:
        context.record(dataset=dataset, method=method, metric=metric, seed=seed, value=float(value), **place, **more)

    for name, signal in zip(("colour", "size", "background"), seen.signals, strict=False):
        note("world", f"signal of {name}", signal)
    at = {name: seen.points[:, i] for i, name in enumerate(seen.names)}
    if len(seen.signals) > 2:
        report_cube(note, at, seen)
        return
    target, unseen = np.ones(2), at["class 11"]
    path, right = unseen.mean(axis=1), cs.accuracy(unseen, target)
    joint = {"naive": cs.joint_accuracy(unseen, target)}
    for method, prefix in (("over-prompting", "over"), ("latent", "latent")):
        each = [cs.joint_accuracy(points, target) for name, points in at.items() if name.startswith(prefix)]
        if each:
            joint[method] = np.max(each, axis=0)
    if seen.patched is not None:
        joint["patched"] = cs.joint_accuracy(seen.patched, target)
    for k, step in enumerate(seen.steps.tolist()):
        for metric, value in zip(("colour", "size"), path[k], strict=True):
            note("naive", metric, value, step=step)
        for method, curve in joint.items():
            note(method, "both right", curve[k], step=step)
    for method, curve in joint.items():
        note(method, "time", cs.first_time(seen.steps, curve))
    for concept, (name, carrier) in enumerate((("colour", "class 10"), ("size", "class 01"))):
        curve = cs.accuracy(at[carrier], np.array([int(digit) for digit in carrier[-2:]]))[:, concept]
        note("naive", f"time to learn {name}", cs.learning_time(seen.steps, curve))
        note("naive", f"final {name} of {carrier}", curve[-1])
        note("naive", f"final {name} of class 11", right[-1, concept])
    note("naive", "final both right", joint["naive"][-1])
    report_shape(note, path, seen)


def report_shape(note: Callable[..., None], path: np.ndarray, seen: Seen) -> None:
    """Where the path turns, which seen class it resembles first, and how a toy model fits it."""
    bend, weaker = cs.turn(path), int(np.argmin(seen.signals))
    toy = cs.fit_toy(seen.steps, path[:, [weaker, 1 - weaker]])
    note("naive", "turn in degrees", bend.degrees)
    note("naive", "turn inside", bend.is_inside)
    note("naive", "turn at", seen.steps[bend.index])
    note("naive", "first to the stronger", cs.stereotype(path) == (1 if weaker == 0 else 2))
    note("naive", "toy R2", toy.r2)
    note("naive", "toy release", toy.weaker)


def report_cube(note: Callable[..., None], at: dict[str, np.ndarray], seen: Seen) -> None:
    """Joint accuracy of every class of three concepts."""
    for name, points in at.items():
        curve = cs.joint_accuracy(points, np.array([int(digit) for digit in name[-3:]]))
        for step, value in zip(seen.steps.tolist(), curve, strict=True):
            note(name, "all right", value, step=step)
        note(name, "time", cs.first_time(seen.steps, curve))


def settings_of(config: Config) -> dict[str, list[Setting]]:
    """Groups of runs, each one program: sweeps, underspecified prompts and controls; and three that run otherwise."""
    plain = {Setting(sep): None for sep in config.sweep} | {Setting(0.4, sep): None for sep in config.sweep}
    hidden = [Setting(0.4, variant="underspecified", alpha=alpha) for alpha in config.alphas]
    controls = [Setting(0.8, variant=variant) for variant in ("unconditional", "permuted")]
    return {
        "diffusion": [*plain, *hidden, *controls],
        "guided": [Setting(0.2, variant="guided")],
        "deterministic": [Setting(0.2, variant="deterministic")],
        "cube": [Setting(0.4, sep_background=0.4)],
    }


def told_point(world: World, z: Any) -> Any:
    """The condition of concept values [n, k]: the actual coordinates, away from the 0 that stands for nothing."""
    return 1.0 + cs.centres(world, z)


@functools.cache
def point_network(width: int) -> tuple[cs.PointDenoiser, diffusion.Denoiser]:
    """The module and its denoiser."""
    net = cs.PointDenoiser(width)
    return net, diffusion.denoiser(net.apply)


def point_learner(config: Config, kind: Setting) -> Learner:
    """One run; its "batch" is its setting as numbers, from which it draws points; ``kind`` says what is static."""
    learner = fed_points(config, kind)
    return with_sampler(learner, functools.partial(drawn_points, kind.world.concepts, config.vector_batch))


def fed_points(config: Config, kind: Setting) -> GradientLearner:
    """Trains on given points and prompts."""
    net, _ = point_network(config.vector_width)
    losses = diffusion.denoising_loss(net.apply, training_levels)

    def init(key, batch):
        return net.init(key, batch["x"][:1], jnp.zeros(1), cs.plain(batch["cond"][:1]))

    def loss(params, key, batch):
        x, prompt = batch["x"], cs.plain(batch["cond"])
        if kind.variant == "deterministic":
            return jnp.mean((generator(net, params, prompt) - x) ** 2), {}
        return losses(params, key, x, prompt)[0].mean(), {}

    return gradient_learner(init, loss, optax.adam(config.vector_rate), key_of=step_key, batch_axes=0)


def drawn_points(concepts: int, count: int, setting: dict[str, Any], key: Any, step: Any) -> dict[str, jax.Array]:
    """Points of the seen classes, and conditions with what the setting hides, permutes or drops of them."""
    keys = jax.random.split(stream(key, Stream.EXAMPLES, step), 6)
    seen = jnp.asarray(cs.shown_corners(concepts), jnp.float32)
    classes = seen[jax.random.randint(keys[0], (count,), 0, len(seen))]
    z = cs.draw_values(keys[1], classes)
    x, cond = cs.draw_points(keys[2], setting["world"], z), told_point(setting["world"], z)
    is_hidden = jax.random.bernoulli(keys[3], setting["alpha"], (count,))
    is_hidden &= (classes[:, 0] == 0) & (classes[:, 1] == 1)
    cond = jnp.where(is_hidden[:, None] & (jnp.arange(concepts) == 0), 0.0, cond)
    cond = jnp.where(setting["permuted"], jax.random.permutation(keys[4], cond), cond) * setting["conditional"]
    is_dropped = jax.random.bernoulli(keys[5], setting["dropped"], (count, 1))
    return {"x": x, "cond": jnp.where(is_dropped, -1.0, cond)}


def generator(net: cs.PointDenoiser, params: Any, prompt: Prompt) -> jax.Array:
    """The network as a regression of points on prompts: no noise, one call."""
    return net.apply(params, jnp.zeros_like(prompt.cond), jnp.ones(prompt.cond.shape[0]), prompt)  # pyright: ignore


def vectors(config: Config, context: Context, settings: list[Setting], folder: Path) -> None:
    """All settings and seeds of a group as one vmapped program."""
    runs, kind = [(setting, seed) for setting in settings for seed in context.seeds], settings[0]
    columns = zip(*(setting.world for setting, _ in runs), strict=True)
    data = {
        "world": World(*(None if column[0] is None else jnp.array(column) for column in columns)),
        "alpha": jnp.array([s.alpha for s, _ in runs]),
        "permuted": jnp.array([s.variant == "permuted" for s, _ in runs]),
        "conditional": jnp.array([float(s.variant != "unconditional") for s, _ in runs]),
        "dropped": jnp.array([config.dropped if s.variant == "guided" else 0.0 for s, _ in runs]),
    }
    net, denoise = point_network(config.vector_width)
    concepts, elicit = kind.world.concepts, kind.world.concepts == 2
    names = list(prompts(functools.partial(told_point, kind.world), concepts, elicit=elicit))
    count, keys = config.vector_generations, seed_keys([seed for _, seed in runs])
    guided = diffusion.cfg(denoise, null=lambda prompt: cs.plain(jnp.full_like(prompt.cond, -1.0)))

    @jax.jit
    @jax.vmap
    def generate(params, setting, key):
        world = setting["world"]
        batch = repeated(prompts(functools.partial(told_point, world), concepts, elicit=elicit), count)
        batch = batch._replace(cond=batch.cond * setting["conditional"], base=batch.base * setting["conditional"])
        start = diffusion.starting_noise(stream(key, "generation"), (len(names) * count, concepts))
        operands, noise_key = Conditioned(params, batch), stream(key, "generation")
        if kind.variant == "deterministic":
            x = generator(net, params, batch)
        elif kind.variant == "guided":
            operands = diffusion.Guided(operands, config.guidance)
            x = diffusion.sample(plan(config.sampling_steps), guided, operands, start, noise_key)
        else:
            x = diffusion.sample(plan(config.sampling_steps), denoise, operands, start, noise_key)
        return cs.point_coordinates(x, world).reshape(len(names), count, concepts)

    at = Times.of(config.vector_steps, config.vector_checkpoints)
    many = replicate_seeds(point_learner(config, kind), len(runs), batch_axes=0)
    _, seen = train(
        many, data, context, "vectors", folder, at, keys, lambda state: generate(state.params, data, keys)
    )  # fmt: skip
    points = np.stack(seen, axis=1)
    for (setting, seed), found in zip(runs, points, strict=True):
        signals = np.asarray(setting.world.separations)
        place = {"part": "vectors", **setting.place}
        report(context, "vectors", seed, place, Seen(np.array(at.looks), names, found, signals))
