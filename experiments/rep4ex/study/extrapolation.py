"""E[Y | do(a)] beyond the actions' support: from true latents, from codes, and without either."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from causal import rep4ex as rep
from experiments.lab.system import Context
from experiments.rep4ex.config import Config
from experiments.rep4ex.study.outcomes import direct, engression, second_step
from experiments.rep4ex.study.training import Case, Choice, make_case, recovered, train

FIRST_SEED = 50
DATASET = "extrapolation, d = 2"
MSE, CONDITIONAL = "MSE of E[Y|do(a)]", "MSE of E[Y|X,do(a)]"
OURS, ORACLE, VANILLA = "Rep4Ex-CF", "Rep4Ex-CF-Oracle", "AE-Vanilla + CF"
OUTER = 2.0
"""Test actions lie within [-OUTER, OUTER]^d and outside of the support."""
Code = Callable[[rep.Sample], np.ndarray]


def mse(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean squared error."""
    return float(np.mean((found - truth) ** 2))


class Setting(NamedTuple):
    """A case with an outcome and what is asked of it."""

    case: Case
    y: np.ndarray
    actions: np.ndarray
    truth: np.ndarray

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.case.seed - FIRST_SEED

    def step(self, config: Config, code: Code) -> rep.SecondStep:
        """Step 2 on the training rows' codes."""
        return second_step(config, code(self.case.sample), self.case.sample.a, self.y)


def settings(config: Config, context: Context) -> list[Setting]:
    """The worlds of all seeds."""
    seeds = [FIRST_SEED + seed for seed in context.seeds]
    return [
        setting(config, make_case(config, seed, rep.Design(2, config.observed), config.outcome_rows)) for seed in seeds
    ]


def setting(config: Config, case: Case) -> Setting:
    """The outcome of a case and the test actions, the same for every world."""
    outcomes = rep.Outcomes()
    actions = rep.outside(0, config.actions, 2, case.world.design.gamma, OUTER)
    y = outcomes.draw(case.world, case.sample, case.seed)
    return Setting(case, y, actions, outcomes.under_intervention(case.world, actions))


def extrapolation(config: Config, context: Context) -> None:
    """The methods of the claim and regressions without codes, on the same worlds."""
    worlds = settings(config, context)
    for each in worlds:
        without_codes(config, context, each)
    for each, method, code in main_codes(config, context, worlds):
        found = judge(config, context, each, method, code)
        note_distances(context, each, method, found)
        note_curve(context, each, method, each.step(config, code).effect)


def rivals(config: Config, context: Context) -> None:
    """Step 2 on other codes."""
    worlds, vae = settings(config, context), rep.Vae(2, config.observed, config.hidden)
    for each in worlds:
        judge(config, context, each, "PCA + CF", components(each.case))
    for method, coder in (("VAE + CF", vae), ("iVAE + CF", vae.clone(auxiliary=True))):
        for each, _, code in coded(config, context, worlds, (method,), Choice((0.0,), coder, restarts=1)):
            judge(config, context, each, method, code)


def main_codes(config: Config, context: Context, worlds: Sequence[Setting]) -> Iterator[tuple[Setting, str, Code]]:
    """True latents, and the codes of autoencoders with and without the restriction."""
    yield from ((each, ORACLE, lambda sample: sample.z) for each in worlds)
    choice = Choice((0.0, config.lam), rep.Autoencoder(2, config.observed, config.hidden))
    yield from coded(config, context, worlds, (VANILLA, OURS), choice)


def coded(
    config: Config, context: Context, worlds: Sequence[Setting], methods: Sequence[str], choice: Choice
) -> Iterator[tuple[Setting, str, Code]]:
    """Trained codes, a method per lambda; a pool that was trained before is read from its checkpoint."""
    cases = [each.case for each in worlds]
    trained = train(config, context, methods[-1].replace(" ", ""), cases, config.outcome_steps, choice)
    for run, world in enumerate(trained.world):
        yield worlds[world], methods[run % len(methods)], lambda s, run=run: trained.codes(run, s.x, s.a)


def components(case: Case) -> Code:
    """Principal components as codes."""
    directions = np.asarray(rep.principal_components(jnp.asarray(case.rows.x), 2))
    return lambda sample: case.rows.like(sample.x) @ directions


def judge(config: Config, context: Context, each: Setting, method: str, code: Code) -> np.ndarray:
    """Notes the errors of step 2 on a code; returns E[Y | do(a)] for the test actions."""
    fresh, step = each.case.fresh, each.step(config, code)
    found = step.effect(each.actions)
    main = {MSE: mse(found, each.truth), CONDITIONAL: conditional_error(config, each, step, code)}
    if method != ORACLE:
        main["R^2"] = float(recovered(code(fresh), fresh.z).r2)
    for metric, value in main.items():
        context.record(dataset=DATASET, method=method, metric=metric, seed=each.seed, value=value)
    return found


def conditional_error(config: Config, each: Setting, step: rep.SecondStep, code: Code) -> float:
    """Of E[Y | X, do(A = a)] over rows whose actions are outside of the support."""
    shifted = shifted_rows(config, each)
    return mse(step.effect_given(code(shifted), shifted.a), expected_given_x(each, shifted))


def shifted_rows(config: Config, each: Setting) -> rep.Sample:
    """Fresh rows with actions outside of the support."""
    rng = np.random.default_rng([each.case.seed, 2])
    actions = rep.outside(each.case.seed, 2 * config.fresh, 2, each.case.world.design.gamma, OUTER)[: config.fresh]
    return rep.draw(each.case.world, rng, len(actions), actions)


def expected_given_x(each: Setting, sample: rep.Sample) -> np.ndarray:
    """l(z) + E[U | V], which X and A tell."""
    return rep.Outcomes().structural(sample.z) + rep.confounder(each.case.world, sample)


def without_codes(config: Config, context: Context, each: Setting) -> None:
    """Regressions on actions, and for shifted rows on X or on both."""
    sample, shifted = each.case.sample, shifted_rows(config, each)
    on_actions = direct(config, sample.a, each.y)
    curves = {f"{name} on A": predict for name, predict in on_actions.items()}
    found = {name: predict(each.actions) for name, predict in curves.items()}
    found["engression on A"] = engression(config, sample.a, each.y, each.actions)
    for method, value in found.items():
        context.record(dataset=DATASET, method=method, metric=MSE, seed=each.seed, value=mse(value, each.truth))
        note_distances(context, each, method, value)
    for method, predict in curves.items():
        note_curve(context, each, method, predict)
    truth = expected_given_x(each, shifted)
    inputs = {"X": (sample.x, shifted.x), "X and A": tuple(np.hstack([s.x, s.a]) for s in (sample, shifted))}
    for name, (rows, new) in inputs.items():
        value = mse(direct(config, rows, each.y)["MLP"](new), truth)
        context.record(dataset=DATASET, method=f"MLP on {name}", metric=CONDITIONAL, seed=each.seed, value=value)


def note_distances(context: Context, each: Setting, method: str, found: np.ndarray) -> None:
    """The error by distance of the action from the support, in bands."""
    far = np.abs(each.actions).max(axis=1) - each.case.world.design.gamma
    for low in np.arange(0.0, OUTER - 1.0, 0.25):
        band = (far >= low) & (far < low + 0.25)
        if band.any():
            context.record(
                dataset=DATASET, method=method, metric="MSE by distance", seed=each.seed, kind="distance",
                distance=float(low + 0.125), value=mse(found[band], each.truth[band]),
            )  # fmt: skip


def note_curve(context: Context, each: Setting, method: str, predict: Any) -> None:
    """Predictions along the first action, and the truth, of the first world."""
    if each.seed != context.seeds[0]:
        return
    line = np.linspace(-2.5, 2.5, 21)
    actions = np.stack([line, np.zeros_like(line)], axis=1)
    truth = rep.Outcomes().under_intervention(each.case.world, actions)
    for name, values in ((method, predict(actions)), *((("truth", truth),) if method == ORACLE else ())):
        for a, value in zip(line, values, strict=True):
            context.record(
                dataset=DATASET, method=name, metric="E[Y|do(a, 0)]", seed=each.seed, value=float(value), a=float(a),
                kind="curve",
            )  # fmt: skip
