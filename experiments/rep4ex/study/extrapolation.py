"""E[Y | do(a)] beyond the actions' support: from true latents, from codes, and without either."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from causal import rep4ex as rep
from experiments.lab import Context, Place
from experiments.rep4ex.config import Config
from experiments.rep4ex.study.training import MSE, OUTER, cases_of, coder, direct_linear, mse, second_step, train

FIRST_SEED = 50
DATASET, FRESH = "extrapolation, d = 2", "extrapolation, fresh worlds"
OFFSET = 100
"""Of the seeds of fresh worlds, on which nothing was chosen, from those of the main comparison."""
CONDITIONAL = "MSE of E[Y|X,do(a)]"
OURS, ORACLE, VANILLA = "Rep4Ex-CF", "Rep4Ex-CF-Oracle", "AE-Vanilla + CF"
CHOSEN = "settings by outer actions"
LENGTHS, RIDGES = (2.5, 5.0), (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


class Setting(NamedTuple):
    """A case with an outcome, what is asked of it, and the place of its numbers."""

    case: rep.Case
    y: np.ndarray
    actions: np.ndarray
    truth: np.ndarray
    """E[Y | do(A = a)]."""
    shifted: rep.Sample
    """Fresh rows with actions outside of the support."""
    given_x: np.ndarray
    """l(z) + E[U | V] of these, which X and A tell."""
    at: Place

    def step(self, config: Config, code: rep.Code) -> rep.SecondStep:
        """Step 2 on the training rows' codes."""
        return second_step(config, code(self.case.sample), self.case.sample.a, self.y)


def settings(config: Config, context: Context, dataset: str = DATASET, first: int = FIRST_SEED) -> list[Setting]:
    """The worlds of all seeds; test actions are the same in all."""
    outcomes, design = rep.Outcomes(), rep.Design(2, config.observed)
    actions, found = rep.outside(0, config.actions, 2, design.gamma, OUTER), []
    cases = cases_of(config, context.seeds, design, config.outcome_rows, first=first)
    for seed, case in zip(context.seeds, cases, strict=True):
        y, truth = outcomes.draw(case.world, case.sample, case.seed), outcomes.under_intervention(case.world, actions)
        others = rep.outside(case.seed, 2 * config.fresh, 2, design.gamma, OUTER)[: config.fresh]
        shifted = rep.draw(case.world, np.random.default_rng([case.seed, 2]), len(others), others)
        given_x = outcomes.structural(shifted.z) + rep.confounder(case.world, shifted)
        found.append(Setting(case, y, actions, truth, shifted, given_x, context.at(dataset=dataset, seed=seed)))
    return found


def extrapolation(config: Config, context: Context) -> None:
    """The methods of the claim and regressions without codes, on the same worlds."""
    worlds = settings(config, context)
    for each in worlds:
        without_codes(config, each, each is worlds[0])
    for each, method, code in main_codes(config, context, worlds):
        note_distances(each, method, note_errors(config, each, method, code))
        if each is worlds[0]:
            note_curve(each, method, each.step(config, code).effect)


def rivals(config: Config, context: Context) -> None:
    """Step 2 on other codes."""
    worlds, vae = settings(config, context), rep.Vae(2, config.observed, config.hidden)
    for each in worlds:
        note_errors(config, each, "PCA + CF", each.case.components())
    for method, other in (("VAE + CF", vae), ("iVAE + CF", vae.clone(auxiliary=True))):
        for each, _, code in coded(config, context, method.replace(" ", ""), worlds, {method: 0.0}, coder=other):
            note_errors(config, each, method, code)


def main_codes(
    config: Config, context: Context, worlds: Sequence[Setting], name: str = OURS
) -> Iterator[tuple[Setting, str, rep.Code]]:
    """True latents, and the codes of autoencoders with and without the restriction."""
    yield from ((each, ORACLE, lambda sample: sample.z) for each in worlds)
    lams = {VANILLA: 0.0, OURS: config.lam}
    yield from coded(config, context, name, worlds, lams, restarts=config.restarts)


def coded(
    config: Config, context: Context, name: str, worlds: Sequence[Setting], lams: dict[str, float], **way: Any
) -> Iterator[tuple[Setting, str, rep.Code]]:
    """Trained codes, a method per lambda; a pool that was trained before is read from its checkpoint."""
    way = {"coder": coder(config), "steps": config.outcome_steps} | way
    trained = train(config, context, name, [each.case for each in worlds], tuple(lams.values()), **way)
    for run, world in enumerate(trained.world):
        yield worlds[world], [*lams][run % len(lams)], trained.code(run)


def note_errors(config: Config, each: Setting, method: str, code: rep.Code) -> np.ndarray:
    """Notes the errors of step 2 on a code; returns E[Y | do(a)] for the test actions."""
    step = each.step(config, code)
    found, given_x = step.effect(each.actions), step.effect_given(code(each.shifted), each.shifted.a)
    errors = {MSE: mse(found, each.truth), CONDITIONAL: mse(given_x, each.given_x)}
    if method != ORACLE:
        errors["R^2"] = float(each.case.recovered(code).r2)
    each.at.record_all(errors, method=method)
    return found


def without_codes(config: Config, each: Setting, is_first: bool) -> None:
    """Regressions on actions, and for shifted rows on X or on both."""
    sample, shifted, way = each.case.sample, each.shifted, rep.Descent(*config.regression)
    fits = {
        "OLS on A": rep.fit_linear(sample.a, each.y),
        "MLP on A": rep.fit_network(sample.a, each.y, way),
        "engression on A": rep.fit_engression(sample.a, each.y, way),
    }
    for method, predict in fits.items():
        found = predict(each.actions)
        each.at.record(MSE, mse(found, each.truth), method=method)
        note_distances(each, method, found)
        if is_first and method != "engression on A":
            note_curve(each, method, predict)
    inputs = {"X": (sample.x, shifted.x), "X and A": tuple(np.hstack([s.x, s.a]) for s in (sample, shifted))}
    for name, (rows, new) in inputs.items():
        found = rep.fit_network(rows, each.y, way)(new)
        each.at.record(CONDITIONAL, mse(found, each.given_x), method=f"MLP on {name}")


def note_distances(each: Setting, method: str, found: np.ndarray) -> None:
    """The error by distance of the action from the support, in bands."""
    far = np.abs(each.actions).max(axis=1) - each.case.world.design.gamma
    for low in np.arange(0.0, OUTER - 1.0, 0.25):
        band = (far >= low) & (far < low + 0.25)
        if band.any():
            at = each.at.at(method=method, kind="distance", distance=float(low + 0.125))
            at.record("MSE by distance", mse(found[band], each.truth[band]))


def note_curve(each: Setting, method: str, predict: Any) -> None:
    """Predictions along the first action, beside the oracle's the truth."""
    line = np.linspace(-2.5, 2.5, 21)
    actions = np.stack([line, np.zeros_like(line)], axis=1)
    curves = {method: predict(actions)}
    if method == ORACLE:
        curves["truth"] = rep.Outcomes().under_intervention(each.case.world, actions)
    for name, values in curves.items():
        for a, value in zip(line, values, strict=True):
            each.at.record("E[Y|do(a, 0)]", value, method=name, a=float(a), kind="curve")


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
        truth, step = outcomes.under_intervention(world, actions), second_step(config, sample.z, sample.a, y)
        place = {"gamma": design.gamma, "alpha": design.alpha, "confounding": design.confounding}
        at = context.at(dataset=f"oracle, d = {design.d}", seed=repeat, part="oracle", **place)
        at.record(MSE, mse(step.effect(actions), truth), method=ORACLE)
        at.record(MSE, mse(step.uncontrolled().effect(actions), truth), method="oracle, no control function")
        at.record(MSE, mse(direct_linear(sample.a, y, actions), truth), method="OLS on A")


def confirmation(config: Config, context: Context) -> None:
    """The oracle and both autoencoders on fresh worlds, with fixed settings of step 2 and with those chosen by it.

    That the ridge decides how far errors of a code carry was seen on the worlds of the main comparison. Whether
    choosing it by outer actions mends that is asked here, of other worlds and of encoders of their own.
    """
    worlds = settings(config, context, FRESH, FIRST_SEED + OFFSET)
    for each in worlds:
        ols = direct_linear(each.case.sample.a, each.y, each.actions)
        each.at.record(MSE, mse(ols, each.truth), method="OLS on A")
    for each, method, code in main_codes(config, context, worlds, "confirmation"):
        note_choice(config, each, method, code)


def note_choice(config: Config, each: Setting, method: str, code: rep.Code) -> None:
    """Errors with fixed and with chosen settings."""
    step = each.step(config, code)
    chosen = rep.best_at_outer_actions(step, [rep.Ridge(config.features, x, y) for x in LENGTHS for y in RIDGES])
    for name, one in ((method, step), (f"{method}, {CHOSEN}", chosen)):
        each.at.record(MSE, mse(one.effect(each.actions), each.truth), method=name)
    picked = {"chosen length": chosen.settings.length, "log10 of chosen ridge": np.log10(chosen.settings.ridge)}
    each.at.record_all(picked, method=method, kind="choice")
    if method != ORACLE:
        each.at.record("R^2", each.case.recovered(code).r2, method=method)
