import numpy as np
import pandas as pd
import pytest

from core.errors import ConfigError
from experiments.jepa_linear import PAIRS, SYSTEM, Config
from experiments.jepa_linear.claims import (
    judge_cost,
    judge_ends,
    judge_first_learned,
    judge_minibatches,
    judge_slow_and_fast,
)
from experiments.lab import registry, runs
from experiments.lab.runner import execute

TINY = ("depths=1", "simulated_depths=3", "replications=2", "until=40", "until_mae=16", "grid=2", "cost_steps=10",
        "slow_until=100", "batch_until=20")  # fmt: skip
CELLS = {
    "curves",
    "critical times",
    "phase diagram",
    "pairs",
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
    assert set(frame["part"]) >= CELLS - {"ranks"}
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


def shares(metric, method, share, variant="population", runs=100, **place) -> list[dict]:
    """A hundred runs with the given share of ones."""
    at = {"dataset": "mixed", "L": 3, "metric": metric, "method": method, "variant": variant, **place}
    return [at | {"seed": seed, "value": float(seed < round(runs * share))} for seed in range(runs)]


def firsts(jepa, mae, variant="population") -> list[dict]:
    metric = "first has largest lambda"
    return shares(metric, "JEPA", jepa, variant) + shares(metric, "MAE", mae, variant)


@pytest.mark.parametrize(
    ("jepa", "mae", "met"), [(0.0, 0.9, True), (0.0, 0.7, None), (0.0, 0.5, False), (0.01, 1.0, False)]
)
def test_the_first_feature_is_judged_by_both_losses(jepa, mae, met):
    idle = shares("nothing learned", "JEPA", 0.03) + shares("features dropped", "JEPA", 1.0, runs=1)
    verdict = judge_first_learned(pd.DataFrame(firsts(jepa, mae) + idle))
    assert verdict.met is met
    assert "3 starts learned nothing, 1 features dropped" in verdict.value
    assert verdict.interval[0] < mae < verdict.interval[1] or mae == 1


@pytest.mark.parametrize(
    ("jepa", "noisy", "mae", "met"),
    [(1.0, 0.05, 1.0, True), (0.6, 0.05, 1.0, False), (1.0, 0.4, 1.0, False), (1.0, 0.05, 0.5, False),
     (0.8, 0.05, 1.0, None)],
)  # fmt: skip
def test_ends_are_judged_of_all_features_together(jepa, noisy, mae, met):
    metric = "ends at its fixed point"
    found = shares(metric, "JEPA", 1.0, feature=0) + shares(metric, "JEPA", jepa, feature=2)
    found += shares(metric, "JEPA", noisy, feature=3)
    found += [row for f in range(3) for row in shares(metric, "MAE", mae, feature=f)]
    assert judge_ends(pd.DataFrame(found)).met is met


def pairs(first, **changed) -> pd.DataFrame:
    """Orders of two features in theory and simulation: of JEPA on dynamic views as given, else fast first."""
    rows = []
    for kind in ("theory", "gradient descent"):
        for name in PAIRS:
            for method in ("JEPA", "MAE"):
                slow = [True] * 5 if name.startswith("static") else first if method == "JEPA" else [False] * 5
                for depth, is_slow in enumerate(changed.get(method, {}).get(name, slow), 1):
                    at = {"dataset": name, "method": method, "L": depth, "kind": kind, "seed": 0}
                    times = (1.0, 2.0) if is_slow else (2.0, 1.0)
                    rows += [at | {"metric": "critical time of a pair", "feature": feature, "value": t}
                             for feature, t in zip(("first", "second"), times, strict=True)]  # fmt: skip
    return pd.DataFrame(rows)


def test_slow_and_fast_are_judged_at_every_depth_and_a_third_pair_is_told():
    expected, third = [False, False, True, True, True], "dynamic: (1, .9), (4, .3)"
    assert judge_slow_and_fast(pairs(expected)).met is True
    assert judge_slow_and_fast(pairs([False] * 5)).met is False
    assert judge_slow_and_fast(pairs(expected, JEPA={third: [False] * 5})).met is True
    assert judge_slow_and_fast(pairs(expected, MAE={"static: 1, .5": [False] * 5})).met is False
    frame = pairs(expected)
    never = (
        (frame["dataset"] == third) & (frame["feature"] == "second") & (frame["L"] > 3) & (frame["method"] == "JEPA")
    )
    frame.loc[never, "value"] = np.inf
    assert "2 features have no critical time" in judge_slow_and_fast(frame).value


@pytest.mark.parametrize(("slower", "met"), [(1.0, True), (1.2, False)])
def test_minibatches_need_the_same_times_and_firsts(slower, met):
    found = firsts(0.0, 0.95, "mini-batches")
    for method, feature in (("JEPA", 0), ("MAE", 1)):
        for variant, factor in (("same starts", 1.0), ("mini-batches", slower)):
            at = {"dataset": "mixed", "L": 3, "metric": "time of a feature", "method": method, "feature": feature}
            found += [at | {"variant": variant, "seed": s, "value": factor * (10 + s)} for s in range(20)]
    assert judge_minibatches(pd.DataFrame(found)).met is met


def test_features_that_start_above_what_they_can_learn_are_dropped_and_idle_starts_have_no_first(run):
    frame = run.frame
    dropped = frame[(frame["metric"] == "features dropped") & (frame["method"] == "JEPA")]
    mixed = dropped[(dropped["dataset"] == "mixed") & (dropped["variant"] == "population")]
    assert mixed["value"].tolist() == [2.0]  # half of 0.4^3 and of 0.3^3 lie below eps = 0.2
    idle = frame[frame["metric"] == "nothing learned"].groupby(["dataset", "variant", "method"])["value"].sum()
    first = frame[frame["metric"] == "first is slow"].groupby(["dataset", "variant", "method"])["value"].size()
    assert (idle + first.reindex(idle.index, fill_value=0) == 2).all()


@pytest.mark.parametrize(
    "settings", [{"share": 2.0}, {"depths": ()}, {"simulated_depths": (0,)}, {"eps": 0.0}, {"replications": 0},
                 {"until_mae": 0.1}]
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Config(**settings)


@pytest.mark.parametrize(("seconds", "met"), [(20.0, True), (61.0, False)])
def test_the_cost_is_that_of_the_full_length_only(seconds, met):
    place = {"part": "cost", "configurations": 1_000, "metric": "seconds", "seed": 0, "value": seconds}
    assert judge_cost(pd.DataFrame([{**place, "steps": 10_000}])).met is met
    assert judge_cost(pd.DataFrame([{**place, "steps": 1_000}])).met is None


@pytest.mark.parametrize("judge", [judge_first_learned, judge_ends, judge_slow_and_fast, judge_minibatches, judge_cost])
def test_without_records_nothing_is_judged(judge):
    assert judge(pd.DataFrame({"metric": [], "seed": [], "value": []})).met is None
