import numpy as np
import pandas as pd
import pytest

from experiments import registry, runs
from experiments.jepa_linear import SYSTEM
from experiments.jepa_linear_claims import judge_cost, judge_first_learned, judge_minibatches, judge_slow_and_fast
from experiments.runner import execute

TINY = ("depths=1", "simulated_depths=3", "replications=2", "until=8", "until_mae=4", "grid=2", "cost_steps=10")
PARTS = {
    "curves",
    "critical times",
    "phase diagram",
    "order mixed",
    "order dynamic",
    "order static",
    "ranks",
    "bottleneck",
    "cost",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs")
    folder = execute(registry.load("jepa_linear"), preset="smoke", seeds=(0,), assignments=TINY, workdir=workdir)
    return runs.read(folder)


def test_every_part_is_recorded_and_drawn(run):
    frame = run.frame
    assert set(frame["part"]) >= PARTS - {"ranks"}
    assert set(frame["method"]) == {"JEPA", "MAE"}
    assert set(SYSTEM.figures(frame)) >= {"learning_curves", "critical_times", "phase_diagram", "order_of_learning"}
    table = next(iter(SYSTEM.tables(frame).values()))
    assert {"views", "run", "quantity"} < set(table.columns)


def test_curves_of_theory_and_simulation_agree(run):
    curves = run.frame[run.frame["metric"] == "w/w*"].pivot_table(
        index=["method", "L", "lam", "rho", "t"], columns="kind", values="value"
    )
    assert len(curves) > 100
    np.testing.assert_allclose(curves["gradient descent"], curves["theory"], atol=4e-3)


def test_a_second_run_has_nothing_to_do(run):
    before = (run.folder / runs.RECORDS).stat().st_size
    execute(registry.load("jepa_linear"), preset="smoke", seeds=(0,), assignments=TINY, workdir=run.folder.parents[1])
    assert (run.folder / runs.RECORDS).stat().st_size == before


def frame(**shares) -> pd.DataFrame:
    """A hundred runs per (dataset, method, variant, metric) with the given share of ones."""
    rows = []
    for name, share in shares.items():
        dataset, method, variant, metric = name.split("__")
        for seed in range(100):
            value = float(seed < round(100 * share))
            place = {"dataset": dataset, "method": method, "variant": variant.replace("_", "-"), "L": 3}
            rows.append({**place, "metric": metric.replace("_", " "), "seed": seed, "value": value})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("jepa", "mae", "met"), [(0.95, 0.9, True), (0.9, 0.8, None), (0.9, 0.6, False), (0.6, 1.0, False)]
)
def test_the_first_feature_is_judged_by_the_shares_of_both_losses(jepa, mae, met):
    verdict = judge_first_learned(
        frame(mixed__JEPA__population__first_has_largest_rho=jepa, mixed__MAE__population__first_has_largest_lambda=mae)
    )
    assert verdict.met is met
    assert verdict.interval is not None
    assert verdict.interval[0] < jepa < verdict.interval[1]


def test_slow_and_fast_need_all_three_findings():
    good = {
        "dynamic__JEPA__population__first_is_slow": 1.0,
        "dynamic__MAE__population__first_is_slow": 0.1,
        "static__JEPA__population__first_learned": 0.5,
        "static__MAE__population__first_learned": 0.5,
    }
    assert judge_slow_and_fast(frame(**good)).met is True
    assert judge_slow_and_fast(frame(**{**good, "dynamic__MAE__population__first_is_slow": 0.5})).met is False
    assert judge_slow_and_fast(frame(**{**good, "static__MAE__population__first_learned": 0.0})).met is False


def test_minibatches_need_overlapping_intervals():
    name = "mixed__JEPA__{}__first_has_largest_rho"
    assert judge_minibatches(frame(**{name.format("population"): 0.8, name.format("mini_batches"): 0.75})).met is True
    assert judge_minibatches(frame(**{name.format("population"): 1.0, name.format("mini_batches"): 0.1})).met is False


@pytest.mark.parametrize(("seconds", "met"), [(20.0, True), (61.0, False)])
def test_the_cost_is_that_of_the_full_length_only(seconds, met):
    place = {"part": "cost", "configurations": 1_000, "metric": "seconds", "seed": 0, "value": seconds}
    assert judge_cost(pd.DataFrame([{**place, "steps": 10_000}])).met is met
    assert judge_cost(pd.DataFrame([{**place, "steps": 1_000}])).met is None


@pytest.mark.parametrize("judge", [judge_first_learned, judge_slow_and_fast, judge_minibatches, judge_cost])
def test_without_records_nothing_is_judged(judge):
    assert judge(pd.DataFrame({"metric": [], "seed": [], "value": []})).met is None
