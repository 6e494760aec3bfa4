"""Concept space: what sets the speed of learning a concept, sudden turns, and capabilities before prompts show them.

Paper: Park, Okawa, Lee, Lubana, Tanaka, Emergence of Hidden Capabilities: Exploring Learning Dynamics in Concept
Space, NeurIPS 2024, arXiv 2406.19370.
Claim: a conditional diffusion model learns a concept the sooner the stronger its signal; on the way to an unseen
combination it first shows the seen one with the stronger concept, then turns; the capability is there before naive
prompts elicit it.
Command: ``relic run concept_space --preset small --seeds 5``.
Cost: no data; smoke under a minute on 2 CPU cores, small about a quarter of an hour; paper is for an accelerator.
Expect: times to learn colour fall with its signal; exaggerated prompts succeed no later than naive ones.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.fit import fit
from core.learner import GradientLearner, gradient_learner, replicate_seeds, seed_keys, step_key, with_sampler
from core.loop import loop_policy
from experiments.concept_claims import CLAIMS
from experiments.concept_figures import figures, tables
from experiments.system import Context, System
from interp import concept_space as cs
from interp.concept_space import Prompt, World
from latent import diffusion
from latent.diffusion import Conditioned

SCHEDULE = diffusion.linear_logsnr(5.0, -10.0)
EXAGGERATIONS = (1.0, 1.5, 2.5, 3.5, 4.5)
"""Over-prompting: multiples of the colour's distance from the middle."""
STRENGTHS = (1.5, 2.0, 3.0, 4.0)
"""Latent interventions: multiples of the colour's contribution to the embedding of the prompt."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Two worlds: discs (a U-Net per run, one after another) and vectors (all runs as one program)."""

    # Discs.
    side: int = 12
    channels: tuple[int, ...] = (16, 32)
    blocks: int = 1
    separations: tuple[float, ...] = (0.2, 0.8)
    """sep_colour of the runs with discs, at sep_size 0.4."""
    images: int = 2_048
    """Training images per class."""
    steps: int = 1_500
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    checkpoints: int = 15
    generations: int = 16
    sampling_steps: int = 20
    # Vectors.
    sweep: tuple[float, ...] = (0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8)
    """sep_colour at sep_size 0.4, and sep_size at sep_colour 0.4."""
    alphas: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 0.95)
    """Probabilities of leaving out the colour in prompts of class 01."""
    vector_steps: int = 2_000
    vector_batch: int = 64
    vector_width: int = 64
    vector_rate: float = 1e-3
    vector_checkpoints: int = 40
    vector_generations: int = 32


PRESETS = {
    "smoke": Config(
        side=8, channels=(8, 16), separations=(0.8,), images=256, steps=60, checkpoints=3, generations=4,
        sampling_steps=5, sweep=(0.2, 0.8), alphas=(0.0, 0.95), vector_steps=600, vector_checkpoints=12,
    ),
    "small": Config(),
    "paper": Config(
        side=32, channels=(64, 128, 256), blocks=2, separations=tuple(np.linspace(0.1, 0.8, 20).round(4).tolist()),
        steps=20_000, checkpoints=60, generations=32, sampling_steps=50, vector_steps=20_000, vector_checkpoints=200,
    ),
}  # fmt: skip


def run(config: Config, context: Context) -> None:
    """The vectors of all seeds at once, then the discs run by run; cells which a rerun skips."""
    seeds = ",".join(map(str, context.seeds))
    if not context.done(part="vectors", seeds=seeds):
        context.say("concept_space: vectors")
        vectors(config, context)
        context.finish(part="vectors", seeds=seeds)
    for seed in context.seeds:
        for separation in config.separations:
            if context.done(part="discs", seed=seed, sep_colour=separation):
                continue
            context.say(f"concept_space: discs, sep_colour {separation}, seed {seed}")
            discs(config, context, seed, separation)
            context.finish(part="discs", seed=seed, sep_colour=separation)


def training_levels(key: Any, count: int) -> diffusion.Drawn:
    """Stratified times in [0, 1]."""
    return diffusion.continuous_levels(SCHEDULE)(key, count)


@functools.cache
def plan(steps: int) -> diffusion.Plan:
    """Ancestral sampling from the noisiest level to the clean one."""
    times = np.linspace(1, 0, steps)
    levels = diffusion.continuous(SCHEDULE, times).logsnr
    return diffusion.ddpm(diffusion.variance_preserving(np.append(levels, np.inf), np.append(times, 0.0)))


# --- prompts ----------------------------------------------------------------------------------------------------------


def prompts(told: Callable[[Any], Any]) -> dict[str, Prompt]:
    """By name, a prompt of one row each: the four classes, exaggerated colours and steered embeddings of class 11.

    Args:
      told: from concept values [n, 2] to conditions [n, c], linear in the values.
    """
    classes = told(jnp.asarray(cs.CLASSES, jnp.float32))
    out = {f"class {i}{j}": cs.plain(classes[n : n + 1]) for n, (i, j) in enumerate(cs.CLASSES.tolist())}
    for k in EXAGGERATIONS:
        value = jnp.array([[0.5 + k * 0.5, 1.0]])
        out[f"over {k:g}"] = cs.plain(told(value))
    for s in STRENGTHS:
        out[f"latent {s:g}"] = Prompt(classes[3:], classes[1:2], jnp.full(1, s))
    return out


def repeated(chosen: dict[str, Prompt], count: int) -> Prompt:
    """All prompts as one batch, each ``count`` times."""
    stacked = jax.tree.map(lambda *rows: jnp.concatenate(rows), *chosen.values())
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), stacked)


# --- discs ------------------------------------------------------------------------------------------------------------


@functools.cache
def disc_network(channels: tuple[int, ...], blocks: int) -> tuple[cs.DiscDenoiser, diffusion.Denoiser]:
    """The module and its denoiser: one object per size, so that compiled programs are found again."""
    net = cs.DiscDenoiser(channels, blocks)
    return net, diffusion.denoiser(net.apply)


def disc_learner(config: Config) -> Any:
    """Trains on stored images and conditions, drawn uniformly on the device."""
    net, _ = disc_network(config.channels, config.blocks)
    losses = diffusion.denoising_loss(net.apply, training_levels)

    def init(key, batch):
        return net.init(key, batch["x"][:1], jnp.zeros(1), cs.plain(batch["cond"][:1]))

    def loss(params, key, batch):
        return losses(params, key, batch["x"], cs.plain(batch["cond"]))[0].mean(), {}

    tx = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)
    learner = gradient_learner(init, loss, tx, key_of=step_key)

    def draw(data, key, step):
        rows = jax.random.randint(jax.random.fold_in(key, step), (config.batch_size,), 0, data["x"].shape[0])
        return jax.tree.map(lambda leaf: leaf[rows], data)

    return with_sampler(learner, draw)


def disc_data(config: Config, world: World, seed: int) -> dict[str, Any]:
    """Images in [-1, 1] of the seen classes, with the actual colour and size as condition."""
    z = jnp.asarray(np.repeat(cs.CLASSES[list(cs.SEEN)], config.images, axis=0), jnp.float32)
    shown = cs.draw(jax.random.fold_in(jax.random.key(seed), 11), world, z)
    return {"x": 2 * cs.render(shown, config.side) - 1, "cond": cs.condition(shown)}


def discs(config: Config, context: Context, seed: int, separation: float) -> None:
    """One run: the trajectory under naive prompts, and what the other protocols elicit at every checkpoint."""
    world, every = World(separation, 0.4), max(1, config.steps // config.checkpoints)
    _, denoise = disc_network(config.channels, config.blocks)
    loop, key = loop_policy("convolutional"), jax.random.key(seed)
    chosen = prompts(lambda z: cs.condition(cs.typical(world, z)))
    batch = repeated(chosen, config.generations)
    shape = (len(chosen) * config.generations, config.side, config.side, 3)
    start = diffusion.starting_noise(jax.random.fold_in(key, 21), shape)
    kept: list[Any] = []

    @jax.jit
    def points(x):
        return cs.coordinates(*cs.measure((x + 1) / 2), world)

    def generate(params, prompt, x):
        operands, noise_key = Conditioned(params, prompt), jax.random.fold_in(key, 22)
        drawn = diffusion.sample(plan(config.sampling_steps), denoise, operands, x, noise_key, loop=loop)
        return np.asarray(points(drawn)).reshape(-1, config.generations, 2)

    def evaluate(state):
        kept.append((int(state.step), jax.tree.map(jnp.array, state.params)))
        return {}

    fit(
        disc_learner(config), disc_data(config, world, seed), key=key, steps=config.steps, chunk=min(every, 50),
        evaluate=evaluate, evaluate_every=every, loop=loop,
        progress=context.progress(f"discs {separation}, seed {seed}"),
    )  # fmt: skip
    naive = repeated({"class 11": chosen["class 11"]}, config.generations)
    found, patches = [], []
    for _, params in kept:
        found.append(generate(params, batch, start))
        patches.append(generate(cs.patched(params, kept[-1][1]), naive, start[: config.generations])[0])
    place = {"part": "discs", **dataclasses.asdict(Setting(separation, 0.4))}
    seen = Seen(np.array([step for step, _ in kept]), list(chosen), np.stack(found), np.stack(patches))
    report(context, "discs", seed, place, seen, whole=True)
    for concept, name in enumerate(("colour", "size")):
        context.record(dataset="discs", method="renderer", metric=f"signal of {name}", seed=seed,
                       value=float(cs.concept_signal(world, config.side, concept)), **place)  # fmt: skip


class Seen(NamedTuple):
    """What a run generated."""

    steps: np.ndarray
    names: list[str]
    """Of the prompts."""
    points: np.ndarray
    """[checkpoints, prompts, generations, 2] in concept space."""
    patched: np.ndarray | None = None
    """[checkpoints, generations, 2]: class 11 with the final embedding of prompts."""


def report(context: Context, dataset: str, seed: int, place: dict[str, Any], seen: Seen, *, whole: bool) -> None:
    """Records the trajectory of the unseen class, times of learning and elicitation; ``whole``: all accuracies too."""

    def note(method: str, metric: str, value: Any, **more: Any) -> None:
        context.record(dataset=dataset, method=method, metric=metric, seed=seed, value=float(value), **place, **more)

    at = {name: seen.points[:, i] for i, name in enumerate(seen.names)}
    target, unseen = cs.CLASSES[3], at["class 11"]
    path, right = unseen.mean(axis=1), cs.accuracy(unseen, target)
    joint = {"naive": cs.joint_accuracy(unseen, target)}
    for method, prefix in (("over-prompting", "over"), ("latent", "latent")):
        each = [cs.joint_accuracy(points, target) for name, points in at.items() if name.startswith(prefix)]
        joint[method] = np.max(each, axis=0)
    if seen.patched is not None:
        joint["patched"] = cs.joint_accuracy(seen.patched, target)
    for k, step in enumerate(seen.steps.tolist()):
        for metric, value in zip(("colour", "size"), path[k], strict=True):
            note("naive", metric, value, step=step)
        for method, curve in joint.items() if whole else [("naive", joint["naive"])]:
            note(method, "both right", curve[k], step=step)
    for method, curve in joint.items():
        note(method, "time", cs.first_time(seen.steps, curve))
    for concept, (name, carrier) in enumerate((("colour", "class 10"), ("size", "class 01"))):
        curve = cs.accuracy(at[carrier], np.array([int(digit) for digit in carrier[-2:]]))[:, concept]
        note("naive", f"time to learn {name}", cs.learning_time(seen.steps, curve))
        note("naive", f"final {name} of {carrier}", curve[-1])
        note("naive", f"final {name} of class 11", right[-1, concept])
    bend = cs.turn(path)
    note("naive", "final both right", joint["naive"][-1])
    note("naive", "best both right", joint["naive"].max())
    note("naive", "turn in degrees", bend.degrees)
    note("naive", "turn inside", bend.is_inside)
    note("naive", "turn at", seen.steps[bend.index])
    note("naive", "first to 01", cs.stereotype(path) == 1)


# --- vectors ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Setting:
    """A run with vectors."""

    sep_colour: float
    sep_size: float
    variant: str = "plain"
    alpha: float = 0.0


def settings_of(config: Config) -> list[Setting]:
    """Both sweeps, underspecified prompts and the two controls."""
    plain = {Setting(sep, 0.4): None for sep in config.sweep} | {Setting(0.4, sep): None for sep in config.sweep}
    hidden = [Setting(0.4, 0.4, "underspecified", alpha) for alpha in config.alphas]
    controls = [Setting(0.8, 0.4, variant) for variant in ("unconditional", "permuted")]
    return [*plain, *hidden, *controls]


def told_point(world: World, z: Any) -> Any:
    """The condition of concept values [n, 2]: the actual coordinates, away from the 0 that stands for nothing."""
    return 1.0 + cs.centres(world, z)


@functools.cache
def point_network(width: int) -> tuple[cs.PointDenoiser, diffusion.Denoiser]:
    """The module and its denoiser."""
    net = cs.PointDenoiser(width)
    return net, diffusion.denoiser(net.apply)


def point_learner(config: Config) -> GradientLearner:
    """One run; its "batch" is its setting as numbers, from which it draws fresh points."""
    net, _ = point_network(config.vector_width)
    losses = diffusion.denoising_loss(net.apply, training_levels)
    seen = jnp.asarray(cs.CLASSES[list(cs.SEEN)], jnp.float32)

    def init(key, setting):
        return net.init(key, jnp.zeros((1, 2)), jnp.zeros(1), cs.plain(jnp.zeros((1, 2))))

    def loss(params, key, setting):
        keys = jax.random.split(key, 5)
        classes = seen[jax.random.randint(keys[0], (config.vector_batch,), 0, len(cs.SEEN))]
        z = cs.draw_values(jax.random.fold_in(keys[0], 1), classes)
        x, cond = cs.draw_points(keys[1], setting["world"], z), told_point(setting["world"], z)
        is_hidden = jax.random.bernoulli(keys[2], setting["alpha"], (config.vector_batch,))
        is_hidden &= (classes[:, 0] == 0) & (classes[:, 1] == 1)
        cond = jnp.where(is_hidden[:, None] & (jnp.arange(2) == 0), 0.0, cond)
        cond = jnp.where(setting["permuted"], jax.random.permutation(keys[3], cond), cond) * setting["conditional"]
        return losses(params, keys[4], x, cs.plain(cond))[0].mean(), {}

    return gradient_learner(init, loss, optax.adam(config.vector_rate), key_of=step_key)


def vectors(config: Config, context: Context) -> None:
    """All settings and seeds as one vmapped program."""
    runs = [(setting, seed) for setting in settings_of(config) for seed in context.seeds]
    data = {
        "world": World(*(jnp.array([getattr(s, name) for s, _ in runs]) for name in ("sep_colour", "sep_size"))),
        "alpha": jnp.array([s.alpha for s, _ in runs]),
        "permuted": jnp.array([s.variant == "permuted" for s, _ in runs]),
        "conditional": jnp.array([float(s.variant != "unconditional") for s, _ in runs]),
    }
    _, denoise = point_network(config.vector_width)
    names = list(prompts(functools.partial(told_point, World())))
    count, keys = config.vector_generations, seed_keys([seed for _, seed in runs])

    @jax.jit
    @jax.vmap
    def generate(params, setting, key):
        world = setting["world"]
        batch = repeated(prompts(functools.partial(told_point, world)), count)
        batch = batch._replace(cond=batch.cond * setting["conditional"], base=batch.base * setting["conditional"])
        start = diffusion.starting_noise(jax.random.fold_in(key, 21), (len(names) * count, 2))
        noise_key = jax.random.fold_in(key, 22)
        x = diffusion.sample(plan(config.sampling_steps), denoise, Conditioned(params, batch), start, noise_key)
        return cs.point_coordinates(x, world).reshape(len(names), count, 2)

    seen: list[np.ndarray] = []
    steps: list[int] = []

    def evaluate(state):
        steps.append(int(np.max(state.step)))
        seen.append(np.asarray(generate(state.params, data, keys)))
        return {}

    every = max(1, config.vector_steps // config.vector_checkpoints)
    many = replicate_seeds(point_learner(config), len(runs), batch_axes=0)
    fit(
        many, data, key=keys, steps=config.vector_steps, chunk=every, evaluate=evaluate, evaluate_every=every,
        progress=context.progress("vectors"),
    )  # fmt: skip
    points = np.stack(seen, axis=1)
    for (setting, seed), found in zip(runs, points, strict=True):
        place = {"part": "vectors", **dataclasses.asdict(setting)}
        report(context, "vectors", seed, place, Seen(np.array(steps), names, found), whole=False)


SYSTEM = System(
    slug="concept_space",
    title="Emergence of hidden capabilities: learning dynamics in concept space",
    family="interp",
    paper="Park, Okawa, Lee, Lubana, Tanaka, NeurIPS 2024, arXiv 2406.19370",
    presets=PRESETS,
    run=run,
    claims=CLAIMS,
    metrics=(),
    tables=tables,
    figures=figures,
)
