import numpy as np
import pandas as pd
import pytest

from core.errors import ConfigError
from experiments.jepa_linear import SYSTEM, Config
from experiments.jepa_linear.claims import EQUAL_NOISE, PAIRS
from experiments.lab import registry, runs
from experiments.lab.runner import execute
from tests.experiments.jepa_linear import TINY

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
    assert all(draw(frame) is not None for stem, draw in SYSTEM.figures.items() if stem != "rank_correlations")
    tables = [table(frame) for table in SYSTEM.tables.values()]
    assert {"dataset", "variant", "method", "L", "first is slow"} < set(tables[0].columns)
    assert len(tables[-1]) == 16


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


EVIDENCE = {claim.number: claim.evidence for claim in SYSTEM.claims}
JUDGED = ("8a", "8b", "9b", "9c", "11", "12b")


def judged(number, found):
    return EVIDENCE[number](pd.DataFrame(found))


def shares(metric, method, share, variant="population", runs=100, **place) -> list[dict]:
    """A hundred runs with the given share of ones."""
    at = {"dataset": "mixed", "L": 3, "metric": metric, "method": method, "variant": variant, **place}
    return [at | {"seed": seed, "value": float(seed < round(runs * share))} for seed in range(runs)]


def firsts(jepa, mae, variant="population", idle=0.0) -> list[dict]:
    """Idle starts of JEPA have no first feature; its others learn the one of largest covariance in a share ``jepa``."""
    rows = shares("nothing learned", "JEPA", idle, variant) + shares("nothing learned", "MAE", 0, variant)
    for metric, learned in (("first has largest lambda", jepa), ("first has largest rho", 1 - jepa)):
        mine = shares(metric, "JEPA", learned, variant)
        rows += mine[round(len(mine) * idle) :] + shares(metric, "MAE", mae, variant)
    dropped = {"dataset": "mixed", "L": 3, "metric": "features dropped", "variant": variant, "seed": 0}
    return [*rows, dropped | {"method": "JEPA", "value": 2.0}, dropped | {"method": "MAE", "value": 0.0}]


@pytest.mark.parametrize(
    ("jepa", "mae", "idle", "met"),
    [(0.0, 0.9, 0.0, True), (0.0, 0.9, 0.03, True), (0.0, 0.7, 0.0, None), (0.0, 0.5, 0.0, False),
     (0.01, 1.0, 0.0, False)],
)  # fmt: skip
def test_the_first_feature_is_judged_by_both_losses(jepa, mae, idle, met):
    verdict = judged("8a", firsts(jepa, mae, idle=idle))
    assert verdict.met is met
    assert f"JEPA, nothing learned {idle:.2f}" in verdict.value
    assert "JEPA, features dropped 2" in verdict.value


def test_a_start_that_learns_nothing_counts_against_mae_and_a_missing_one_leaves_it_open():
    found = firsts(0.0, 0.8)
    rows = [r for r in found if not (r["metric"] == "first has largest lambda" and r["method"] == "MAE")]
    rows += [r for r in found if r["metric"] == "first has largest lambda" and r["method"] == "MAE"][:70]
    assert judged("8a", rows).met is None  # 30 starts say neither what was first nor that nothing was learned
    for row in rows:
        if row["metric"] == "nothing learned" and row["method"] == "MAE":
            row["value"] = float(row["seed"] >= 70)
    assert judged("8a", rows).met is None  # 70 of 100
    for row in rows:
        if row["metric"] == "first has largest lambda" and row["method"] == "MAE":
            row["value"] = float(row["seed"] < 50)
    assert judged("8a", rows).met is False


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
    assert judged("8b", found).met is met


def pairs(jepa=(False, False, True, True, True), off=0.0, **changed) -> pd.DataFrame:
    """Times of two features in theory and simulation: of JEPA on dynamic views as given, else fast first."""
    rows = []
    for kind, factor in (("theory", 1.0), ("gradient descent", 1.0 + off)):
        for name in (*PAIRS, EQUAL_NOISE):
            for method in ("JEPA", "MAE"):
                slow = [True] * 5 if name == EQUAL_NOISE else jepa if method == "JEPA" else [False] * 5
                for depth, is_slow in enumerate(changed.get(method, {}).get(name, slow), 1):
                    at = {"dataset": name, "method": method, "L": float(depth), "kind": kind, "seed": 0}
                    times = (1.0, 2.0) if is_slow else (2.0, 1.0)
                    rows += [at | {"metric": "critical time of a pair", "feature": feature, "value": factor * t}
                             for feature, t in zip(("first", "second"), times, strict=True)]  # fmt: skip
    return pd.DataFrame(rows)


def test_slow_and_fast_are_judged_at_every_depth():
    assert judged("9b", pairs()).met is True
    assert judged("9b", pairs([False] * 5)).met is False
    assert judged("9b", pairs(MAE={EQUAL_NOISE: [False] * 5})).met is False
    frame = pairs()
    noisy = (frame["dataset"] == PAIRS[0]) & (frame["feature"] == "second") & (frame["method"] == "JEPA")
    frame.loc[noisy & (frame["L"] == 5), "value"] = np.inf
    assert judged("9b", frame).met is False  # what is never learned is not late but not there
    assert judged("9b", pairs().iloc[1:]).met is None


@pytest.mark.parametrize(("off", "met"), [(0.001, True), (0.01, False), (-0.03, False)])
def test_gradient_descent_must_have_the_times_of_quadrature(off, met):
    assert judged("9c", pairs(off=off)).met is met


def times(slower, variant, method, feature) -> list[dict]:
    at = {"dataset": "mixed", "L": 3, "metric": "time of a feature", "method": method, "feature": feature}
    return [at | {"variant": variant, "seed": s, "value": slower * (10 + s)} for s in range(100)]


@pytest.mark.parametrize(
    ("slower", "never", "idle", "met"),
    [(1.0, 0, 0.0, True), (1.2, 0, 0.0, False), (0.8, 0, 0.0, False), (1.0, 45, 0.0, None), (1.0, 0, 0.15, None),
     (1.0, 0, 0.3, False)],
)  # fmt: skip
def test_minibatches_need_the_same_times_and_firsts(slower, never, idle, met):
    found = firsts(0.0, 0.9, "mini-batches", idle) + firsts(0.0, 0.9, "same starts")
    for method, feature in (("JEPA", 0), ("MAE", 1)):
        for variant, factor in (("same starts", 1.0), ("mini-batches", slower)):
            rows = times(factor, variant, method, feature)
            for row in rows[:never]:
                row["value"] = np.inf
            found += rows
    assert judged("11", found).met is met
    assert judged("11", found[:-1]).met in (None, False)


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
    assert judged("12b", [{**place, "steps": 10_000}]).met is met
    assert judged("12b", [{**place, "steps": 1_000}]).met is None


@pytest.mark.parametrize("number", JUDGED)
def test_without_records_nothing_is_judged(number):
    assert judged(number, {"metric": [], "seed": [], "value": []}).met is None
