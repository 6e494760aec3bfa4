"""E[Y | do(a)] beyond the actions' support: from true latents, from codes, and without either."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from causal import rep4ex as rep
from experiments.lab import Context, Place
from experiments.rep4ex.config import Config
from experiments.rep4ex.study.training import MSE, OUTER, cases_of, coder, ridge, train

FIRST_SEED = 50
DATASET, FRESH = "extrapolation, d = 2", "extrapolation, fresh worlds"
OFFSET = 100
"""Of the seeds of fresh worlds, on which nothing was chosen, from those of the main comparison."""
CONDITIONAL = "MSE of E[Y|X,do(a)]"
OURS, ORACLE, VANILLA = "Rep4Ex-CF", "Rep4Ex-CF-Oracle", "AE-Vanilla + CF"
CHOSEN = "settings by outer actions"
LENGTHS, RIDGES = (2.5, 5.0), (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)

World = tuple[rep.Question, Place]
"""What is asked of a world, and the place of its numbers."""
Coded = Iterator[tuple[rep.Question, Place, rep.Code]]


def questions(config: Config, context: Context, dataset: str = DATASET, first: int = FIRST_SEED) -> list[World]:
    """Those of all seeds; test actions are the same in all."""
    outcomes, design = rep.Outcomes(), rep.Design(2, config.observed)
    actions = rep.outside(0, config.actions, 2, design.gamma, OUTER)
    cases = cases_of(config, context.seeds, design, config.outcome_rows, first=first)
    asked = (rep.ask(case, outcomes, actions, config.fresh, OUTER) for case in cases)
    return [(each, context.at(dataset=dataset, seed=seed)) for seed, each in zip(context.seeds, asked, strict=True)]


def extrapolation(config: Config, context: Context) -> None:
    """The methods of the claim and regressions without codes, on the same worlds; curves in the first."""
    worlds = questions(config, context)
    (first, at), *_ = worlds
    note_curve(at.at(method="truth"), functools.partial(rep.Outcomes().under_intervention, first.case.world))
    for each, at in worlds:
        without_codes(config, each, at, each is first)
    for each, at, code in main_codes(config, context, worlds):
        note_distances(each, at, note_errors(config, each, at, code))
        if each is first:
            note_curve(at, each.step(code, ridge(config)).effect)


def rivals(config: Config, context: Context) -> None:
    """Step 2 on other codes."""
    worlds, vae = questions(config, context), rep.Vae(2, config.observed, config.hidden)
    for each, at in worlds:
        note_errors(config, each, at.at(method="PCA + CF"), each.case.components())
    for method, other in (("VAE + CF", vae), ("iVAE + CF", vae.clone(auxiliary=True))):
        for found in coded(config, context, method.replace(" ", ""), worlds, {method: 0.0}, coder=other):
            note_errors(config, *found)


def main_codes(config: Config, context: Context, worlds: Sequence[World], name: str = OURS) -> Coded:
    """True latents, and the codes of autoencoders with and without the restriction."""
    yield from ((each, at.at(method=ORACLE), lambda sample: sample.z) for each, at in worlds)
    lams = {VANILLA: 0.0, OURS: config.lam}
    yield from coded(config, context, name, worlds, lams, restarts=config.restarts)


def coded(
    config: Config, context: Context, name: str, worlds: Sequence[World], lams: dict[str, float], **way: Any
) -> Coded:
    """Trained codes, a method per lambda."""
    way = {"coder": coder(config), "steps": config.outcome_steps} | way
    trained = train(config, context, name, [each.case for each, _ in worlds], tuple(lams.values()), **way)
    for run, world in enumerate(trained.world):
        each, at = worlds[world]
        yield each, at.at(method=[*lams][run % len(lams)]), trained.code(run)


def note_errors(config: Config, each: rep.Question, at: Place, code: rep.Code) -> np.ndarray:
    """Notes the errors of step 2 on a code; returns E[Y | do(a)] for the test actions."""
    step = each.step(code, ridge(config))
    found, given_x = step.effect(each.actions), step.effect_given(code(each.shifted), each.shifted.a)
    at.record_all({MSE: each.error(found), CONDITIONAL: rep.mse(given_x, each.given_x)})
    note_r2(each, at, code)
    return found


def note_r2(each: rep.Question, at: Place, code: rep.Code) -> None:
    """R^2 of the latents, where they are not the code."""
    if at.place["method"] != ORACLE:
        at.record("R^2", each.case.recovered(code).r2)


def without_codes(config: Config, each: rep.Question, at: Place, is_first: bool) -> None:
    """Regressions on actions, and for shifted rows on X or on both."""
    sample, shifted, way = each.case.sample, each.shifted, rep.Descent(*config.regression)
    fits = {
        "OLS on A": rep.fit_linear(sample.a, each.y), "MLP on A": rep.fit_network(sample.a, each.y, way),
        "engression on A": rep.fit_engression(sample.a, each.y, way),
    }  # fmt: skip
    for method, predict in fits.items():
        here, found = at.at(method=method), predict(each.actions)
        here.record(MSE, each.error(found))
        note_distances(each, here, found)
        if is_first and method != "engression on A":
            note_curve(here, predict)
    inputs = {"X": (sample.x, shifted.x), "X and A": tuple(np.hstack([s.x, s.a]) for s in (sample, shifted))}
    for name, (rows, new) in inputs.items():
        found = rep.fit_network(rows, each.y, way)(new)
        at.record(CONDITIONAL, rep.mse(found, each.given_x), method=f"MLP on {name}")


def note_distances(each: rep.Question, at: Place, found: np.ndarray) -> None:
    """The error by distance of the action from the support, in bands."""
    for distance, value in each.error_by_distance(found).items():
        at.record("MSE by distance", value, kind="distance", distance=distance)


def note_curve(at: Place, predict: Callable[[np.ndarray], np.ndarray]) -> None:
    """Predictions along the first action."""
    line = np.linspace(-2.5, 2.5, 21)
    for a, value in zip(line, predict(np.stack([line, np.zeros_like(line)], axis=1)), strict=True):
        at.record("E[Y|do(a, 0)]", value, a=float(a), kind="curve")


def oracle(config: Config, context: Context) -> None:
    """Step 2 on the true latents: by support, with and without the control function, by confounding."""
    steep, plain = rep.Outcomes(frequency=1.0), rep.Outcomes()
    designs = [rep.Design(d, config.observed, 1.2, gamma) for d in (1, 2) for gamma in config.supports]
    asked = [(design, steep, config.rows, 2.5) for design in designs]
    confounded = (rep.Design(2, config.observed, confounding=c) for c in (0.0, 1.5))
    asked += [(design, plain, config.outcome_rows, OUTER) for design in confounded]
    for repeat, (design, outcomes, rows, outer) in itertools.product(range(config.oracle_seeds), asked):
        world, sample, y = rep.gen2(1_000 + repeat, rows, design, outcomes)
        actions = rep.outside(repeat, config.actions, design.d, design.gamma, outer)
        step = rep.SecondStep.of(sample.z, sample.a, y, ridge(config))
        found = {
            ORACLE: step.effect(actions), "oracle, no control function": step.uncontrolled().effect(actions),
            "OLS on A": direct_linear(sample.a, y, actions),
        }  # fmt: skip
        place = {"gamma": design.gamma, "alpha": design.alpha, "confounding": design.confounding}
        at = context.at(dataset=f"oracle, d = {design.d}", seed=repeat, part="oracle", **place)
        for method, values in found.items():
            at.record(MSE, rep.mse(values, outcomes.under_intervention(world, actions)), method=method)


def direct_linear(a: np.ndarray, y: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Least squares of Y on (1, A)."""
    rows = rep.Rows(jnp.asarray(a, jnp.float32), jnp.asarray(y, jnp.float32))
    return np.asarray(rep.linear(rows, jnp.asarray(actions, jnp.float32)))


def confirmation(config: Config, context: Context) -> None:
    """The oracle and both autoencoders on fresh worlds, with fixed settings of step 2 and with those chosen by it.

    That the ridge decides how far errors of a code carry was seen on the worlds of the main comparison. Whether
    choosing it by outer actions mends that is asked here, of other worlds and of encoders of their own.
    """
    worlds = questions(config, context, FRESH, FIRST_SEED + OFFSET)
    for each, at in worlds:
        at.record(MSE, each.error(direct_linear(each.case.sample.a, each.y, each.actions)), method="OLS on A")
    choices = [rep.Ridge(config.features, x, y) for x in LENGTHS for y in RIDGES]
    for each, at, code in main_codes(config, context, worlds, "confirmation"):
        step, method = each.step(code, ridge(config)), at.place["method"]
        chosen = rep.best_at_outer_actions(step, choices)
        for name, one in ((method, step), (f"{method}, {CHOSEN}", chosen)):
            at.record(MSE, each.error(one.effect(each.actions)), method=name)
        picked = {"chosen length": chosen.settings.length, "log10 of chosen ridge": np.log10(chosen.settings.ridge)}
        at.record_all(picked, kind="choice")
        note_r2(each, at, code)
