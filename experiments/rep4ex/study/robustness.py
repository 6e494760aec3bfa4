"""What happens to ``rep4ex`` where an assumption fails or a choice is made otherwise; two latents, alpha = 2."""

from collections.abc import Callable

import jax
import numpy as np

from causal import rep4ex as rep
from experiments.lab.system import Context
from experiments.rep4ex.config import Config
from experiments.rep4ex.study.extrapolation import MSE, OUTER, mse
from experiments.rep4ex.study.identification import FIRST_SEED, NAMES
from experiments.rep4ex.study.outcomes import overidentified, second_step
from experiments.rep4ex.study.training import Case, Choice, Trained, make_case, train

DATASET = "robustness, d = 2"
DESIGNS = {
    "none": rep.Design(),
    **{f"noise on X, {sigma:g} sd": rep.Design(noise=sigma) for sigma in (0.05, 0.1, 0.2, 0.5)},
    "non-linear effect of A": rep.Design(bend=0.3),
    "Laplace V": rep.Design(law="laplace"),
    "bounded V": rep.Design(law="bounded"),
}


REPAIRED = "non-linear effect of A, encoder given (A, A^2)"


def assumptions(config: Config, context: Context) -> None:
    """Representations and effects in worlds that violate one assumption each; one violation is mended too."""
    names = [name for name in DESIGNS for _ in context.seeds]
    cases = [
        make_case(config, FIRST_SEED + seed, design._replace(m=config.observed), config.rows)
        for design in DESIGNS.values()
        for seed in context.seeds
    ]
    choice = Choice((0.0, config.lam), coder(config, 2), restarts=1)
    trained = train(config, context, "assumptions", cases, config.steps, choice)
    for run, world in enumerate(trained.world):
        method = NAMES[trained.lam[run] > 0]
        note(context, cases[world], method, "violated", names[world], measured(config, trained, run, OUTER))
    bent = [with_basis(case) for name, case in zip(names, cases, strict=True) if name == "non-linear effect of A"]
    trained = train(config, context, "basis", bent, config.steps, choice)
    for run, world in enumerate(trained.world):
        method = NAMES[trained.lam[run] > 0]
        note(context, bent[world], method, "violated", REPAIRED, measured(config, trained, run, OUTER, squares_too))


def squares_too(a: np.ndarray) -> np.ndarray:
    """t(A) = (A, A^2), in which the bent effect is linear."""
    return np.hstack([a, a**2])


def with_basis(case: Case) -> Case:
    """The case with t(A) in the place of its actions, everywhere."""
    sample, held, fresh = (part._replace(a=squares_too(part.a)) for part in (case.sample, case.held, case.fresh))
    return case._replace(sample=sample, held=held, fresh=fresh, rows=rep.standardise(sample.x, sample.a))


def coder(config: Config, d: int) -> rep.Autoencoder:
    """The networks of this configuration."""
    return rep.Autoencoder(d, config.observed, config.hidden)


def measured(
    config: Config, trained: Trained, run: int, outer: float, basis: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> dict[str, float]:
    """R^2, the constraint's p-value, and the error of E[Y | do(a)] outside of the support."""
    case = trained.cases[trained.world[run]]
    outcomes, actions = rep.Outcomes(), rep.outside(0, config.actions, 2, case.world.design.gamma, outer)
    y = outcomes.draw(case.world, case.sample, case.seed)
    step = second_step(config, trained.codes(run, case.sample.x, case.sample.a), case.sample.a, y)
    truth = outcomes.simulated(case.world, case.fresh.v, actions)
    return {
        "R^2": float(trained.recovered(run).r2),
        "p of the constraint": trained.test(run, config.test_rows),
        MSE: mse(step.effect(basis(actions)), truth),
    }


def note(context: Context, case: Case, method: str, along: str, what: str, found: dict[str, float]) -> None:
    """Records of one encoder."""
    for metric, value in found.items():
        context.record(
            dataset=DATASET, method=method, metric=metric, seed=case.seed - FIRST_SEED, value=value,
            kind="robustness", **{along: what},
        )  # fmt: skip


def plain_cases(config: Config, context: Context) -> list[Case]:
    """Worlds that violate nothing."""
    return [make_case(config, FIRST_SEED + seed, rep.Design(m=config.observed), config.rows) for seed in context.seeds]


def dimension(config: Config, context: Context) -> None:
    """Codes with a coordinate too few and too many, and what the first stage's report says of them."""
    cases = plain_cases(config, context)
    for d in (1, 2, 3):
        choice = Choice((config.lam,), coder(config, d), restarts=1)
        trained = train(config, context, f"dimension-{d}", cases, config.steps, choice)
        for run, case in enumerate(cases):
            w = trained.codes(run, case.sample.x, case.sample.a)
            report = rep.SecondStep(w, case.sample.a, np.zeros(len(w))).strength()
            found = {"R^2": float(trained.recovered(run).r2)}
            values = {"relative": report.relative, "effect": report.effect, "noise": report.noise}
            for name, parts in values.items():
                found |= {f"singular value {i + 1} ({name})": float(value) for i, value in enumerate(parts)}
            note(context, case, "AE-MMR", "encoder", f"d = {d}", found)


def ablations(config: Config, context: Context) -> None:
    """Other estimators, scales, batches and restarts, lambda by rule and by dual ascent, permuted actions."""
    cases, d = plain_cases(config, context), coder(config, 2)
    lam, frequencies = (config.lam,), jax.random.normal(jax.random.key(128), (2, 128))
    choices = {
        "whitened V": Choice(lam, d, restarts=3),
        "whitened U": Choice(lam, d, rep.u_statistic, restarts=1),
        "whitened, 256 random features": Choice(lam, d, rep.fourier_statistic(frequencies), restarts=1),
        "polynomial moments": Choice(lam, d, rep.polynomial_statistic, restarts=1),
        "raw V": Choice(lam, d, scale=rep.raw, restarts=1),
        "raw U": Choice(lam, d, rep.u_statistic, rep.raw, restarts=1),
        "batch 128": Choice(lam, d, batch=min(128, config.batch), restarts=1),
        "batch 1,024": Choice(lam, d, batch=2 * config.batch, restarts=1),
    }
    for name, choice in choices.items():
        trained = train(config, context, name.replace(" ", ""), cases, config.steps, choice)
        for run, case in enumerate(cases):
            note(context, case, name, "ablation", name, {"R^2": float(trained.recovered(run).r2)})
            if trained.others.shape[1] > 1:
                restarts(context, case, trained.others[run])
    penalty_weight(config, context, cases)
    placebo(config, context, cases)


def restarts(context: Context, case: Case, r2: np.ndarray) -> None:
    """R^2 of every restart of a world."""
    for i, value in enumerate(r2):
        note(context, case, f"restart {i + 1}", "ablation", "restarts", {"R^2": float(value)})


def penalty_weight(config: Config, context: Context, cases: list[Case]) -> None:
    """The grid of lambdas with its rule, and the multiplier that keeps the reconstruction under the same cut-off."""
    grid = train(
        config, context, "lambdas", cases, config.steps,
        Choice((0.0, *config.lambdas), coder(config, 2), restarts=1),
    )  # fmt: skip
    count, limits = 1 + len(config.lambdas), []
    for world, case in enumerate(cases):
        runs = range(world * count, (world + 1) * count)
        plain, *errors = grid.reconstruction[list(runs)].tolist()
        limits.append(rep.cutoff(plain, float(case.rows.x.var(axis=0).mean())))
        best = rep.largest_lambda(config.lambdas, errors, limits[-1])
        for run in runs:
            found = {"R^2": float(grid.recovered(run).r2), "reconstruction": float(grid.reconstruction[run])}
            note(context, case, f"lambda {grid.lam[run]:g}", "ablation", "lambda", found)
            if grid.lam[run] == np.float32(best):
                note(context, case, "lambda by rule", "ablation", "lambda", found | {"lambda": best})
    choice = Choice((0.0,), coder(config, 2), limits=np.asarray(limits), restarts=1)
    trained = train(config, context, "constrained", cases, config.steps, choice)
    for run, case in enumerate(cases):
        found = {"R^2": float(trained.recovered(run).r2), "reconstruction": float(trained.reconstruction[run])}
        note(context, case, "lambda by dual ascent", "ablation", "lambda", found)


def placebo(config: Config, context: Context, cases: list[Case]) -> None:
    """Actions of other rows must take away what the restriction gains."""
    rng = np.random.default_rng(3)
    permuted = [case._replace(rows=case.rows._replace(a=rng.permutation(case.rows.a))) for case in cases]
    choice = Choice((0.0, config.lam), coder(config, 2), restarts=1)
    trained = train(config, context, "placebo", permuted, config.steps, choice)
    for run, world in enumerate(trained.world):
        method = f"{NAMES[trained.lam[run] > 0]}, permuted A"
        note(context, cases[world], method, "ablation", "permuted actions", {"R^2": float(trained.recovered(run).r2)})


def more_actions(config: Config, context: Context) -> None:
    """Four actions for two latents: the over-identification test with and without a direct effect on a linear Y."""
    design = rep.Design(2, config.observed, more=2)
    cases = [make_case(config, FIRST_SEED + seed, design, config.rows) for seed in context.seeds]
    choice = Choice((config.lam,), coder(config, 2), restarts=1)
    trained = train(config, context, "more-actions", cases, config.steps, choice)
    for run, case in enumerate(cases):
        note(context, case, "AE-MMR", "actions", "four actions", {"R^2": float(trained.recovered(run).r2)})
        tested(context, case, "AE-MMR", trained.codes(run, case.sample.x, case.sample.a))
    for repeat in range(min(100, config.tests)):
        tested(context, make_case(config, 1_000 + repeat, design, config.rows), "oracle", None)


def tested(context: Context, case: Case, method: str, w: np.ndarray | None) -> None:
    """p-values of the over-identification test on codes, or on the latents."""
    for direct in (0.0, 0.2):
        y = rep.Outcomes(bent=0.0, direct=direct).draw(case.world, case.sample, case.seed)
        p = overidentified(case.sample.z if w is None else w, case.sample.a, y)
        note(context, case, method, "actions", f"direct effect {direct:g}", {"p of over-identification": p})


PARTS: dict[str, Callable[[Config, Context], None]] = {
    "dimension": dimension,
    "assumptions": assumptions,
    "more actions": more_actions,
}
