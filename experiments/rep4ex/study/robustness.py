"""What happens to ``rep4ex`` where an assumption fails or a choice is made otherwise; two latents, alpha = 2."""

from collections.abc import Callable

import jax
import numpy as np

from causal import rep4ex as rep
from experiments.lab import Context, Place
from experiments.rep4ex.config import Config
from experiments.rep4ex.study.training import MSE, NAMES, OUTER, cases_of, coder, mse, place, second_step, train

DATASET = "robustness, d = 2"
BENT, REPAIRED = "non-linear effect of A", "non-linear effect of A, encoder given (A, A^2)"
DESIGNS = {
    "none": rep.Design(),
    **{f"noise on X, {sigma:g} sd": rep.Design(noise=sigma) for sigma in (0.05, 0.1, 0.2, 0.5)},
    BENT: rep.Design(bend=0.3),
    "Laplace V": rep.Design(law="laplace"),
    "bounded V": rep.Design(law="bounded"),
}


def of_case(context: Context, case: rep.Case, **along: str) -> Place:
    """The place of a case's numbers."""
    return place(context, case, DATASET).at(kind="robustness", **along)


def worlds(config: Config, context: Context, design: rep.Design = DESIGNS["none"]) -> list[rep.Case]:
    """Those of all seeds."""
    return cases_of(config, context.seeds, design._replace(m=config.observed))


def assumptions(config: Config, context: Context) -> None:
    """Representations and effects in worlds that violate one assumption each; one violation is mended too."""
    by_name = {name: worlds(config, context, design) for name, design in DESIGNS.items()}
    names = [name for name, cases in by_name.items() for _ in cases]
    lams, every = (0.0, config.lam), [case for cases in by_name.values() for case in cases]
    note_effects(config, context, train(config, context, "assumptions", every, lams), names, np.asarray)
    bent = [case.with_basis(squares_too) for case in by_name[BENT]]
    note_effects(config, context, train(config, context, "basis", bent, lams), [REPAIRED] * len(bent), squares_too)


def squares_too(a: np.ndarray) -> np.ndarray:
    """t(A) = (A, A^2), in which the bent effect is linear."""
    return np.hstack([a, a**2])


def note_effects(
    config: Config, context: Context, trained: rep.TrainedCases, names: list[str],
    basis: Callable[[np.ndarray], np.ndarray],
) -> None:  # fmt: skip
    """R^2, the constraint's p-value, and the error of E[Y | do(a)] outside of the support."""
    outcomes = rep.Outcomes()
    for run, case in trained.runs():
        actions, method = rep.outside(0, config.actions, 2, case.world.design.gamma, OUTER), NAMES[trained.lam[run] > 0]
        y = outcomes.draw(case.world, case.sample, case.seed)
        step = second_step(config, trained.code(run)(case.sample), case.sample.a, y)
        truth = outcomes.simulated(case.world, case.fresh.v, actions)
        of_case(context, case, method=method, violated=names[trained.world[run]]).record_all({
            "R^2": trained.r2(run),
            "p of the constraint": trained.test(run, config.test_rows),
            MSE: mse(step.effect(basis(actions)), truth),
        })  # fmt: skip


def dimension(config: Config, context: Context) -> None:
    """Codes with a coordinate too few and too many, and what the first stage's report says of them."""
    cases = worlds(config, context)
    for d in (1, 2, 3):
        trained = train(config, context, f"dimension-{d}", cases, (config.lam,), coder=coder(config, d))
        for run, case in trained.runs():
            y = np.zeros(len(case.sample.a))
            report = rep.SecondStep(trained.code(run)(case.sample), case.sample.a, y).strength()
            at = of_case(context, case, method=NAMES[True], encoder=f"d = {d}")
            at.record("R^2", trained.r2(run))
            for name in ("relative", "effect", "noise"):
                for i, value in enumerate(getattr(report, name)):
                    at.record(f"singular value {i + 1} ({name})", value)


def ablations(config: Config, context: Context) -> None:
    """Other estimators, scales, batches and restarts, lambda by rule and by dual ascent, permuted actions."""
    cases, frequencies = worlds(config, context), jax.random.normal(jax.random.key(128), (2, 128))
    ways = {
        "whitened V": {"restarts": 3},
        "whitened U": {"moments": rep.u_statistic},
        "whitened, 256 random features": {"moments": rep.fourier_statistic(frequencies)},
        "polynomial moments": {"moments": rep.polynomial_statistic},
        "raw V": {"scale": rep.raw},
        "raw U": {"moments": rep.u_statistic, "scale": rep.raw},
        "batch 128": {"batch": min(128, config.batch)},
        "batch 1,024": {"batch": 2 * config.batch},
    }
    for name, way in ways.items():
        trained = train(config, context, name.replace(" ", ""), cases, (config.lam,), **way)
        for run, case in trained.runs():
            of_case(context, case, method=name, ablation=name).record("R^2", trained.r2(run))
            for i, value in enumerate(trained.others[run] if "restarts" in way else ()):
                of_case(context, case, method=f"restart {i + 1}", ablation="restarts").record("R^2", value)
    penalty_weight(config, context, cases)
    rng = np.random.default_rng(3)
    permuted = [case._replace(rows=case.rows._replace(a=rng.permutation(case.rows.a))) for case in cases]
    trained = train(config, context, "placebo", permuted, (0.0, config.lam))
    for run, case in trained.runs():
        method = f"{NAMES[trained.lam[run] > 0]}, permuted A"
        of_case(context, case, method=method, ablation="permuted actions").record("R^2", trained.r2(run))


def penalty_weight(config: Config, context: Context, cases: list[rep.Case]) -> None:
    """The grid of lambdas with its rule, and the multiplier that keeps the reconstruction under the same cut-off."""
    grid = train(config, context, "lambdas", cases, (0.0, *config.lambdas))
    errors = grid.reconstruction.reshape(len(cases), -1)
    limits = [rep.cutoff(e[0].item(), float(c.rows.x.var(axis=0).mean())) for e, c in zip(errors, cases, strict=True)]
    best = [rep.largest_lambda(config.lambdas, e[1:].tolist(), x) for e, x in zip(errors, limits, strict=True)]
    for run, case in grid.runs():
        at, chosen = of_case(context, case, ablation="lambda"), best[grid.world[run]]
        found = {"R^2": grid.r2(run), "reconstruction": grid.reconstruction[run]}
        at.record_all(found, method=f"lambda {grid.lam[run]:g}")
        if grid.lam[run] == np.float32(chosen):
            at.record_all(found | {"lambda": chosen}, method="lambda by rule")
    dual = train(config, context, "constrained", cases, (0.0,), np.asarray(limits))
    for run, case in dual.runs():
        found = {"R^2": dual.r2(run), "reconstruction": dual.reconstruction[run]}
        of_case(context, case, method="lambda by dual ascent", ablation="lambda").record_all(found)


def more_actions(config: Config, context: Context) -> None:
    """Four actions for two latents: the over-identification test with and without a direct effect on a linear Y."""
    design = rep.Design(2, config.observed, more=2)
    cases = worlds(config, context, design)
    trained = train(config, context, "more-actions", cases, (config.lam,))
    for run, case in trained.runs():
        of_case(context, case, method=NAMES[True], actions="four actions").record("R^2", trained.r2(run))
        note_test(context, case, NAMES[True], trained.code(run)(case.sample))
    for case in cases_of(config, range(min(100, config.tests)), design, first=1_000):
        note_test(context, case, "oracle", case.sample.z)


def note_test(context: Context, case: rep.Case, method: str, w: np.ndarray) -> None:
    """p-values of the over-identification test."""
    for direct in (0.0, 0.2):
        y = rep.Outcomes(bent=0.0, direct=direct).draw(case.world, case.sample, case.seed)
        at = of_case(context, case, method=method, actions=f"direct effect {direct:g}")
        at.record("p of over-identification", rep.overidentification_p(w, case.sample.a, y))
