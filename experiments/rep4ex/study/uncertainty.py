"""How far predictions of ``rep4ex`` may be believed, and what other regressions make of the same codes."""

import dataclasses
from typing import Any

import jax
import numpy as np
import scipy.stats

from causal import rep4ex as rep
from experiments.lab import Context, Place
from experiments.rep4ex.config import Config
from experiments.rep4ex.study.extrapolation import ORACLE, OURS, Setting, main_codes, settings
from experiments.rep4ex.study.training import coder, mse, ridge


def uncertainty(config: Config, context: Context) -> None:
    """The main codes once more; encoders of resampled rows and of folds."""
    for each, method, code in main_codes(config, context, settings(config, context)):
        at, step = each.at.at(method=method, kind="diagnostics"), each.step(config, code)
        diagnose(config, at, each, method, step)
        by_confounding(each, method, step)
        if method == OURS:
            both_steps(config, context, at, each, step)


def note_intervals(at: Place, each: Setting, low: np.ndarray, high: np.ndarray, of: str = "") -> None:
    """Coverage and width."""
    at.record("coverage of 95 % intervals" + of, np.mean((low <= each.truth) & (each.truth <= high)))
    at.record("mean width of intervals" + of, np.mean(high - low))


def diagnose(config: Config, at: Place, each: Setting, method: str, step: rep.SecondStep) -> None:
    """Coverage of intervals, support, strength of the first stage; the other regressions of step 2."""
    found, report, away = step.effect(each.actions), step.strength(), step.outside(each.actions)
    ranks: Any = scipy.stats.spearmanr(away, (found - each.truth) ** 2)
    at.record_all({
        "share outside the support": away.mean(),
        "rank correlation of error with share outside": ranks.statistic,
        "least relative singular value": report.relative[-1],
        "least F statistic": report.least_f,
        "no control function": mse(step.uncontrolled().effect(each.actions), each.truth),
    })  # fmt: skip
    if method in (OURS, ORACLE):
        note_intervals(at, each, *step.interval(jax.random.key(1), each.actions, config.bootstrap))
    if method == OURS:
        others = rep.other_effects(step, each.actions)
        others["two networks"] = rep.networks_effect(step, each.actions, rep.Descent(*config.regression))
        at.record_all({name: mse(value, each.truth) for name, value in others.items()})


def by_confounding(each: Setting, method: str, step: rep.SecondStep) -> None:
    """Errors as the outcome's noise depends more on the latents'."""
    for c in (0.0, 0.5, 1.5, 3.0):
        world = each.case.world._replace(design=each.case.world.design._replace(confounding=c))
        y = rep.Outcomes().draw(world, each.case.sample, each.case.seed)
        at = each.at.at(method=method, kind="confounding", confounding=c)
        at.record("MSE by confounding", mse(dataclasses.replace(step, y=y).effect(each.actions), each.truth))


def both_steps(config: Config, context: Context, at: Place, each: Setting, step: rep.SecondStep) -> None:
    """Intervals about the main estimate from encoders of resampled rows; errors where no row is in both steps."""
    rows, seed = (jax.random.key(each.case.seed), each.case.sample.x, each.case.sample.a, each.y), at.place["seed"]
    rest = (config.outcome_steps, config.batch, config.learning_rate)

    def way(restarts: int) -> rep.Rep4Ex:
        return rep.Rep4Ex(coder(config), config.lam, restarts, *rest, second=ridge(config))

    def where(name: str) -> dict[str, Any]:
        return {"workdir": context.workdir / name, "progress": context.progress(f"rep4ex: {name}")}

    if seed in context.seeds[: config.refit_worlds]:
        refits = way(config.refit_restarts).refit(*rows, draws=config.refits, **where(f"refits-{seed}"))
        low, high = rep.refit_interval(step.effect(each.actions), refits, each.actions)
        note_intervals(at, each, low, high, ", both steps")
    fits = way(config.restarts).cross_fit(*rows, folds=config.folds, **where(f"folds-{seed}"))
    at.record("cross-fitted", mse(rep.cross_fitted(fits, each.actions), each.truth))
