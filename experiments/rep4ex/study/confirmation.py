"""Step 2 of ``rep4ex`` with settings chosen by extrapolation, on worlds that nothing was chosen on.

That the ridge decides how far errors of a code carry was seen on the worlds of the main comparison. Whether choosing it
by outer actions mends that is asked here, of other worlds and of encoders of their own.
"""

import numpy as np

from causal import rep4ex as rep
from experiments.lab.system import Context
from experiments.rep4ex.config import Config
from experiments.rep4ex.study.extrapolation import FIRST_SEED, MSE, ORACLE, OURS, VANILLA, Setting, mse, setting
from experiments.rep4ex.study.oracle import direct_linear
from experiments.rep4ex.study.training import Choice, make_case, recovered, train

DATASET = "extrapolation, fresh worlds"
OFFSET = 100
"""Of these worlds' seeds from those of the main comparison."""
LENGTHS, RIDGES = (2.5, 5.0), (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
CHOSEN = "settings by outer actions"


def confirmation(config: Config, context: Context) -> None:
    """The oracle and both autoencoders, with the main comparison's settings and with chosen ones."""
    seeds = [FIRST_SEED + OFFSET + seed for seed in context.seeds]
    design = rep.Design(2, config.observed)
    worlds = [setting(config, make_case(config, seed, design, config.outcome_rows)) for seed in seeds]
    choice = Choice((0.0, config.lam), rep.Autoencoder(2, config.observed, config.hidden))
    cases = [each.case for each in worlds]
    trained = train(config, context, "confirmation", cases, config.outcome_steps, choice)
    for each in worlds:
        ols = direct_linear(each.case.sample.a, each.y, each.actions)
        note(context, each, "OLS on A", MSE, mse(ols, each.truth))
        judge(config, context, each, ORACLE, each.case.sample.z)
    for run, world in enumerate(trained.world):
        each, method = worlds[world], OURS if trained.lam[run] else VANILLA
        sample, fresh = each.case.sample, each.case.fresh
        judge(config, context, each, method, trained.codes(run, sample.x, sample.a))
        r2 = recovered(trained.codes(run, fresh.x, fresh.a), fresh.z).r2
        note(context, each, method, "R^2", float(r2))


def judge(config: Config, context: Context, each: Setting, method: str, w: np.ndarray) -> None:
    """Errors with fixed and with chosen settings."""
    step = each.step(config, lambda _: w)
    chosen = rep.best_at_outer_actions(step, choices(config))
    for name, one in ((method, step), (f"{method}, {CHOSEN}", chosen)):
        note(context, each, name, MSE, mse(one.effect(each.actions), each.truth))
    picked = {"chosen length": chosen.settings.length, "log10 of chosen ridge": np.log10(chosen.settings.ridge)}
    for metric, value in picked.items():
        note(context, each, method, metric, float(value), kind="choice")


def choices(config: Config) -> list[rep.Ridge]:
    """All pairs of length-scale and ridge."""
    return [rep.Ridge(config.features, length, ridge) for length in LENGTHS for ridge in RIDGES]


def note(context: Context, each: Setting, method: str, metric: str, value: float, **place: str) -> None:
    """A record; seeds count from 0 here too."""
    context.record(dataset=DATASET, method=method, metric=metric, seed=each.seed - OFFSET, value=value, **place)
