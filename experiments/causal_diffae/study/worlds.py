"""A pendulum with its shadow and a circuit of depth two: four variables, known counterfactuals, small images."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal import causal_diffae as cd
from causal import counterfactual_metrics as cm
from causal.counterfactual_answers import of_world
from causal.counterfactual_worlds import World
from causal.mechanisms import CausalLayer, Graph, Intervention, Mode
from core.learner import seed_keys
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
    model, tx, steps = autoencoder(config, there.graph, mode), st.adam(config, config.world_steps), config.world_steps
    learner = st.labelled_learner(
        config, model, st.levels(config), tx, batch=config.batch, steps=steps, ema=config.ema
    )  # fmt: skip
    keys = seed_keys(list(context.seeds))
    return st.trained(context, f"{there.name}, {mode}", learner, there.rows, None, keys, steps)


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
    for index, seed in enumerate(context.seeds):
        params = jax.tree.map(lambda leaf, i=index: leaf[i], predicting)
        for question in there.asked:
            x = images[question][index]
            values = of_world(there, question, x, np.asarray(PREDICT(predictor, params, x).output))
            at = context.at(dataset=there.name, method=method, seed=seed)
            at.record_all({f"{metric}, {question}": value for metric, value in values.items()})
