"""E[Y | do(a)] beyond the actions' support: from true latents, from codes, and without either."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.stats

from causal import rep4ex as rep
from experiments.rep4ex_outcomes import (
    Data,
    alternatives,
    conditional,
    direct,
    engression,
    interval,
    interventional,
    strength,
    support,
)
from experiments.rep4ex_settings import Config
from experiments.rep4ex_training import Case, Choice, make_case, recovered, train
from experiments.system import Context

FIRST_SEED = 50
DATASET = "extrapolation, d = 2"
MSE, CONDITIONAL = "MSE of E[Y|do(a)]", "MSE of E[Y|X,do(a)]"
OURS, ORACLE, VANILLA = "Rep4Ex-CF", "Rep4Ex-CF-Oracle", "AE-Vanilla + CF"
OUTER = 2.0
"""Test actions lie within [-OUTER, OUTER]^d and outside of the support."""
STEEP = rep.Outcomes(frequency=1.0)


def mse(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean squared error."""
    return float(np.mean((found - truth) ** 2))


def oracle(config: Config, context: Context) -> None:
    """Step 2 on the true latents: by support, with and without the control function, by confounding."""
    for repeat in range(config.oracle_seeds):
        for d in (1, 2):
            for gamma in config.supports:
                note_oracle(config, context, repeat, rep.Design(d, config.observed, 1.2, gamma), STEEP)
        for c in (0.0, 1.5):
            note_oracle(config, context, repeat, rep.Design(2, config.observed, confounding=c), rep.Outcomes())


def note_oracle(config: Config, context: Context, repeat: int, design: rep.Design, outcomes: rep.Outcomes) -> None:
    """One world: errors outside of the support."""
    steep = outcomes == STEEP
    world, sample, y = rep.gen2(1_000 + repeat, config.rows if steep else config.outcome_rows, design, outcomes)
    actions = rep.outside(repeat, config.actions, design.d, design.gamma, 2.5 if steep else OUTER)
    truth, data = outcomes.under_intervention(world, actions), Data(sample.z, sample.a, y)
    found = {
        ORACLE: interventional(config, data, actions),
        "oracle, no control function": interventional(config, data, actions, control=False),
        "OLS on A": direct_linear(data, actions),
    }
    place = {"part": "oracle", "gamma": design.gamma, "alpha": design.alpha, "confounding": design.confounding}
    for method, value in found.items():
        context.record(
            dataset=f"oracle, d = {design.d}", method=method, metric=MSE, seed=repeat, value=mse(value, truth), **place
        )


def direct_linear(data: Data, actions: np.ndarray) -> np.ndarray:
    """Least squares of Y on (1, A)."""
    rows = rep.Rows(jnp.asarray(data.a, jnp.float32), jnp.asarray(data.y, jnp.float32))
    return np.asarray(rep.linear(rows, jnp.asarray(actions, jnp.float32)))


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

    def data(self, w: np.ndarray) -> Data:
        """Codes with their actions and outcomes."""
        return Data(w, self.case.sample.a, self.y)


def extrapolation(config: Config, context: Context) -> None:
    """Every method on the same worlds; Rep4Ex-CF, the oracle and AE-Vanilla + CF in more detail."""
    cases = [
        make_case(config, FIRST_SEED + seed, rep.Design(2, config.observed), config.outcome_rows)
        for seed in context.seeds
    ]
    settings = [setting(config, case) for case in cases]
    for each in settings:
        codes: dict[str, Any] = {ORACLE: lambda x, a, z: z, "PCA + CF": components(each.case)}
        for method, code in codes.items():
            judge(config, context, each, method, code)
        without_codes(config, context, each)
    deterministic = rep.Autoencoder(2, config.observed, config.hidden)
    coders: dict[tuple[str, ...], Choice] = {(VANILLA, OURS): Choice((0.0, config.lam), deterministic)}
    if config.thorough:
        vae = rep.Vae(2, config.observed, config.hidden)
        coders[("VAE + CF",)] = Choice((0.0,), vae, restarts=1)
        coders[("iVAE + CF",)] = Choice((0.0,), vae.clone(auxiliary=True), restarts=1)
    for methods, choice in coders.items():
        trained = train(config, context, methods[-1].replace(" ", ""), cases, config.outcome_steps, choice)
        for run, world in enumerate(trained.world):
            method = methods[run % len(methods)]
            judge(config, context, settings[world], method, lambda x, a, z, run=run, t=trained: t.codes(run, x, a))


def setting(config: Config, case: Case) -> Setting:
    """The outcome of a case and the test actions, the same for every world."""
    outcomes = rep.Outcomes()
    actions = rep.outside(0, config.actions, 2, case.world.design.gamma, OUTER)
    y = outcomes.draw(case.world, case.sample, case.seed)
    return Setting(case, y, actions, outcomes.under_intervention(case.world, actions))


def components(case: Case):
    """Principal components as codes."""
    directions = np.asarray(rep.principal_components(jnp.asarray(case.rows.x), 2))
    return lambda x, a, z: case.rows.like(x) @ directions


def judge(config: Config, context: Context, each: Setting, method: str, code: Any) -> None:
    """Errors of step 2 on a code; diagnostics, curves and other regressions for the methods of the claim."""
    sample, fresh = each.case.sample, each.case.fresh
    data = each.data(code(sample.x, sample.a, sample.z))
    found = interventional(config, data, each.actions)
    main = {MSE: mse(found, each.truth), CONDITIONAL: conditional_error(config, each, data, code)}
    if method != ORACLE:
        main["R^2"] = float(recovered(code(fresh.x, fresh.a, fresh.z), fresh.z).r2)
    for metric, value in main.items():
        context.record(dataset=DATASET, method=method, metric=metric, seed=each.seed, value=value)
    note_distances(context, each, method, found)
    if method in (OURS, ORACLE, VANILLA):
        diagnose(config, context, each, method, data, found)
        note_curve(context, each, method, lambda a: interventional(config, data, a))
        by_confounding(config, context, each, method, data)


def conditional_error(config: Config, each: Setting, data: Data, code: Any) -> float:
    """Of E[Y | X, do(A = a)] over rows whose actions are outside of the support."""
    shifted = shifted_rows(config, each)
    predicted = conditional(config, data, code(shifted.x, shifted.a, shifted.z), shifted.a)
    return mse(predicted, expected_given_x(each, shifted))


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


def diagnose(config: Config, context: Context, each: Setting, method: str, data: Data, found: np.ndarray) -> None:
    """Coverage of intervals, support, strength of the first stage; the other regressions of step 2."""
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
    if config.thorough and method == OURS:
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
