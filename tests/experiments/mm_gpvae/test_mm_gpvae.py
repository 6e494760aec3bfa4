import numpy as np
import pandas as pd
import pytest

from experiments.lab import registry, runs
from experiments.lab.runner import execute
from experiments.mm_gpvae import SYSTEM, claims
from tests.experiments.noise import noise as little

TINY = (
    "steps=4", "gpfa_steps=2", "trials=8", "test_trials=4", "bins=16", "circle=32", "neurons=6", "variants=MM-GPVAE",
    "neural_hidden=4", "behaviour_hidden=4", "decoder_hidden=4", "restarts=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs")
    folder = execute(registry.load("mm_gpvae"), preset="smoke", seeds=(0,), assignments=TINY, workdir=workdir)
    return runs.read(folder)


@pytest.mark.slow
def test_every_part_without_data_is_recorded_and_drawn(run):
    frame = run.frame
    assert set(frame["method"]) == {"MM-GPVAE", "GPFA", "CCA"}
    wanted = {"shared R2", "neural R2", "zoom R2", "rate R2", "image MSE", "shared R2, counts alone", "ELBO"}
    assert wanted < set(frame["metric"])
    assert set(SYSTEM.figures(frame)) == {"trajectories", "recovery"}
    table = next(iter(SYSTEM.tables(frame).values()))
    assert list(table["method"]) == ["MM-GPVAE", "GPFA", "CCA"]


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
    """Four seeds, two restarts; the second has the higher bound and counts."""
    found = []
    for method, metrics in by_method.items():
        for restart in (0, 1):
            at = {"restart": restart}
            found += rows("simulation", NAMES.get(method, method), "ELBO", [float(restart)] * 4, **at)
            for metric, mean in metrics.items():
                numbers = [mean * restart + 0.002 * i for i in range(4)]
                found += rows("simulation", NAMES.get(method, method), metric, numbers, **at)
    return pd.DataFrame(found)


NAMES = {
    "main": "MM-GPVAE", "time": "time domain", "mapped": "time domain with map", "images": "images only",
    "counts": "counts only", "ten": "N = 10", "one": "N = 1",
}  # fmt: skip


@pytest.mark.parametrize(("shared", "zoom", "met"), [(0.9, 0.7, True), (0.79, 0.7, False), (0.9, 0.59, False)])
def test_recovery_needs_all_three_latents(shared, zoom, met):
    frame = simulated(main={"shared R2": shared, "neural R2": 0.9, "zoom R2": zoom})
    assert claims.judge_recovery(frame).met is met


@pytest.mark.parametrize(("mapped", "met"), [(0.8, True), (0.95, False)])
def test_fourier_must_beat_both_time_domain_models(mapped, met):
    def of(value):
        return {"shared R2": value, "rate R2": value}

    assert claims.judge_domain(simulated(main=of(0.9), time=of(0.7), mapped=of(mapped))).met is met


@pytest.mark.parametrize(
    ("judge", "settings"),
    [
        (claims.judge_modalities, [{"main": 0.9, "images": 0.8, "counts": x} for x in (0.9, 0.95)]),
        (claims.judge_neurons, [{"main": 0.9, "ten": 0.8}, {"main": 0.9, "ten": 0.88}]),
        (claims.judge_one_neuron, [{"one": 0.9, "images": 0.88}, {"one": 0.9, "images": 0.8}]),
    ],
)  # fmt: skip
def test_shared_latents_are_compared_in_both_directions(judge, settings):
    for shared, met in zip(settings, (True, False), strict=True):
        frame = simulated(**{method: {"shared R2": value} for method, value in shared.items()})
        assert judge(frame).met is met


@pytest.mark.parametrize(("unpruned", "met"), [(0.91, True), (0.95, False)])
def test_pruning_may_cost_little(unpruned, met):
    def of(value):
        return {"shared R2": value, "neural R2": value, "zoom R2": value}

    assert claims.judge_pruning(simulated(main=of(0.9), unpruned=of(unpruned))).met is met


def test_lengths_and_rotations_are_ranges_over_runs():
    assert claims.judge_lengths(simulated(main={"shortest length": 8.0, "longest length": 12.0})).met is True
    assert claims.judge_lengths(simulated(main={"shortest length": 4.0, "longest length": 12.0})).met is False
    assert claims.judge_rotation(simulated(counts={"shared R2, fixed column": 0.9})).met is True
    assert claims.judge_rotation(simulated(counts={"shared R2, fixed column": 0.1})).met is False


def monkey(**metrics) -> pd.DataFrame:
    found = []
    for name, mean in metrics.items():
        method, metric = name.split("__")
        methods = {"average": claims.AVERAGE, "product": claims.PRODUCT, "ridge": "ridge regression"}
        words = {
            "bits": "bits/spike", "exchanged": "bits/spike, exchanged velocity", "length": "mean length",
            "blind": "velocity R2, counts alone", "short": "shortest length", "long": "longest length",
        }  # fmt: skip
        found += rows("chewie", methods[method], words[metric], [mean + 0.002 * i for i in range(4)])
    return pd.DataFrame(found)


@pytest.mark.parametrize(
    ("judge", "good", "bad"),
    [
        (claims.judge_above("bits/spike", 0.15), {"average__bits": 0.2}, {"average__bits": 0.13}),
        (
            claims.judge_exchanged,
            {"average__bits": 0.2, "average__exchanged": 0.1},
            {"average__bits": 0.2, "average__exchanged": 0.3},
        ),
        (
            claims.judge_poor_average,
            {"average__blind": 0.2, "ridge__blind": 0.5},
            {"average__blind": 0.6, "ridge__blind": 0.5},
        ),
        (
            claims.judge_above("velocity R2, counts alone", 0.4, claims.PRODUCT),
            {"product__blind": 0.5},
            {"product__blind": 0.3},
        ),
        (
            claims.judge_monkey_lengths,
            {"average__length": 7, "average__short": 6, "average__long": 8},
            {"average__length": 11, "average__short": 6, "average__long": 8},
        ),
    ],
)
def test_real_recordings_are_judged_by_intervals(judge, good, bad):
    assert judge(monkey(**good)).met is True
    assert judge(monkey(**bad)).met is False


def timed(power_step, power_dense) -> pd.DataFrame:
    found = []
    for domain, power in (("fourier", power_step), ("time", power_dense)):
        for bins in (128, 256, 512):
            for trials in (16, 32):
                at = {"bins": bins, "trials": trials}
                step = [(bins / 128) ** power * trials / 16 * (1 + 0.01 * i) for i in range(5)]
                found += rows("timing", domain, "seconds of a step", step, **at)
                found += rows("timing", domain, "seconds of the divergence", step, **at)
    return pd.DataFrame(found)


def test_growth_of_time_is_judged_by_ratios():
    assert claims.judge_linear(timed(1.0, 3.0)).met is True
    assert claims.judge_linear(timed(2.0, 3.0)).met is False
    assert claims.judge_cubic(timed(1.0, 2.5)).met is True
    assert claims.judge_cubic(timed(1.0, 0.9)).met is False


@pytest.mark.parametrize("claim", [c for c in claims.CLAIMS if hasattr(c.evidence, "judge")], ids=lambda c: c.number)
def test_without_records_nothing_is_judged(claim):
    for columns in ([], ["dataset", "method", "restart", "part", "bins", "trials"]):
        frame = pd.DataFrame({"metric": [], "seed": [], "value": [], **{c: [] for c in columns}})
        assert claim.evidence.judge(frame).met is None
