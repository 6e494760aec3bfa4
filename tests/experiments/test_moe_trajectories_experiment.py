import re

import numpy as np
import pandas as pd
import pytest

from experiments.bench import growth
from experiments.lab import registry, runs
from experiments.lab.runner import execute
from experiments.lab.system import ShownByRecords
from experiments.moe_trajectories import claims
from experiments.moe_trajectories.figures import figures, tables

TINY = (
    "persons=120",
    "replications=2",
    "compared=2",
    "batches=1,2",
    "lanes=2",
    "trees=2",
    "forest_persons=220",
    "forest_depth=1",
    "refitted=1",
)


@pytest.mark.slow
def test_a_tiny_run_records_tables_and_figures_and_a_second_has_nothing_to_do(tmp_path):
    system = registry.load("moe_trajectories")
    folder = execute(system, preset="smoke", seeds=(0,), assignments=TINY, workdir=tmp_path)
    run = runs.read(folder)
    assert {"simulated", "simulation", "comparison", "batches", "forest"} <= set(run.frame["dataset"])
    assert set(figures(run.frame)) == {"trajectories", "simulation", "importance"}
    assert {"Simulation", "Importance of covariates in the SEM forest"} <= set(tables(run.frame))
    before = (folder / runs.RECORDS).stat().st_size
    execute(system, preset="smoke", seeds=(0,), assignments=TINY, workdir=tmp_path)
    assert (folder / runs.RECORDS).stat().st_size == before


def rows(**columns) -> pd.DataFrame:
    return pd.DataFrame({"seed": 0, "method": "full MoE", **columns})


def simulated(bias=0.0, covered=0.94, ratio=1.0) -> pd.DataFrame:
    terms = [(k, t) for k in (1, 2) for t in ("intercept", "knot", "ex1 on slope 1", "variance of slope 1")]
    measured = {
        "relative bias": bias, "relative bias SE": 0.001, "coverage": covered, "replications": 200.0,
        "empirical SE": ratio, "mean SE": 1.0,
    }  # fmt: skip
    found = [(k, t, m, v) for k, t in terms for m, v in measured.items()]
    return rows(
        dataset="simulation",
        **{c: [f[i] for f in found] for i, c in enumerate(("class", "parameter", "metric", "value"))},
    )


@pytest.mark.parametrize(
    ("judge", "good", "bad"),
    [
        (claims.judge_bias, {}, {"bias": 0.1}),
        (claims.judge_coverage, {}, {"covered": 0.7}),
        (claims.judge_standard_errors, {}, {"ratio": 2.0}),
    ],
)
def test_the_simulation_is_judged_in_both_directions(judge, good, bad):
    assert judge(simulated(**good)).met is True
    assert judge(simulated(**bad)).met is False


def replicates(dataset, method, metric, mean, **columns) -> pd.DataFrame:
    values = mean + 0.02 * np.random.default_rng(len(method)).standard_normal(60)
    place = {"dataset": dataset, "method": method, "metric": metric, **columns}
    return pd.DataFrame({**place, "seed": range(60), "value": values})


@pytest.mark.parametrize(("full", "met"), [(0.89, True), (0.87, None), (0.85, False)])
def test_accuracy_is_a_paired_comparison(full, met):
    frame = pd.concat(
        [replicates("comparison", m, "accuracy", v) for m, v in (("full MoE", full), ("finite mixture", 0.874))]
    )
    assert claims.judge_accuracy(frame).met is met


@pytest.mark.parametrize(("two", "met"), [((0.294, 0.393), True), ((0.405, 0.531), False)])
def test_two_steps_must_lie_below_truth_and_one_step(two, met):
    frame = pd.concat(
        [
            replicates("comparison", m, "gating", b, covariate=c)
            for m, bs in (("full MoE", (0.41, 0.55)), ("two steps", two))
            for c, b in zip(("gx1", "gx2"), bs, strict=True)
        ]
    )
    assert claims.judge_two_steps(frame).met is met


@pytest.mark.parametrize(("first", "met"), [(3.5, True), (3.6, False)])
def test_knots_must_be_unbiased(first, met):
    found = [replicates("comparison", "finite mixture", "knot", v, **{"class": k}) for k, v in ((1, first), (2, 5.5))]
    assert claims.judge_knots(pd.concat(found)).met is met


@pytest.mark.parametrize(("wrong", "met"), [(1, True), (2, False)])
def test_a_forest_may_miss_in_one_of_five_seeds(wrong, met):
    names = ["ex1", "ex2", "gx1", "gx2", "noise 1"]
    found = [
        {"dataset": "forest", "metric": "importance", "method": "SEM forest", "seed": s, "covariate": c,
         "value": float(i if s < wrong else -i)}
        for s in range(5) for i, c in enumerate(names)
    ]  # fmt: skip
    assert claims.judge_forest(pd.DataFrame(found)).met is met


@pytest.mark.parametrize(("off", "met"), [(0.0, True), (0.05, False)])
def test_the_published_table_is_compared_entry_by_entry(off, met):
    found = [
        {
            "dataset": "example",
            "method": "full MoE",
            "metric": m,
            "seed": 0,
            "class": k,
            "parameter": t,
            "value": v * (1 + off),
        }
        for (k, t), values in claims.OPENMX.items()
        for m, v in zip(("estimate", "SE", "sandwich SE"), values, strict=True)
    ]
    assert claims.judge_published_table(pd.DataFrame(found)).met is met


@pytest.mark.parametrize(("value", "met"), [(claims.ONE_CLASS + 1e-6, True), (claims.ONE_CLASS + 1, False)])
def test_the_published_deviance_is_met_to_four_digits(value, met):
    frame = rows(dataset="mathematics", metric="-2 log L", value=[value]).assign(method="1 classes")
    assert claims.judge_one_class(frame).met is met


@pytest.mark.parametrize(("value", "met"), [(31170.39, True), (31171.413, False)])
def test_a_better_optimum_must_be_lower_by_more_than_rounding(value, met):
    frame = rows(dataset="mathematics", metric="reached", value=[value, 31200.0]).assign(method="2 classes")
    assert claims.judge_two_classes(frame).met is met


def test_the_table_of_estimates_holds_errors_and_intervals():
    found = [
        {"class": 1.0, "parameter": "knot", "metric": metric, "value": value}
        for metric, value in (("estimate", 3.5), ("SE", 0.1), ("sandwich SE", 0.2))
    ]
    row = tables(pd.DataFrame(found).assign(dataset="example", method="full MoE", seed=0))[
        "Full mixture, estimates"
    ].iloc[0]
    assert row["95 % interval"] == "[3.304, 3.696]"
    assert row["sandwich SE"] == "0.2000"


JUDGES = [claim.evidence.judge for claim in claims.CLAIMS if isinstance(claim.evidence, ShownByRecords)]


@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: judge.__name__)
def test_without_records_nothing_is_judged(judge):
    assert judge(pd.DataFrame({"metric": [], "seed": [], "value": []})).met is None


@pytest.mark.slow
def test_the_bench_compares_one_likelihood_and_both_sides_reach_one_maximum(monkeypatch):
    monkeypatch.setattr(growth, "PERSONS", 150)
    monkeypatch.setattr(growth, "STARTS", (1, 2))
    monkeypatch.setattr(growth, "PEER_STARTS", 1)
    found = growth.run()
    assert [result.name for result in found] == [
        "growth mixture, 1 start",
        "growth mixture, 2 starts",
        "growth mixture, SE",
    ]
    ours, peers = map(float, re.findall(r"first start (-?[\d.]+), peer's (-?[\d.]+)", found[0].note)[0])
    assert ours == pytest.approx(peers, abs=0.01)
