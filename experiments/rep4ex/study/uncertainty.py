"""How far predictions of ``rep4ex`` may be believed, and what other regressions make of the same codes."""

import dataclasses
from typing import Any

import jax
import numpy as np
import scipy.stats

from causal import rep4ex as rep
from experiments.lab import Context, Place
from experiments.rep4ex.config import Config
from experiments.rep4ex.study.extrapolation import ORACLE, OURS, main_codes, questions
from experiments.rep4ex.study.training import coder, ridge


def uncertainty(config: Config, context: Context) -> None:
    """The main codes once more; encoders of resampled rows and of folds."""
    for each, place, code in main_codes(config, context, questions(config, context)):
        at, step = place.at(kind="diagnostics"), each.step(code, ridge(config))
        diagnose(config, at, each, step)
        for c in (0.0, 0.5, 1.5, 3.0):
            found = dataclasses.replace(step, y=each.confounded(c)).effect(each.actions)
            place.record("MSE by confounding", each.error(found), kind="confounding", confounding=c)
        if at.place["method"] == OURS:
            both_steps(config, context, at, each, step)


def note_intervals(at: Place, each: rep.Question, low: np.ndarray, high: np.ndarray, of: str = "") -> None:
    """Coverage and width."""
    at.record("coverage of 95 % intervals" + of, np.mean((low <= each.truth) & (each.truth <= high)))
    at.record("mean width of intervals" + of, np.mean(high - low))


def diagnose(config: Config, at: Place, each: rep.Question, step: rep.SecondStep) -> None:
    """Coverage of intervals, support, strength of the first stage; the other regressions of step 2."""
    found, report, away = step.effect(each.actions), step.strength(), step.outside(each.actions)
    ranks: Any = scipy.stats.spearmanr(away, (found - each.truth) ** 2)
    at.record_all({
        "share outside the support": away.mean(), "rank correlation of error with share outside": ranks.statistic,
        "least relative singular value": report.relative[-1], "least F statistic": report.least_f,
        "no control function": each.error(step.uncontrolled().effect(each.actions)),
    })  # fmt: skip
    if at.place["method"] in (OURS, ORACLE):
        note_intervals(at, each, *step.interval(jax.random.key(1), each.actions, config.bootstrap))
    if at.place["method"] == OURS:
        others = rep.other_effects(step, each.actions)
        others["two networks"] = rep.networks_effect(step, each.actions, rep.Descent(*config.regression))
        at.record_all({name: each.error(value) for name, value in others.items()})


def both_steps(config: Config, context: Context, at: Place, each: rep.Question, step: rep.SecondStep) -> None:
    """Intervals about the main estimate from encoders of resampled rows; errors where no row is in both steps."""
    sample, seed = each.case.sample, at.place["seed"]
    rows, rest = (sample.x, sample.a, each.y), (config.outcome_steps, config.batch, config.learning_rate)

    def fits(kind: str, restarts: int, **how: int) -> list[rep.Fitted]:
        method = rep.Rep4Ex(coder(config), config.lam, restarts, *rest, second=ridge(config))
        name, fit = f"{kind}-{seed}", method.refit if kind == "refits" else method.cross_fit
        where = {"workdir": context.workdir / name, "progress": context.progress(f"rep4ex: {name}")}
        return fit(jax.random.key(each.case.seed), *rows, **how, **where)

    if seed in context.seeds[: config.refit_worlds]:
        refits = fits("refits", config.refit_restarts, draws=config.refits)
        low, high = rep.refit_interval(step.effect(each.actions), refits, each.actions)
        note_intervals(at, each, low, high, ", both steps")
    folds = fits("folds", config.restarts, folds=config.folds)
    at.record("cross-fitted", each.error(rep.cross_fitted(folds, each.actions)))
