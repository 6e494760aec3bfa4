"""A tiny system in a module of its own: ``relic run tests.experiments.toy``."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from matplotlib.figure import Figure

from core.errors import DataError
from core.fit import fit
from core.learner import gradient_learner
from core.parallel import data_mesh, data_parallel, shard_batch
from experiments.lab import drawing, registry, runs
from experiments.lab.registry import Found
from experiments.lab.runner import execute
from experiments.lab.style import Palette
from experiments.lab.system import Claim, NotShown, Published, ShownByTest, System, Verdict, part

STATS = "tests/core/test_stats.py"
TRUTH = np.array([1.0, -2.0, 0.5], np.float32)


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 60
    learning_rate: float = 0.1
    methods: tuple[str, ...] = ("sgd", "adam")
    noise: Literal["low", "high"] = "low"
    source: str | None = None
    whiten: bool = False
    pause: float = 0.0
    """Seconds of sleep per chunk."""


def loss(params, key, batch):
    residual = batch["x"] @ params - batch["y"]
    return jnp.mean(residual**2), {}


def examples(config, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(32, 3)).astype(np.float32)
    return {"x": x, "y": x @ TRUTH + {"low": 0.1, "high": 1.0}[config.noise] * rng.normal(size=32).astype(np.float32)}


def share(batch):
    """This process's part of the examples."""
    return jax.tree.map(lambda leaf: np.split(leaf, jax.process_count())[jax.process_index()], batch)


def plan(config, context):
    if config.source:
        raise DataError(f"dataset {config.source!r} is not under {context.data_dir}; download it")
    return [
        part(functools.partial(train, method, seed), dataset="line", method=method, seed=seed)
        for method in config.methods for seed in context.seeds
    ]  # fmt: skip


def train(method, seed, config, context):
    context.say(f"training {method}, seed {seed}")
    tx = {"sgd": optax.sgd, "adam": optax.adam}[method](config.learning_rate)
    mesh = data_mesh()
    learner = data_parallel(gradient_learner(lambda key, batch: jnp.zeros(3), loss, tx), mesh)
    show = context.progress(f"{method} {seed}")
    state, history = fit(
        learner,
        shard_batch(share(examples(config, seed)), mesh),
        key=jax.random.key(seed),
        steps=config.steps,
        workdir=context.workdir / f"{method}-{seed}",
        chunk=10,
        checkpoint_every=10,
        progress=lambda done, total: (show(done, total), time.sleep(config.pause)),
    )
    at = context.at(dataset="line", method=method, seed=seed)
    at.record_all({"error": jnp.linalg.norm(state.params - TRUTH), "steps": config.steps})
    for row in history:
        at.record("loss", row["loss"], step=row["step"])


@dataclasses.dataclass(frozen=True)
class Judged:
    words: str
    judge: Callable[[pd.DataFrame], Verdict]

    def __call__(self, frame: pd.DataFrame) -> Verdict:
        return self.judge(frame)


def judge(frame: pd.DataFrame) -> Verdict:
    errors = frame[(frame.metric == "error") & (frame.method == "adam")].value
    if len(errors) < 2:
        return Verdict(None)
    return Verdict(bool(errors.mean() < 2), f"error {errors.mean():.3f}", (float(errors.min()), float(errors.max())))


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    curve = frame[frame.metric == "loss"]
    return {"Loss by step": curve.pivot_table(index="step", columns="method", values="value").reset_index()}


COLOURS = Palette("sgd", "adam")


@drawing("loss")
def losses(frame: pd.DataFrame) -> Figure:
    """Training loss, mean over seeds."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    for method, curve in frame[frame.metric == "loss"].groupby("method"):
        mean = curve.groupby("step").value.mean()
        axes.plot(mean.index, mean.values, label=method, **COLOURS.line(method))
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend()
    return figure


SYSTEM = System(
    slug="toy",
    title="A line through points",
    family="latent",
    paper="Gauss, Theoria motus, 1809",
    presets={"smoke": Config(steps=20), "small": Config()},
    plan=plan,
    published=(
        Published("line", "sgd", "error", 0.05, "Table 1", "paper"),
        Published("line", "secret", "error", 0.01, "Table 1", "recalled"),
        Published("moon", "sgd", "error", 0.5, "Table 2", "log"),
    ),
    claims=(
        Claim(
            "10",
            "Holm's correction has its known values",
            ShownByTest(f"{STATS}::test_holm_gives_the_known_adjustment"),
        ),
        Claim("2", "Adam finds the line", Judged("error of adam, small preset", judge)),
        Claim("8a", "It works on the moon", NotShown("no data from there")),
        Claim("8", "A test that is not there", ShownByTest(f"{STATS}::test_nothing_of_the_kind")),
    ),
    metrics=("error", "steps"),
    baseline="sgd",
    tables=tables,
    figures={"loss": losses},
    colours=COLOURS,
)
registry.add(Found(SYSTEM, "tests.experiments.toy"))


def measuring(measure, *cells):
    """A plan of a part per cell; ``measure(config, at)`` notes its numbers."""

    def plan(config, context):
        own = [{**cell, "seed": seed} for cell in cells for seed in context.seeds]
        return [part(lambda config, context, cell=cell: measure(config, context.at(**cell)), **cell) for cell in own]

    return plan


def quick_system(system=SYSTEM):
    """The system with numbers of the toy's shape and no training."""
    shifts = {"sgd": 0.0, "adam": 0.02, "<b>&": 0.5}

    def numbers(config, at):
        shift, seed = shifts[at.place["method"]], at.place["seed"]
        at.record_all({"error": 0.05 + shift + 0.01 * seed + 0.003 * shift * seed, "steps": config.steps})
        for step in (10, 20):
            at.record("loss", 1 / step, step=step)

    return dataclasses.replace(system, plan=measuring(numbers, *({"dataset": "line", "method": m} for m in shifts)))


def quick_run(workdir, *, preset="small", seeds=(0, 1, 2), system=SYSTEM):
    """A run of the quick system."""
    found = Found(quick_system(system), "tests.experiments.toy")
    return runs.read(execute(found, preset=preset, seeds=seeds, workdir=workdir, command="relic run toy"))
