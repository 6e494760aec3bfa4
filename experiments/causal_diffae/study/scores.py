"""Counterfactual strokes, measured: against the true images, by measured attributes and by anticausal predictors."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causal import causal_diffae as cd
from causal import counterfactual_metrics as cm
from causal import image_scms as scm
from causal.counterfactual_worlds import ASKED, Question, stroke_question, training_strokes
from causal.disentanglement import completeness, dci
from experiments.causal_diffae.config import Config
from experiments.causal_diffae.study import strokes as st
from experiments.lab import Context, Place

UNITS = np.array([0.63, 48.4])
"""Standard deviations by which labels are scaled: thickness in pixels, intensity in grey levels."""
DATASET = "StrokeToy"
VARIABLES = ("t", "i")


class Judge(NamedTuple):
    """What measures images: calibrated rulers, and a predictor per seed."""

    rulers: tuple[cm.Calibration, cm.Calibration]
    """To labels."""
    predictor: cm.Predictor
    params: Any
    """[seeds, ...]."""

    def measured(self, x: Any) -> np.ndarray:
        """[b, 2] labels, by counting pixels."""
        raw = scm.measured_thickness((x + 1) / 2), scm.measured_intensity((x + 1) / 2)
        return np.stack([ruler(values) for ruler, values in zip(self.rulers, raw, strict=True)], axis=1)

    def predicted(self, index: int, x: Any) -> cm.Seen:
        """Labels and features, by the predictor of a seed."""
        params = jax.tree.map(lambda leaf: leaf[index], self.params)
        found: Any = PREDICT(self.predictor, params, x)
        return jax.tree.map(np.asarray, found)


PREDICT = jax.jit(lambda predictor, params, x: predictor.apply(params, x), static_argnums=0)


def judge(config: Config, context: Context, rows: Any, asked: Question) -> Judge:
    """Rulers from the factual test strokes, predictors from the training strokes."""
    labels = np.asarray(asked.labels)
    raw = scm.measured_thickness((asked.x + 1) / 2), scm.measured_intensity((asked.x + 1) / 2)
    fitted = [cm.Calibration.fit(values, column) for values, column in zip(raw, labels.T, strict=True)]
    predictor = cm.Predictor(2)
    learner = cm.predictor_learner(predictor, st.adam(config, config.predictor_steps))
    plain = {name: rows[name] for name in ("x", "labels")}
    params = st.train_plain(config, context, "predictor", learner, plain, config.predictor_steps)
    return Judge((fitted[0], fitted[1]), predictor, params)


def report(context: Context, method: str, asked: Question, by: Judge, images: st.Asked, codes: Any = None) -> None:
    """All metrics of a method, for every seed."""
    for index, seed in enumerate(context.seeds):
        own = {name: np.asarray(x[index]) for name, x in images.items()}
        found = scores(asked, by, index, own) | ({} if codes is None else of_code(asked, np.asarray(codes[index])))
        context.at(dataset=DATASET, method=method, seed=seed).record_all(found)


def scores(asked: Question, by: Judge, index: int, images: dict[str, np.ndarray]) -> dict[str, float]:
    """Numbers of one run, from its images by question."""
    factual, out = by.measured(asked.x), {}
    truth, answers = np.asarray(asked.truth), np.asarray(asked.answers)
    features = by.predicted(index, asked.x).features
    for k, name in enumerate(ASKED):
        x = images[name]
        error = ((x - truth[k]) ** 2).mean() / 4
        measured, seen = by.measured(x), by.predicted(index, x)
        if name == "null":
            out["reconstruction MSE"] = error
            continue
        out[f"cf-MSE {name}"] = error
        off = np.abs(measured - answers[k]).mean(0)
        for j, attribute in enumerate(VARIABLES):
            out[f"r({attribute}), {name}"] = cm.correlation(measured[:, j], answers[k, :, j])
            out[f"MAE({attribute}) measured, {name}"] = off[j]
            out[f"MAE({attribute}) predicted, {name}"] = np.abs(seen.output[:, j] - answers[k, :, j]).mean()
        true_features = by.predicted(index, truth[k]).features
        out[f"Frechet, {name}"] = cm.frechet(seen.features, true_features)
        cause = k - 1
        labels = np.asarray(asked.labels)[:, cause]
        out[f"minimality, {name}"] = cm.minimality(features, seen.features, labels, answers[k, :, cause])
        changed = answers[k] - answers[0]
        out[f"effect, {name}"] = cm.slope(changed[:, cause], (measured - factual)[:, cause])
    held = np.abs(by.measured(images["do(i)"]) - factual)[:, 0].mean() * UNITS[0]
    out["thickness kept under do(i), px"] = held
    if "do(t), new noise" in images:
        out["cf-MSE do(t), random x_T"] = ((images["do(t), new noise"] - truth[1]) ** 2).mean() / 4
    return out


def of_code(asked: Question, z: np.ndarray) -> dict[str, float]:
    """Correlation of block means with labels, and DCI of the code; completeness also of whole blocks."""
    labels = np.asarray(asked.labels)
    means = z.mean(2)
    found = dci(z.reshape(len(z), -1), labels)
    blocks = found.importance.reshape(*z.shape[1:], -1).sum(1)
    return {
        "label correlation": min(cm.correlation(means[:, j], labels[:, j]) for j in range(labels.shape[1])),
        "DCI disentanglement": found.disentanglement,
        "DCI completeness of blocks": completeness(blocks),
        "DCI informativeness": found.informativeness,
    }


class Ready(NamedTuple):
    """What all groups of methods need."""

    rows: Any
    asked: Question
    by: Judge


def ready(config: Config, context: Context) -> Ready:
    """Data, questions, and what measures the answers."""
    rows, asked = training_strokes(config.train), stroke_question(config.test)
    return Ready(rows, asked, judge(config, context, rows, asked))


def group(config: Config, context: Context, *, name: str, prepared: Callable[[], Ready]) -> None:
    """A group of methods."""
    PARTS[name](config, context, name, *prepared())


def nothing(config: Config, context: Context, name: str, rows: Any, asked: Question, by: Judge) -> None:
    """The factual image as the answer to everything, and the true counterfactual as its own ceiling."""
    count = len(context.seeds)
    still = {question: jnp.broadcast_to(asked.x, (count, *asked.x.shape)) for question in ASKED}
    report(context, "do nothing", asked, by, still)
    true = {question: jnp.stack([asked.truth[k]] * count) for k, question in enumerate(ASKED)}
    report(context, "truth", asked, by, true)


def autoencoders(config: Config, context: Context, name: str, rows: Any, asked: Question, by: Judge) -> None:
    """A group of diffusion autoencoders; more is asked of the main method and of DiffAE."""
    causal, _ = st.autoencoders(config)[name]
    ask = st.ask_autoencoder(config, causal)
    for method, params in st.train_group(config, context, name, rows).items():
        images, codes = ask(params, asked)
        report(context, method, asked, by, st.by_name(images, (*ASKED, "do(t), new noise")), codes)
        if method in (st.MAIN, st.DIFFAE):
            composition(config, context, method, causal, params, asked)
        if method == st.MAIN:
            strengths(config, context, method, params, asked, by)
            keep_grid(context, asked, images[0])
            traversals(config, context, method, params, asked, by)
        if method in (st.MAIN, st.WEAK_GAMMA):
            inversions(config, context, method, params, asked)


def composition(config: Config, context: Context, method: str, causal: bool, params: Any, asked: Question) -> None:
    """l1 after null interventions, in [0, 1] units."""
    model, steps = st.autoencoder(config, causal), st.grid(config)
    cycle = jax.jit(jax.vmap(lambda params, x: cd.null_intervention(model, params, steps, x)))
    now = start = jnp.broadcast_to(asked.x, (len(context.seeds), *asked.x.shape))
    for done in range(1, max(config.nulls) + 1):
        now = cycle(params, now)
        if done in config.nulls:
            off = np.abs(np.asarray(now - start)).mean((1, 2, 3, 4)) / 2
            for seed, value in zip(context.seeds, off, strict=True):
                context.at(dataset=DATASET, method=method).record(f"composition l1, {done}", value, seed=seed)


def strengths(config: Config, context: Context, method: str, params: Any, asked: Question, by: Judge) -> None:
    """How much of the asked change of thickness is carried out at each weight of guidance."""
    factual, wanted = by.measured(asked.x)[:, 0], np.asarray(asked.answers[1] - asked.answers[0])[:, 0]
    images = np.asarray(st.guided(config, params, asked))
    for weight, runs in zip(config.weights, images, strict=True):
        for index, seed in enumerate(context.seeds):
            effect = cm.slope(wanted, by.measured(runs[index])[:, 0] - factual)
            error = ((runs[index] - np.asarray(asked.truth[1])) ** 2).mean() / 4
            at = context.at(dataset=DATASET, method=method, seed=seed, weight=weight)
            at.record_all({"effect of do(t)": effect, "cf-MSE do(t)": error})


def inversions(config: Config, context: Context, method: str, params: Any, asked: Question) -> None:
    """Errors of null interventions by mode of inversion."""
    model, steps = st.autoencoder(config, True), st.grid(config)
    for mode in st.INVERSIONS:
        error = functools.partial(cd.inversion_error, model, grid=steps, x=asked.x, mode=mode)
        errors = np.asarray(jax.jit(jax.vmap(error))(params))
        for seed, value in zip(context.seeds, errors, strict=True):
            context.at(dataset=DATASET, method=method, seed=seed).record("inversion MSE", value, mode=mode)


def traversals(config: Config, context: Context, method: str, params: Any, asked: Question, by: Judge) -> None:
    """Measured labels of strokes whose code is moved along one variable, and pictures of the first stroke."""
    model, steps, x = st.autoencoder(config, True), st.grid(config), asked.x[: config.traversed]
    images = np.asarray(jax.jit(jax.vmap(lambda own: cd.traverse(model, own, steps, x, config.places)))(params))
    for index, seed in enumerate(context.seeds):
        at = context.at(dataset=DATASET, method=method, seed=seed)
        for variable, moved in zip(VARIABLES, images[index], strict=True):
            for step, (place, x) in enumerate(zip(config.places, moved, strict=True)):
                means = by.measured(x).mean(0)
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


def labels(config: Config, context: Context, name: str, rows: Any, asked: Question, by: Judge) -> None:
    """Label-conditional diffusion and Diff-SCM, of one training."""
    plain = {key: rows[key] for key in ("x", "labels")}
    tx = st.adam(config, config.steps)
    learner = st.counterfactual_baselines.learner(st.label_model(config), st.levels(config), tx)
    params = st.train_plain(config, context, name, learner, plain, config.steps)
    for method, images in st.ask_labels(config, params, asked).items():
        report(context, method, asked, by, images)


def variational(config: Config, context: Context, name: str, rows: Any, asked: Question, by: Judge) -> None:
    """CausalVAE and SCM-VAE."""
    plain = {key: rows[key] for key in ("x", "labels")}
    for method, known in (("CausalVAE", False), ("SCM-VAE", True)):
        learner = st.causal_vae.learner(st.vae(config, known), st.adam(config, config.vae_steps))
        params = st.train_plain(config, context, method, learner, plain, config.vae_steps)
        report(context, method, asked, by, *st.ask_vae(config, known, params, asked))


PARTS = {"nothing": nothing, "causal": autoencoders, "plain": autoencoders, "labels": labels, "vae": variational}
