"""Counterfactual strokes, measured: against the true images, by measured attributes and by anticausal predictors."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causal import causal_diffae as cd
from causal import counterfactual_answers
from causal import counterfactual_metrics as cm
from causal.counterfactual_answers import VARIABLES
from causal.counterfactual_worlds import ASKED, Question, stroke_question, training_strokes
from experiments.causal_diffae.config import Config
from experiments.causal_diffae.study import strokes as st
from experiments.lab import Context, Place

DATASET = "StrokeToy"
PREDICT = jax.jit(lambda predictor, params, x: predictor.apply(params, x), static_argnums=0)


class Ready(NamedTuple):
    """What all groups of methods need: data, questions, and what measures the answers."""

    rows: Any
    asked: Question
    rulers: counterfactual_answers.Rulers
    """From the factual test strokes."""
    predictor: cm.Predictor
    params: Any
    """[seeds, ...], from the training strokes."""

    def see(self, index: int, x: Any) -> cm.Seen:
        """Labels and features, by the predictor of a seed."""
        found: Any = PREDICT(self.predictor, jax.tree.map(lambda leaf: leaf[index], self.params), x)
        return jax.tree.map(np.asarray, found)

    @property
    def plain(self) -> dict[str, Any]:
        """Images and labels for training."""
        return {name: self.rows[name] for name in ("x", "labels")}


def ready(config: Config, context: Context) -> Ready:
    """Draws the data and trains the predictors."""
    rows, asked = training_strokes(config.train), stroke_question(config.test)
    there = Ready(rows, asked, counterfactual_answers.Rulers.fit(asked.x, asked.labels), cm.Predictor(2), None)
    learner = cm.predictor_learner(there.predictor, st.adam(config, config.predictor_steps))
    params = st.train_plain(config, context, "predictor", learner, there.plain, config.predictor_steps)
    return there._replace(params=params)


def report(context: Context, method: str, there: Ready, images: st.Asked, codes: Any = None) -> None:
    """All metrics of a method, for every seed."""
    for index, seed in enumerate(context.seeds):
        own = {name: np.asarray(x[index]) for name, x in images.items()}
        see = functools.partial(there.see, index)
        found = counterfactual_answers.of_strokes(there.asked, own, there.rulers, see)
        if codes is not None:
            found |= counterfactual_answers.of_code(np.asarray(codes[index]), np.asarray(there.asked.labels))
        context.at(dataset=DATASET, method=method, seed=seed).record_all(found)


def each(context: Context, method: str, metric: str, values: Iterable[Any], **place: Any) -> None:
    """Records a number for every seed."""
    for seed, value in zip(context.seeds, values, strict=True):
        context.at(dataset=DATASET, method=method, seed=seed).record(metric, value, **place)


def group(config: Config, context: Context, *, name: str, prepared: Callable[[], Ready]) -> None:
    """A group of methods."""
    PARTS[name](config, context, name, prepared())


def nothing(config: Config, context: Context, name: str, there: Ready) -> None:
    """The factual image as the answer to everything, and the true counterfactual as its own ceiling."""
    true = [jnp.stack([image] * len(context.seeds)) for image in there.asked.truth]
    report(context, "do nothing", there, dict.fromkeys(ASKED, true[0]))
    report(context, "truth", there, dict(zip(ASKED, true, strict=True)))


def autoencoders(config: Config, context: Context, name: str, there: Ready) -> None:
    """A group of diffusion autoencoders; more is asked of the main method and of DiffAE."""
    causal, _ = st.autoencoders(config)[name]
    ask = st.ask_autoencoder(config, causal)
    for method, params in st.train_group(config, context, name, there.rows).items():
        images, codes = ask(params, there.asked)
        report(context, method, there, st.by_name(images, (*ASKED, "do(t), new noise")), codes)
        more = [composition] if method in (st.MAIN, st.DIFFAE) else []
        more += [strengths, traversals] if method == st.MAIN else []
        more += [inversions] if method in (st.MAIN, st.WEAK_GAMMA) else []
        for measure in more:
            measure(config, context, method, params, there)
        if method == st.MAIN:
            keep_grid(context, there.asked, images[0])


def composition(config: Config, context: Context, method: str, params: Any, there: Ready) -> None:
    """l1 after null interventions, in [0, 1] units."""
    model, steps = st.autoencoder(config, method != st.DIFFAE), st.grid(config)
    cycle = jax.jit(jax.vmap(lambda params, x: cd.null_intervention(model, params, steps, x)))
    start = jnp.broadcast_to(there.asked.x, (len(context.seeds), *there.asked.x.shape))
    found = cm.composition(functools.partial(cycle, params), start, config.nulls, axis=(1, 2, 3, 4))
    for times, off in found.items():
        each(context, method, f"composition l1, {times}", off / 2)


def strengths(config: Config, context: Context, method: str, params: Any, there: Ready) -> None:
    """How much of the asked change of thickness is carried out at each weight of guidance."""
    asked, rulers = there.asked, there.rulers
    factual, wanted = rulers(asked.x)[:, 0], np.asarray(asked.answers[1] - asked.answers[0])[:, 0]
    for weight, runs in zip(config.weights, np.asarray(st.guided(config, params, asked)), strict=True):
        effects = [cm.slope(wanted, rulers(x)[:, 0] - factual) for x in runs]
        each(context, method, "effect of do(t)", effects, weight=weight)
        errors = [((x - np.asarray(asked.truth[1])) ** 2).mean() / 4 for x in runs]
        each(context, method, "cf-MSE do(t)", errors, weight=weight)


def inversions(config: Config, context: Context, method: str, params: Any, there: Ready) -> None:
    """Errors of null interventions by mode of inversion."""
    model, steps = st.autoencoder(config, True), st.grid(config)
    for mode in st.INVERSIONS:
        error = functools.partial(cd.inversion_error, model, grid=steps, x=there.asked.x, mode=mode)
        each(context, method, "inversion MSE", np.asarray(jax.jit(jax.vmap(error))(params)), mode=mode)


def traversals(config: Config, context: Context, method: str, params: Any, there: Ready) -> None:
    """Measured labels of strokes whose code is moved along one variable, and pictures of the first stroke."""
    model, steps, x = st.autoencoder(config, True), st.grid(config), there.asked.x[: config.traversed]
    images = np.asarray(jax.jit(jax.vmap(lambda own: cd.traverse(model, own, steps, x, config.places)))(params))
    for index, seed in enumerate(context.seeds):
        at = context.at(dataset=DATASET, method=method, seed=seed)
        for variable, moved in zip(VARIABLES, images[index], strict=True):
            for step, (place, x) in enumerate(zip(config.places, moved, strict=True)):
                means = there.rulers(x).mean(0)
                at.record_all({"measured t": means[0], "measured i": means[1]}, moved=variable, place=place)
                if index == 0:
                    keep_picture(at, f"do({variable}) traversed", step, (x[0] + 1) / 2)


def keep_grid(context: Context, asked: Question, images: Any, count: int = 6) -> None:
    """Pixels of the first test strokes, their true and their generated counterfactuals, for the figure."""
    truth = np.asarray(asked.truth)
    rows = {"factual": truth[0], "true do(t)": truth[1], "do(t)": images[1], "true do(i)": truth[2], "do(i)": images[2]}
    at = context.at(dataset=DATASET, method=st.MAIN, seed=context.seeds[0])
    for name, pictures in rows.items():
        for example, picture in enumerate(pictures[:count]):
            keep_picture(at, name, example, (np.asarray(picture) + 1) / 2)


def keep_picture(at: Place, name: str, example: int, shown: Any) -> None:
    """An image in [0, 1] as a record: its mean, with the pixels in hexadecimal."""
    levels = np.clip(np.asarray(shown)[..., :1] * 255, 0, 255).astype(np.uint8)
    pixels = levels.tobytes().hex()
    at.record("picture", levels.mean(), picture=name, example=example, width=levels.shape[1], pixels=pixels)


def labels(config: Config, context: Context, name: str, there: Ready) -> None:
    """Label-conditional diffusion and Diff-SCM, of one training."""
    tx = st.adam(config, config.steps)
    learner = st.counterfactual_baselines.learner(st.label_model(config), st.levels(config), tx)
    params = st.train_plain(config, context, name, learner, there.plain, config.steps)
    for method, images in st.ask_labels(config, params, there.asked).items():
        report(context, method, there, images)


def variational(config: Config, context: Context, name: str, there: Ready) -> None:
    """CausalVAE and SCM-VAE."""
    for method, known in (("CausalVAE", False), ("SCM-VAE", True)):
        learner = st.causal_vae.learner(st.vae(config, known), st.adam(config, config.vae_steps))
        params = st.train_plain(config, context, method, learner, there.plain, config.vae_steps)
        report(context, method, there, *st.ask_vae(config, known, params, there.asked))


PARTS = {"nothing": nothing, "causal": autoencoders, "plain": autoencoders, "labels": labels, "vae": variational}
