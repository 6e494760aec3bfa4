"""What happens to ``rep4ex`` where an assumption fails or a choice is made otherwise; two latents, alpha = 2."""

import functools

import jax
import numpy as np

from causal import rep4ex as rep
from experiments.lab import Context
from experiments.rep4ex.config import Config
from experiments.rep4ex.study.training import MSE, OUTER, cases_of, coder, place, ridge, runs, train

BENT, REPAIRED = "non-linear effect of A", "non-linear effect of A, encoder given (A, A^2)"
DESIGNS = {
    "none": rep.Design(),
    **{f"noise on X, {sigma:g} sd": rep.Design(noise=sigma) for sigma in (0.05, 0.1, 0.2, 0.5)},
    BENT: rep.Design(bend=0.3), "Laplace V": rep.Design(law="laplace"), "bounded V": rep.Design(law="bounded"),
}  # fmt: skip


of_case = functools.partial(place, dataset="robustness, d = 2", kind="robustness")


def worlds(config: Config, context: Context, design: rep.Design = DESIGNS["none"]) -> list[rep.Case]:
    """Those of all seeds."""
    return cases_of(config, context.seeds, design._replace(m=config.observed))


def assumptions(config: Config, context: Context) -> None:
    """R^2, the constraint's p-value and the error of E[Y | do(a)] outside of the support in worlds that violate one
    assumption each; one violation is mended too.
    """
    outcomes, by_name = rep.Outcomes(), {name: worlds(config, context, design) for name, design in DESIGNS.items()}
    names = [name for name, cases in by_name.items() for _ in cases]
    every, bent = (
        [case for cases in by_name.values() for case in cases],
        [case.with_basis(squares_too) for case in by_name[BENT]],
    )
    pools = (("assumptions", every, names, np.asarray), ("basis", bent, [REPAIRED] * len(bent), squares_too))
    for pool, cases, violated, basis in pools:
        trained = train(config, context, pool, cases, (0.0, config.lam))
        for run, case, method in runs(trained):
            actions = rep.outside(0, config.actions, 2, case.world.design.gamma, OUTER)
            y = outcomes.draw(case.world, case.sample, case.seed)
            step = rep.SecondStep.of(trained.code(run)(case.sample), case.sample.a, y, ridge(config))
            found, truth = step.effect(basis(actions)), outcomes.simulated(case.world, case.fresh.v, actions)
            at = of_case(context, case, method=method, violated=violated[trained.world[run]])
            p = trained.test(run, config.test_rows)
            at.record_all({"R^2": trained.r2(run), "p of the constraint": p, MSE: rep.mse(found, truth)})


def squares_too(a: np.ndarray) -> np.ndarray:
    """t(A) = (A, A^2), in which the bent effect is linear."""
    return np.hstack([a, a**2])


def dimension(config: Config, context: Context) -> None:
    """Codes with a coordinate too few and too many, and what the first stage's report says of them."""
    cases = worlds(config, context)
    for d in (1, 2, 3):
        trained = train(config, context, f"dimension-{d}", cases, (config.lam,), coder=coder(config, d))
        for run, case, method in runs(trained):
            at, report = of_case(context, case, method=method, encoder=f"d = {d}"), trained.strength(run)
            at.record("R^2", trained.r2(run))
            for name in ("relative", "effect", "noise"):
                values = enumerate(getattr(report, name), 1)
                at.record_all({f"singular value {i} ({name})": value for i, value in values})


def ablations(config: Config, context: Context) -> None:
    """Other estimators, scales, batches and restarts, lambda by rule and by dual ascent, permuted actions."""
    cases, frequencies = worlds(config, context), jax.random.normal(jax.random.key(128), (2, 128))
    ways = {
        "whitened V": {"restarts": 3}, "whitened U": {"moments": rep.u_statistic},
        "whitened, 256 random features": {"moments": rep.fourier_statistic(frequencies)},
        "polynomial moments": {"moments": rep.polynomial_statistic}, "raw V": {"scale": rep.raw},
        "raw U": {"moments": rep.u_statistic, "scale": rep.raw},
        "batch 128": {"batch": min(128, config.batch)}, "batch 1,024": {"batch": 2 * config.batch},
    }  # fmt: skip
    for name, way in ways.items():
        trained = train(config, context, name.replace(" ", ""), cases, (config.lam,), **way)
        for run, case in trained.runs():
            of_case(context, case, method=name, ablation=name).record("R^2", trained.r2(run))
            for i, value in enumerate(trained.others[run] if "restarts" in way else ()):
                of_case(context, case, method=f"restart {i + 1}", ablation="restarts").record("R^2", value)
    penalty_weight(config, context, cases)
    rng = np.random.default_rng(3)
    trained = train(config, context, "placebo", [case.placebo(rng) for case in cases], (0.0, config.lam))
    for run, case, method in runs(trained):
        at = of_case(context, case, method=f"{method}, permuted A", ablation="permuted actions")
        at.record("R^2", trained.r2(run))


def penalty_weight(config: Config, context: Context, cases: list[rep.Case]) -> None:
    """The grid of lambdas with its rule, and the multiplier that keeps the reconstruction under the same cut-off."""
    grid = train(config, context, "lambdas", cases, (0.0, *config.lambdas))
    errors = grid.reconstruction.reshape(len(cases), -1)
    limits = [rep.cutoff(e[0].item(), float(c.rows.x.var(axis=0).mean())) for e, c in zip(errors, cases, strict=True)]
    best = [rep.largest_lambda(config.lambdas, e[1:].tolist(), x) for e, x in zip(errors, limits, strict=True)]
    dual = train(config, context, "constrained", cases, (0.0,), np.asarray(limits))
    for trained, name in ((grid, ""), (dual, "lambda by dual ascent")):
        for run, case in trained.runs():
            at, chosen = of_case(context, case, ablation="lambda"), best[trained.world[run]]
            found = {"R^2": trained.r2(run), "reconstruction": trained.reconstruction[run]}
            at.record_all(found, method=name or f"lambda {trained.lam[run]:g}")
            if trained is grid and trained.lam[run] == np.float32(chosen):
                at.record_all(found | {"lambda": chosen}, method="lambda by rule")


def more_actions(config: Config, context: Context) -> None:
    """Four actions for two latents: the over-identification test with and without a direct effect on a linear Y."""
    design = rep.Design(2, config.observed, more=2)
    trained = train(config, context, "more-actions", worlds(config, context, design), (config.lam,))
    coded = [(case, method, trained.code(run)(case.sample)) for run, case, method in runs(trained)]
    for run, case, method in runs(trained):
        of_case(context, case, method=method, actions="four actions").record("R^2", trained.r2(run))
    others = cases_of(config, range(min(100, config.tests)), design, first=1_000)
    for case, method, w in [*coded, *((case, "oracle", case.sample.z) for case in others)]:
        for direct in (0.0, 0.2):
            y = rep.Outcomes(bent=0.0, direct=direct).draw(case.world, case.sample, case.seed)
            at = of_case(context, case, method=method, actions=f"direct effect {direct:g}")
            at.record("p of over-identification", rep.overidentification_p(w, case.sample.a, y))
