"""How far predictions of ``rep4ex`` may be believed, and what other regressions make of the same codes."""

from typing import Any

import numpy as np
import scipy.stats

from causal import rep4ex as rep
from experiments.rep4ex_extrapolation import DATASET, ORACLE, OURS, Setting, main_codes, mse, settings
from experiments.rep4ex_outcomes import Data, alternatives, interval, interventional, strength, support
from experiments.rep4ex_settings import Config
from experiments.system import Context


def uncertainty(config: Config, context: Context) -> None:
    """The main codes once more."""
    for each, method, code in main_codes(config, context, settings(config, context)):
        data = each.data(code)
        diagnose(config, context, each, method, data)
        by_confounding(config, context, each, method, data)


def diagnose(config: Config, context: Context, each: Setting, method: str, data: Data) -> None:
    """Coverage of intervals, support, strength of the first stage; the other regressions of step 2."""
    found = interventional(config, data, each.actions)
    report, away = strength(data.w, data.a), support(data, each.actions)
    ranks: Any = scipy.stats.spearmanr(away, (found - each.truth) ** 2)
    measured = {
        "share outside the support": away.mean(),
        "rank correlation of error with share outside": ranks.statistic,
        "least relative singular value": report.relative[-1],
        "least F statistic": report.least_f,
        "no control function": mse(interventional(config, data, each.actions, control=False), each.truth),
    }
    if method in (OURS, ORACLE):
        low, high = interval(config, data, each.actions)
        measured["coverage of 95 % intervals"] = np.mean((low <= each.truth) & (each.truth <= high))
        measured["mean width of intervals"] = np.mean(high - low)
    if method == OURS:
        other = alternatives(config, data, each.actions)
        measured |= {name: mse(value, each.truth) for name, value in other.items()}
    for metric, value in measured.items():
        context.record(
            dataset=DATASET, method=method, metric=metric, seed=each.seed, value=float(value), kind="diagnostics"
        )


def by_confounding(config: Config, context: Context, each: Setting, method: str, data: Data) -> None:
    """Errors as the outcome's noise depends more on the latents'."""
    for c in (0.0, 0.5, 1.5, 3.0):
        world = each.case.world._replace(design=each.case.world.design._replace(confounding=c))
        y = rep.Outcomes().draw(world, each.case.sample, each.case.seed)
        found = interventional(config, data._replace(y=y), each.actions)
        context.record(
            dataset=DATASET, method=method, metric="MSE by confounding", seed=each.seed, confounding=c,
            kind="confounding", value=mse(found, each.truth),
        )  # fmt: skip
