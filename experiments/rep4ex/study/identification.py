"""Whether latents are found up to an affine map, whether the constraint's test tells when they are not; cost."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import optax

from causal import rep4ex as rep
from core.bench import first_call
from core.calls import steps_call
from experiments.lab import Context
from experiments.rep4ex.config import Config
from experiments.rep4ex.study.training import NAMES, cases_of, coder, named, place, runs, train


def dimension(d: int) -> Callable[[Config, Context], None]:
    """R^2 by strength of the intervention, encoders of all strengths and seeds as one program."""

    def measure(config: Config, context: Context) -> None:
        designs = [rep.Design(d, config.observed, a) for a in (config.strengths if d == 2 else config.strengths_wide)]
        cases = [case for design in designs for case in cases_of(config, range(config.worlds), design)]
        way = {"coder": coder(config, d), "restarts": config.restarts}
        note_runs(config, context, train(config, context, f"identification-{d}", cases, (0.0, config.lam), **way))
        for case in cases:
            found = case.recovered(case.components())
            place(context, case, method="PCA").record_all({"R^2": found.r2, "MCC": found.mcc})

    return measure


def images(config: Config, context: Context) -> None:
    """The same latents seen as the place of a bump in an image."""
    cases = cases_of(config, context.seeds[: config.image_seeds], rep.Design(), generator=rep.gen3)
    way = {"coder": rep.ImageAutoencoder(2), "steps": config.image_steps}
    note_runs(config, context, train(config, context, "images", cases, (0.0, config.lam), **way), "images, alpha = 2")


def note_runs(config: Config, context: Context, trained: rep.TrainedCases, dataset: str = "") -> None:
    """R^2 and MCC of the kept encoders in the main table; how they were chosen, and the constraint's test, beside."""
    for run, case, method in runs(trained):
        at, found = place(context, case, dataset, method=method), trained.recovered(run)
        at.record_all({"R^2": found.r2, "MCC": found.mcc})
        beside = {
            "reconstruction": trained.reconstruction[run], "restriction": trained.restriction[run],
            "R^2 of the worst restart": trained.others[run].min(), "R^2 of the first restart": trained.others[run, 0],
            "p of the constraint": trained.test(run, config.test_rows),
        }  # fmt: skip
        at.record_all(beside, kind="encoder")


def size(config: Config, context: Context) -> None:
    """How often the test rejects an affine map of the latents, a bent one, and the codes of plain autoencoders."""
    design = rep.Design(2, config.observed)
    at = context.at(dataset=named(2, design.alpha), part="size of the test")
    for repeat in range(config.tests):
        _, sample = rep.gen1(100_000 + repeat, config.test_rows, design)
        codes = {"affine map": sample.z @ np.array([[1.0, 0.4], [-0.3, 0.8]]) + 1.0}
        if repeat < 100:
            codes["z + 0.3 z^2"] = sample.z + 0.3 * sample.z**2
        for method, w in codes.items():
            at.record("p of the constraint", rep.constraint_p(w, sample.a), method=method, seed=repeat)
    trained = train(config, context, "plain", cases_of(config, range(config.plain_worlds), design), (0.0,))
    for run in range(config.plain_worlds):
        at.record("p of the constraint", trained.test(run, config.test_rows), method=NAMES[False], seed=run)


def cost(config: Config, context: Context) -> None:
    """Seconds of some steps of one run, and of all seeds x strengths x two lambdas as one vmapped scan."""
    worlds = config.cost_seeds * config.cost_strengths
    programs = (("one run", 1, program(config, 1, 1)), ("one program", 2 * worlds, program(config, worlds, 2)))
    for repeat in range(config.cost_repeats):
        for method, count, call in programs:
            start = time.process_time()
            taken = {"seconds": first_call(call), "CPU seconds": time.process_time() - start}
            at = context.at(dataset="cost", method=method, seed=repeat, part="cost", runs=count)
            at.record_all({metric: value / config.cost_steps for metric, value in taken.items()})


def program(config: Config, worlds: int, lambdas: int) -> Callable[[], Any]:
    """A compiled call of some steps of a pool of runs, all vmapped."""
    drawn = [rep.gen1(seed, config.rows, rep.Design(m=config.observed))[1] for seed in range(worlds)]
    run = np.arange(worlds * lambdas)
    rows = [rep.standardise(sample.x, sample.a) for sample in drawn]
    pool = rep.pool(rows, run % worlds, np.where(run < worlds, config.lam, 0.0))
    single = rep.representation_learner(coder(config), optax.adam(1e-3))
    return steps_call(rep.pool_learner(single, len(run), config.batch), pool, config.cost_steps)
