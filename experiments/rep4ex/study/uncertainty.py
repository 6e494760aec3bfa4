"""How far predictions of ``rep4ex`` may be believed, and what other regressions make of the same codes."""

import dataclasses
from typing import Any

import jax
import numpy as np
import scipy.stats

from causal import rep4ex as rep
from experiments.lab.system import Context
from experiments.rep4ex.config import Config
from experiments.rep4ex.study.extrapolation import DATASET, ORACLE, OURS, Setting, main_codes, mse, settings
from experiments.rep4ex.study.outcomes import alternatives, uncontrolled


def uncertainty(config: Config, context: Context) -> None:
    """The main codes once more; encoders of resampled rows and of folds."""
    worlds = settings(config, context)
    for each, method, code in main_codes(config, context, worlds):
        step = each.step(config, code)
        diagnose(config, context, each, method, step)
        by_confounding(context, each, method, step)
        if method == OURS and each.seed in context.seeds[: config.refit_worlds]:
            both_steps(config, context, each, step)
    for each in worlds:
        folds(config, context, each)


def diagnose(config: Config, context: Context, each: Setting, method: str, step: rep.SecondStep) -> None:
    """Coverage of intervals, support, strength of the first stage; the other regressions of step 2."""
    found, report, away = step.effect(each.actions), step.strength(), step.outside(each.actions)
    ranks: Any = scipy.stats.spearmanr(away, (found - each.truth) ** 2)
    measured = {
        "share outside the support": away.mean(),
        "rank correlation of error with share outside": ranks.statistic,
        "least relative singular value": report.relative[-1],
        "least F statistic": report.least_f,
        "no control function": mse(uncontrolled(step).effect(each.actions), each.truth),
    }
    if method in (OURS, ORACLE):
        low, high = step.interval(jax.random.key(1), each.actions, config.bootstrap)
        measured["coverage of 95 % intervals"] = np.mean((low <= each.truth) & (each.truth <= high))
        measured["mean width of intervals"] = np.mean(high - low)
    if method == OURS:
        other = alternatives(config, step, each.actions)
        measured |= {name: mse(value, each.truth) for name, value in other.items()}
    for metric, value in measured.items():
        note(context, each, method, metric, value)


def note(context: Context, each: Setting, method: str, metric: str, value: Any) -> None:
    """A diagnostic of a code."""
    context.record(
        dataset=DATASET, method=method, metric=metric, seed=each.seed, value=float(value), kind="diagnostics"
    )


def by_confounding(context: Context, each: Setting, method: str, step: rep.SecondStep) -> None:
    """Errors as the outcome's noise depends more on the latents'."""
    for c in (0.0, 0.5, 1.5, 3.0):
        world = each.case.world._replace(design=each.case.world.design._replace(confounding=c))
        y = rep.Outcomes().draw(world, each.case.sample, each.case.seed)
        found = dataclasses.replace(step, y=y).effect(each.actions)
        context.record(
            dataset=DATASET, method=method, metric="MSE by confounding", seed=each.seed, confounding=c,
            kind="confounding", value=mse(found, each.truth),
        )  # fmt: skip


def estimator(config: Config, restarts: int) -> rep.Rep4Ex:
    """Both steps in the library's form."""
    return rep.Rep4Ex(
        rep.Autoencoder(2, config.observed, config.hidden), config.lam, restarts, config.outcome_steps, config.batch,
        config.learning_rate, second=rep.Ridge(config.features, config.length, config.ridge),
    )  # fmt: skip


def both_steps(config: Config, context: Context, each: Setting, step: rep.SecondStep) -> None:
    """Intervals about the main estimate from encoders and step 2 on rows drawn with replacement."""
    sample = each.case.sample
    refits = estimator(config, config.refit_restarts).refit(
        jax.random.key(each.case.seed), sample.x, sample.a, each.y, config.refits,
        workdir=context.workdir / f"refits-{each.seed}", progress=context.progress(f"rep4ex: refits {each.seed}"),
    )  # fmt: skip
    low, high = rep.refit_interval(step.effect(each.actions), refits, each.actions)
    covered = np.mean((low <= each.truth) & (each.truth <= high))
    note(context, each, OURS, "coverage of 95 % intervals, both steps", covered)
    note(context, each, OURS, "mean width of intervals, both steps", np.mean(high - low))


def folds(config: Config, context: Context, each: Setting) -> None:
    """Errors where no row is in both steps."""
    sample = each.case.sample
    fits = estimator(config, config.restarts).cross_fit(
        jax.random.key(each.case.seed), sample.x, sample.a, each.y, config.folds,
        workdir=context.workdir / f"folds-{each.seed}", progress=context.progress(f"rep4ex: folds {each.seed}"),
    )  # fmt: skip
    note(context, each, OURS, "cross-fitted", mse(rep.cross_fitted(fits, each.actions), each.truth))
