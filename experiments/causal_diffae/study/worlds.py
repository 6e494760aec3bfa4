"""A pendulum with its shadow and a circuit of depth two: four variables, known counterfactuals, small images."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causal import causal_diffae as cd
from causal import counterfactual_metrics as cm
from causal import image_scms as scm
from causal.mechanisms import CausalLayer, Graph, Intervention, Mode
from core.batches import epoch_sampler
from core.learner import seed_keys, with_ema, with_sampler
from core.records import Scalar
from experiments.causal_diffae.config import Config
from experiments.causal_diffae.study import strokes as st
from experiments.causal_diffae.study.scores import PREDICT
from experiments.lab.system import Context
from latent.film import FilmMlp

TEST = 96
"""Images asked about."""


class World(NamedTuple):
    """Training rows, and what is asked of the test images."""

    name: str
    graph: Graph
    rows: dict[str, Any]
    """Images in [-1, 1] and labels, normalised."""
    asked: dict[str, tuple[Any, Any]]
    """By question ``(is_set [4], labels [b, 4] of the true counterfactuals)``; the first is nothing."""
    truth: dict[str, Any]
    """The true images."""
    modes: tuple[Mode, ...]


def pendulum(config: Config) -> World:
    """Of the published settings every test image has an angle and a light; both and the shadow are intervened on."""
    train, test = scm.pendulum_split()
    rng = np.random.default_rng(0)
    train = rng.permutation(train)[: config.world_train]
    test = rng.permutation(test)[:TEST]
    other = rng.permutation(test)

    def labels(settings, length=None):
        found = scm.pendulum_labels(*(jnp.asarray(column, jnp.float32) for column in settings.T))
        return found if length is None else found.at[:, 2].set(length)

    answers = {
        "null": labels(test),
        "do(angle)": labels(np.stack([other[:, 0], test[:, 1]], 1)),
        "do(light)": labels(np.stack([test[:, 0], other[:, 1]], 1)),
        "do(shadow length)": labels(test, labels(other)[:, 2]),
    }
    set_by = {"null": (), "do(angle)": (0,), "do(light)": (1,), "do(shadow length)": (2,)}

    def render(found):
        return 2 * scm.render_pendulum(found, config.world_side)[..., :3] - 1

    def normal(found):
        return (found - scm.PENDULUM_SHIFT) / scm.PENDULUM_SCALE

    return world("pendulum", scm.PENDULUM, labels(train), answers, set_by, render, normal, ("paper",))


def circuit(config: Config) -> World:
    """Depth two: red follows blue, which follows the arm."""
    train = scm.draw_circuit(jax.random.key(0), config.world_train)
    test, other = (scm.draw_circuit(jax.random.key(seed), TEST) for seed in (1, 2))
    set_by = {"null": (), "do(arm)": (0,), "do(blue)": (1,), "do(red)": (3,)}
    answers = {
        name: scm.circuit_labels(test.noise, other.labels, jnp.array([k in which for k in range(4)]))
        for name, which in set_by.items()
    }

    def render(found):
        return 2 * scm.render_circuit(found, config.world_side) - 1

    mean, std = train.labels.mean(0), train.labels.std(0)
    return world(
        "circuit", scm.CIRCUIT, train.labels, answers, set_by, render, lambda y: (y - mean) / std, ("paper", "code")
    )


def world(name, graph, train, answers, set_by, render, normal, modes) -> World:
    """Rendered and normalised."""
    rows = {"x": render(train), "labels": jnp.asarray(normal(train), jnp.float32)}
    asked = {
        question: (jnp.array([k in which for k in range(4)]), jnp.asarray(normal(answers[question]), jnp.float32))
        for question, which in set_by.items()
    }
    return World(name, graph, rows, asked, {question: render(found) for question, found in answers.items()}, modes)


@functools.cache
def autoencoder(config: Config, graph: Graph, mode: Mode) -> cd.CausalDiffAE:
    """Perceptrons all the way."""
    layer = CausalLayer(graph, config.block, 32, mode)
    return cd.CausalDiffAE(cd.MlpEncoder(4, config.block), FilmMlp(config.world_width, 2), layer, config.prediction)


WORLDS = (pendulum, circuit)


def cells(context: Context) -> list[dict[str, Scalar]]:
    """All that :func:`run` does."""
    return [{"dataset": make.__name__, "seeds": ",".join(map(str, context.seeds))} for make in WORLDS]


def run(config: Config, context: Context) -> None:
    """Every world is a cell of all seeds."""
    seeds = ",".join(map(str, context.seeds))
    for make in WORLDS:
        if context.done(dataset=make.__name__, seeds=seeds):
            continue
        context.say(f"causal_diffae: {make.__name__}")
        one_world(config, context, make(config))
        context.finish(dataset=make.__name__, seeds=seeds)


def one_world(config: Config, context: Context, there: World) -> None:
    """Trains predictor and autoencoders, asks everything of them."""
    predictor = cm.Predictor(4)
    learner = cm.predictor_learner(predictor, st.adam(config, config.predictor_steps))
    predicting = st.train_plain(
        config, context, f"{there.name}, predictor", learner, there.rows, config.predictor_steps
    )
    count = len(context.seeds)
    still = {question: jnp.stack([there.truth["null"]] * count) for question in there.asked}
    report(context, there, "do nothing", predictor, predicting, still)
    true = {question: jnp.stack([x] * count) for question, x in there.truth.items()}
    report(context, there, "truth", predictor, predicting, true)
    for mode in there.modes:
        model = autoencoder(config, there.graph, mode)
        params = train(config, context, there, mode)
        method = st.MAIN if mode == "paper" else f"{st.MAIN}, parents as in the code"
        report(context, there, method, predictor, predicting, ask(config, there, model, params))


def train(config: Config, context: Context, there: World, mode: Mode) -> Any:
    """Parameters [seeds, ...]."""
    model = autoencoder(config, there.graph, mode)
    sample = epoch_sampler(config.batch)

    def draw(data, key, step):
        labelled = jnp.ones(config.batch, bool)
        return {**sample(data, key, step), "labelled": labelled, "gamma": cd.ramp(step, config.world_steps // 2)}

    tx = st.adam(config, config.world_steps)
    learner = with_ema(cd.learner(model, st.levels(config), tx, dropped=config.dropped), config.ema)
    keys = seed_keys(list(context.seeds))
    drawing = with_sampler(learner, draw)
    return st.trained(context, f"{there.name}, {mode}", drawing, there.rows, None, keys, config.world_steps)


def ask(config: Config, there: World, model: cd.CausalDiffAE, params: Any) -> dict[str, Any]:
    """Images [seeds, b, ...] by question, from one encoding and one inversion."""
    x, grid = there.truth["null"], st.grid(config)
    wide = [jnp.broadcast_to(is_set, labels.shape) for is_set, labels in there.asked.values()]
    interventions = Intervention(jnp.stack(wide), jnp.stack([labels for _, labels in there.asked.values()]))

    def single(params):
        found = cd.abduct(model, params, grid, x, iterations=2)
        return cd.predict_all(model, params, grid, found, interventions)

    images = jax.jit(jax.vmap(single))(params)
    return {question: images[:, k] for k, question in enumerate(there.asked)}


def report(context: Context, there: World, method: str, predictor: Any, predicting: Any, images: Any) -> None:
    """Errors against the truth, and how far predicted labels are from those of the true counterfactual."""
    factual = there.asked["null"][1]
    for index, seed in enumerate(context.seeds):
        params = jax.tree.map(lambda leaf, i=index: leaf[i], predicting)
        for question, (is_set, labels) in there.asked.items():
            x = images[question][index]
            found = np.asarray(PREDICT(predictor, params, x).output)
            off = np.abs(found - np.asarray(labels)).mean(0)
            values = {"cf-MSE": float(((x - there.truth[question]) ** 2).mean() / 4)}
            is_free = ~np.asarray(is_set)
            values["MAE of the set"] = float(off[~is_free].mean()) if not is_free.all() else 0.0
            values["MAE of the others"] = float(off[is_free].mean())
            values["r(last variable)"] = cm.correlation(
                found[:, 3] - np.asarray(factual)[:, 3], np.asarray(labels - factual)[:, 3]
            )
            for metric, value in values.items():
                context.record(
                    dataset=there.name, method=method, metric=f"{metric}, {question}", seed=seed, value=value
                )
