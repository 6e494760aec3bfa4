"""Whether the latents are found up to an affine map, and whether the constraint's test tells when they are not."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from causal import rep4ex as rep
from experiments.lab.system import Context
from experiments.rep4ex.config import Config
from experiments.rep4ex.study.training import Case, Choice, Trained, make_case, recovered, tested, train

FIRST_SEED = 10
"""Of the worlds of identification; run seed s has world FIRST_SEED + s."""
NAMES = {True: "AE-MMR", False: "AE-Vanilla"}


def named(d: int, alpha: float) -> str:
    """A data set of identification."""
    return f"d = {d}, alpha = {alpha:g}"


def dimension(d: int) -> Callable[[Config, Context], None]:
    """R^2 by strength of the intervention, encoders of all strengths and seeds as one program."""

    def part(config: Config, context: Context) -> None:
        cases = [
            make_case(config, FIRST_SEED + seed, rep.Design(d, config.observed, alpha), config.rows)
            for alpha in (config.strengths if d == 2 else config.strengths_wide)
            for seed in range(config.worlds)
        ]
        coder = rep.Autoencoder(d, config.observed, config.hidden)
        trained = train(config, context, f"identification-{d}", cases, config.steps, Choice((0.0, config.lam), coder))
        for run, world in enumerate(trained.world):
            alpha, seed = cases[world].world.design.alpha, cases[world].seed - FIRST_SEED
            note_run(config, context, trained, run, named(d, alpha), NAMES[trained.lam[run] > 0], seed)
        for case in cases:
            note_components(context, case, named(d, case.world.design.alpha))

    return part


def note_run(config: Config, context: Context, trained: Trained, run: int, dataset: str, method: str, seed: int):
    """R^2 and MCC of the kept encoder in the main table; how it was chosen, and the constraint's test, beside."""
    found = trained.recovered(run)
    for metric, value in (("R^2", found.r2), ("MCC", found.mcc)):
        context.record(dataset=dataset, method=method, metric=metric, seed=seed, value=float(value))
    beside = {
        "reconstruction": trained.reconstruction[run],
        "restriction": trained.restriction[run],
        "R^2 of the worst restart": trained.others[run].min(),
        "R^2 of the first restart": trained.others[run, 0],
        "p of the constraint": trained.test(run, config.test_rows),
    }
    for metric, value in beside.items():
        context.record(dataset=dataset, method=method, metric=metric, seed=seed, value=float(value), kind="encoder")


def note_components(context: Context, case: Case, dataset: str) -> None:
    """The principal components of X as a code."""
    directions = np.asarray(rep.principal_components(jnp.asarray(case.rows.x), case.world.design.d))
    found = recovered(case.rows.like(case.fresh.x) @ directions, case.fresh.z)
    for metric, value in (("R^2", found.r2), ("MCC", found.mcc)):
        context.record(dataset=dataset, method="PCA", metric=metric, seed=case.seed - FIRST_SEED, value=float(value))


def size(config: Config, context: Context) -> None:
    """How often the test rejects an affine map of the latents, a bent one, and the codes of plain autoencoders."""
    place = {"metric": "p of the constraint", "part": "size of the test"}
    for repeat in range(config.tests):
        world, sample = rep.gen1(100_000 + repeat, config.test_rows, rep.Design(2, config.observed))
        affine = sample.z @ np.array([[1.0, 0.4], [-0.3, 0.8]]) + 1.0
        for method, code in (("affine map", affine), ("z + 0.3 z^2", sample.z + 0.3 * sample.z**2)):
            if method == "affine map" or repeat < 100:
                dataset, value = named(2, world.design.alpha), tested(code, sample.a)
                context.record(dataset=dataset, method=method, seed=repeat, value=value, **place)
    cases = [
        make_case(config, FIRST_SEED + seed, rep.Design(2, config.observed), config.rows)
        for seed in range(config.plain_worlds)
    ]
    choice = Choice((0.0,), rep.Autoencoder(2, config.observed, config.hidden), restarts=1)
    trained = train(config, context, "plain", cases, config.steps, choice)
    for run, case in enumerate(cases):
        context.record(
            dataset=named(2, case.world.design.alpha), method=NAMES[False], seed=run,
            value=trained.test(run, config.test_rows), **place,
        )  # fmt: skip


def images(config: Config, context: Context) -> None:
    """The same latents seen as the place of a bump in an image."""
    seeds: Sequence[int] = context.seeds[: config.image_seeds]
    cases = [make_case(config, FIRST_SEED + seed, rep.Design(), config.rows, rep.gen3) for seed in seeds]
    choice = Choice((0.0, config.lam), rep.ImageAutoencoder(2), restarts=1)
    trained = train(config, context, "images", cases, config.image_steps, choice)
    for run, world in enumerate(trained.world):
        method, seed = NAMES[trained.lam[run] > 0], cases[world].seed - FIRST_SEED
        note_run(config, context, trained, run, "images, alpha = 2", method, seed)
