"""A pendulum with its shadow and a circuit of depth two: four variables, known counterfactuals, small images."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal import causal_diffae as cd
from causal import counterfactual_metrics as cm
from causal.counterfactual_worlds import World
from causal.mechanisms import CausalLayer, Graph, Intervention, Mode
from core.batches import epoch_sampler
from core.learner import seed_keys, with_ema, with_sampler
from experiments.causal_diffae.config import Config
from experiments.causal_diffae.study import strokes as st
from experiments.causal_diffae.study.scores import PREDICT
from experiments.lab import Context
from latent.film import FilmMlp

TEST = 96
"""Images asked about."""


@functools.cache
def autoencoder(config: Config, graph: Graph, mode: Mode) -> cd.CausalDiffAE:
    """Perceptrons all the way."""
    layer = CausalLayer(graph, config.block, 32, mode)
    return cd.CausalDiffAE(cd.MlpEncoder(4, config.block), FilmMlp(config.world_width, 2), layer, config.prediction)


def world(config: Config, context: Context, make: Any) -> None:
    """Trains predictor and autoencoders, asks everything of them."""
    there: World = make(config.world_train, TEST, config.world_side)
    predictor = cm.Predictor(4)
    learner = cm.predictor_learner(predictor, st.adam(config, config.predictor_steps))
    name, steps = f"{there.name}, predictor", config.predictor_steps
    predicting = st.train_plain(config, context, name, learner, there.rows, steps)
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
            at = context.at(dataset=there.name, method=method, seed=seed)
            at.record_all({f"{metric}, {question}": value for metric, value in values.items()})
