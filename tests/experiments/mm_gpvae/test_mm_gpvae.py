import numpy as np
import pandas as pd
import pytest

from experiments.lab import registry, runs
from experiments.lab.plots import drawn
from experiments.lab.runner import execute
from experiments.mm_gpvae import SYSTEM, claims
from tests.experiments.mm_gpvae import TINY
from tests.experiments.noise import noise as little


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs")
    folder = execute(registry.load("mm_gpvae"), preset="smoke", seeds=(0,), assignments=TINY, workdir=workdir)
    return runs.read(folder)


@pytest.mark.slow
def test_every_part_without_data_is_recorded_and_drawn(run):
    frame = run.frame
    assert set(frame["method"]) == {"MM-GPVAE", "GPFA", "CCA", "fourier", "time"}
    wanted = {"shared R2", "neural R2", "zoom R2", "rate R2", "image MSE", "shared R2, counts alone", "ELBO"}
    assert wanted < set(frame["metric"])
    assert {"trajectory", "cost"} == set(frame["kind"].dropna())  # written beside the part that ends the run
    figures = {name for name, _ in drawn(SYSTEM.figures, frame)}
    assert figures == {"trajectories", "recovery", "scale", "scale_divergence"}
    table = SYSTEM.tables["Simulation: counts and a turning digit"](frame)
    assert list(table["method"]) == ["CCA", "GPFA", "MM-GPVAE"]


@pytest.mark.slow
def test_the_result_of_a_seed_is_its_best_restart(run):
    rows = run.frame[(run.frame["method"] == "MM-GPVAE") & (run.frame["metric"] == "ELBO")]
    assert rows["restart"].isna().sum() == 1
    assert rows["value"].max() == rows[rows["restart"].isna()]["value"].item()


@pytest.mark.slow
def test_a_second_run_has_nothing_to_do(run):
    before = (run.folder / runs.RECORDS).stat().st_size
    execute(registry.load("mm_gpvae"), preset="smoke", seeds=(0,), assignments=TINY, workdir=run.folder.parents[1])
    assert (run.folder / runs.RECORDS).stat().st_size == before


def rows(dataset, method, metric, numbers, **place):
    at = {"dataset": dataset, "method": method, "metric": metric, "restart": np.nan} | place
    return [at | {"seed": i, "value": v + little(method, metric, i)} for i, v in enumerate(numbers)]


def simulated(**by_method) -> pd.DataFrame:
    """Six seeds, two restarts; the second has the higher bound and counts."""
    found = []
    for method, metrics in by_method.items():
        for restart in (0, 1):
            at = {"restart": restart}
            found += rows("simulation", NAMES.get(method, method), "ELBO", [float(restart)] * 6, **at)
            for metric, mean in metrics.items():
                numbers = [mean * restart + 0.002 * i for i in range(6)]
                found += rows("simulation", NAMES.get(method, method), metric, numbers, **at)
    return pd.DataFrame(found)


NAMES = {
    "main": "MM-GPVAE", "time": "time domain", "mapped": "time domain with map", "images": "images only",
    "counts": "counts only", "ten": "N = 10", "one": "N = 1",
}  # fmt: skip


JUDGES = {claim.number: claim.evidence for claim in claims.CLAIMS if callable(claim.evidence)}


def latents(shared=0.9, neural=0.9, zoom=0.7):
    return {"shared R2": shared, "neural R2": neural, "zoom R2": zoom}


def shared(**by_method):
    return simulated(**{method: {"shared R2": value} for method, value in by_method.items()})


def both(value):
    return {"shared R2": value, "rate R2": value}


def lengths(shortest, longest):
    return {"shortest length": shortest, "longest length": longest}


def monkey(**metrics) -> pd.DataFrame:
    found = []
    for name, mean in metrics.items():
        method, metric = name.split("__")
        methods = {"average": claims.AVERAGE, "product": claims.PRODUCT, "ridge": "ridge regression"}
        words = {
            "bits": "bits/spike", "exchanged": "bits/spike, exchanged velocity", "velocity": "velocity R2",
            "blind": "velocity R2, counts alone", "short": "shortest length", "long": "longest length",
        }  # fmt: skip
        found += rows("chewie", methods[method], words[metric], [mean + 0.002 * (i % 5) for i in range(10)])
    return pd.DataFrame(found)


def timed(power_step, power_dense) -> pd.DataFrame:
    found = []
    for domain, power in (("fourier", power_step), ("time", power_dense)):
        for bins in (128, 256, 512):
            for trials in (16, 32):
                at = {"bins": bins, "trials": trials}
                step = [(bins / 128) ** power * trials / 16 * (1 + 0.01 * i) for i in range(6)]
                found += rows("timing", domain, "seconds of a step", step, **at)
                found += rows("timing", domain, "seconds of the divergence", step, **at)
    return pd.DataFrame(found)


CASES = [
    ("5", simulated(main=latents()), True),
    ("5", simulated(main=latents(shared=0.78)), False),
    ("5", simulated(main=latents(zoom=0.58)), False),
    ("5", simulated(main=latents(shared=0.795)), None),
    ("6", simulated(main=both(0.9), time=both(0.7), mapped=both(0.8)), True),
    ("6", simulated(main=both(0.9), time=both(0.7), mapped=both(0.95)), False),
    ("7", simulated(main=latents(), unpruned=latents(0.91, 0.91, 0.71)), True),
    ("7", simulated(main=latents(), unpruned=latents(shared=0.95)), False),
    ("8a", shared(main=0.9, images=0.8, counts=0.9), True),
    ("8a", shared(main=0.9, images=0.8, counts=0.95), False),
    ("8b", simulated(counts={"shared R2, fixed column": 0.9}), True),
    ("8b", simulated(counts={"shared R2, fixed column": 0.1}), False),
    ("9a", shared(main=0.9, ten=0.8), True),
    ("9a", shared(main=0.9, ten=0.88), False),
    ("9b", shared(one=0.9, images=0.88), True),
    ("9b", shared(one=0.9, images=0.8), False),
    ("10", simulated(main=lengths(8.0, 12.0)), True),
    ("10", simulated(main=lengths(4.0, 12.0)), False),
    ("11a", monkey(average__bits=0.22), True),
    ("11a", monkey(average__bits=0.18), False),
    ("11b", monkey(average__velocity=0.95), True),
    ("11b", monkey(average__velocity=0.9), False),
    ("11c", monkey(average__short=6.5, average__long=8.5), True),
    ("11c", monkey(average__short=6.5, average__long=9.5), False),
    ("11d", monkey(average__bits=0.2, average__exchanged=0.1), True),
    ("11d", monkey(average__bits=0.2, average__exchanged=0.3), False),
    ("11e", monkey(average__blind=0.2, ridge__blind=0.5), True),
    ("11e", monkey(average__blind=0.6, ridge__blind=0.5), False),
    ("11f", monkey(product__blind=0.5), True),
    ("11f", monkey(product__blind=0.3), False),
    ("12a", timed(1.0, 3.0), True),
    ("12a", timed(2.0, 3.0), False),
    ("12b", timed(1.0, 2.5), True),
    ("12b", timed(1.0, 0.9), False),
]


@pytest.mark.parametrize(
    ("number", "frame", "met"), CASES, ids=[f"{n}-{met}-{i}" for i, (n, _, met) in enumerate(CASES)]
)
def test_claims_are_met_not_met_or_open(number, frame, met):
    assert JUDGES[number](frame).met is met


@pytest.mark.parametrize("number", JUDGES)
def test_a_seed_that_failed_leaves_a_claim_open(number):
    failed = next(frame for other, frame, met in CASES if other == number and met).reset_index(drop=True)
    failed.loc[failed["seed"] == 5, "value"] = np.nan
    assert JUDGES[number](failed).met is None


@pytest.mark.parametrize("number", JUDGES)
def test_without_records_nothing_is_judged(number):
    assert {other for other, _, _ in CASES} == set(JUDGES)
    for columns in ([], ["dataset", "method", "restart", "part", "bins", "trials"]):
        frame = pd.DataFrame({"metric": [], "seed": [], "value": [], **{c: [] for c in columns}})
        assert JUDGES[number](frame).met is None


def test_the_monkeys_recordings_are_judged_on_seeds_that_nothing_was_chosen_by():
    frame = monkey(average__velocity=0.95)
    assert JUDGES["11b"](frame[frame["seed"] < claims.LOOKED_AT]).met is None
    frame.loc[frame["seed"] < claims.LOOKED_AT, "value"] = 0.0
    assert JUDGES["11b"](frame).met is True


def test_as_many_restarts_count_as_the_others_have():
    frame = shared(main=0.9, ten=0.8)
    frame = frame[(frame["method"] == "MM-GPVAE") | (frame["restart"] == 0)]  # the first restart is at 0
    assert JUDGES["9a"](frame).met is False
