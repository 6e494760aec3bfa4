import re

import numpy as np
import pandas as pd
import pytest

from experiments.bench import growth
from experiments.lab import registry, runs
from experiments.lab.plots import drawn
from experiments.lab.runner import execute
from experiments.lab.system import ShownByTest
from experiments.moe_trajectories import SYSTEM, claims
from tests.experiments.moe_trajectories import TINY

JUDGES = {claim.number: claim.evidence for claim in SYSTEM.claims if not isinstance(claim.evidence, ShownByTest)}


@pytest.mark.slow
def test_a_tiny_run_records_tables_and_figures_and_a_second_has_nothing_to_do(tmp_path):
    system = registry.load("moe_trajectories")
    folder = execute(system, preset="smoke", seeds=(0,), assignments=TINY, workdir=tmp_path)
    run = runs.read(folder)
    assert {"simulated", "simulation", "comparison", "batches", "forest"} <= set(run.frame["dataset"])
    assert {name for name, _ in drawn(SYSTEM.figures, run.frame)} == {"trajectories", "simulation", "importance"}
    there = {title for title, table in SYSTEM.tables.items() if len(table(run.frame))}
    assert set(SYSTEM.tables) - there == {"Number of classes, without covariates"}
    before = (folder / runs.RECORDS).stat().st_size
    execute(system, preset="smoke", seeds=(0,), assignments=TINY, workdir=tmp_path)
    assert (folder / runs.RECORDS).stat().st_size == before


def rows(**columns) -> pd.DataFrame:
    return pd.DataFrame({"seed": 0, "method": "full MoE", **columns})


def simulated(bias=0.0, covered=0.94, ratio=1.0, n=2_000, one=None) -> pd.DataFrame:
    """Records of the simulation; ``one`` gives a parameter numbers of its own."""
    terms = [(k, t) for k in (1, 2) for t in ("intercept", "knot", "ex1 on slope 1", "variance of slope 1")]
    found = []
    for place, (k, term) in enumerate(terms):
        measured = {
            "relative bias": bias, "relative bias SE": 0.05 / np.sqrt(n), "coverage": covered, "replications": float(n),
            "empirical SE": ratio, "mean SE": 1.0,
        } | (one if one and place == 0 else {})  # fmt: skip
        found += [{"class": k, "parameter": term, "metric": m, "value": v} for m, v in measured.items()]
    mean = pd.DataFrame({"metric": "share of parameters covered", "seed": range(60), "value": covered})
    mean["value"] += 0.01 * np.sin(mean["seed"])
    parts = [pd.DataFrame(found).assign(seed=0), mean]
    return pd.concat(parts, ignore_index=True).assign(dataset="simulation", method="full MoE")


@pytest.mark.parametrize(("number", "bad"), [("8a", {"bias": 0.1}), ("8b", {"covered": 0.7}), ("8c", {"ratio": 2.0})])
def test_the_simulation_is_judged_in_both_directions(number, bad):
    assert JUDGES[number](simulated()).met is True
    assert JUDGES[number](simulated(**bad)).met is False


@pytest.mark.parametrize(
    ("number", "one"),
    [("8a", {"relative bias": 0.0101}), ("8b", {"coverage": 0.897}), ("8c", {"empirical SE": 1.21})],
)
def test_a_parameter_beyond_its_limit_by_chance_leaves_the_item_open_and_is_named(number, one):
    verdict = JUDGES[number](simulated(one=one))
    assert verdict.met is None
    assert verdict.misses
    assert "intercept, class 1" in verdict.value


def test_two_hundred_data_sets_do_not_show_every_coverage():
    assert JUDGES["8b"](simulated(n=200)).met is None


def replicates(dataset, method, metric, mean, **columns) -> pd.DataFrame:
    values = mean + 0.02 * np.random.default_rng(len(method)).standard_normal(60)
    place = {"dataset": dataset, "method": method, "metric": metric, **columns}
    return pd.DataFrame({**place, "seed": range(60), "value": values})


@pytest.mark.parametrize(("full", "met"), [(0.89, True), (0.87, None), (0.85, False)])
def test_accuracy_is_a_paired_comparison(full, met):
    frame = pd.concat(
        [replicates("comparison", m, "accuracy", v) for m, v in (("full MoE", full), ("finite mixture", 0.874))]
    )
    assert JUDGES["9b"](frame).met is met


@pytest.mark.parametrize(("two", "met"), [((0.294, 0.393), True), ((0.405, 0.531), False)])
def test_two_steps_must_lie_below_truth_and_one_step(two, met):
    frame = pd.concat(
        [
            replicates("comparison", m, "gating", b, covariate=c)
            for m, bs in (("full MoE", (0.41, 0.55)), ("two steps", two))
            for c, b in zip(("gx1", "gx2"), bs, strict=True)
        ]
    )
    assert JUDGES["10b"](frame).met is met


@pytest.mark.parametrize(("first", "met"), [(3.5, True), (3.6, False)])
def test_knots_must_be_unbiased(first, met):
    found = [replicates("comparison", "finite mixture", "knot", v, **{"class": k}) for k, v in ((1, first), (2, 5.5))]
    assert JUDGES["10a"](pd.concat(found)).met is met


@pytest.mark.parametrize(("wrong", "met"), [(1, True), (2, False)])
def test_a_forest_may_miss_in_one_of_five_seeds(wrong, met):
    names = ["ex1", "ex2", "gx1", "gx2", "noise 1"]
    found = [
        {"dataset": "forest", "metric": "importance", "method": "SEM forest", "seed": s, "covariate": c,
         "value": float(i if s < wrong else -i)}
        for s in range(5) for i, c in enumerate(names)
    ]  # fmt: skip
    assert JUDGES["11"](pd.DataFrame(found)).met is met


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
    assert JUDGES["3b"](pd.DataFrame(found)).met is met


@pytest.mark.parametrize(("value", "met"), [(claims.ONE_CLASS + 1e-6, True), (claims.ONE_CLASS + 1, False)])
def test_the_published_deviance_is_met_to_four_digits(value, met):
    frame = rows(dataset="mathematics", metric="-2 log L", value=[value]).assign(method="1 classes")
    assert JUDGES["4"](frame).met is met


@pytest.mark.parametrize(("value", "met"), [(31170.39, True), (31171.413, False)])
def test_a_better_optimum_must_be_lower_by_more_than_rounding(value, met):
    frame = rows(dataset="mathematics", metric="reached", value=[value, 31200.0], start=[0, 1]).assign(
        method="2 classes"
    )
    assert JUDGES["13"](frame).met is met


def test_the_table_of_estimates_holds_errors_and_intervals():
    found = [
        {"class": 1.0, "parameter": "knot", "metric": metric, "value": value}
        for metric, value in (("estimate", 3.5), ("SE", 0.1), ("sandwich SE", 0.2))
    ]
    frame = pd.DataFrame(found).assign(dataset="example", method="full MoE", seed=0)
    row = SYSTEM.tables["Full mixture, estimates"](frame).iloc[0]
    assert (row["95 % from"], row["95 % to"]) == ("3.3040", "3.6960")
    assert row["sandwich SE"] == "0.2000"


def test_a_missing_entry_of_the_published_table_leaves_it_open():
    found = [
        {"dataset": "example", "method": "full MoE", "metric": m, "seed": 0, "class": k, "parameter": t, "value": v}
        for (k, t), values in list(claims.OPENMX.items())[1:]
        for m, v in zip(("estimate", "SE", "sandwich SE"), values, strict=True)
    ]
    assert JUDGES["3b"](pd.DataFrame(found)).met is None


@pytest.mark.parametrize(("times", "met"), [((0.09, 0.02, 0.01), True), ((0.02, 0.09, 0.01), False)])
def test_time_must_fall_from_batch_to_batch(times, met):
    found = [
        {"dataset": "batches", "method": "full MoE", "metric": "seconds per replication", "seed": s, "batch": b,
         "value": v * (1 + 0.02 * np.sin(s + b))}
        for b, v in zip((1, 8, 64), times, strict=True) for s in range(5)
    ]  # fmt: skip
    assert JUDGES["12a"](pd.DataFrame(found)).met is met


def test_classes_and_their_sharpness_are_judged_to_two_digits():
    def frame(accuracy):
        return pd.concat([replicates("simulation", "full MoE", m, v) for m, v in
                          (("accuracy", accuracy), ("entropy", 0.692))])  # fmt: skip

    close = frame(0.890)
    close["value"] = close.groupby("metric")["value"].transform(lambda x: x.mean() + (x - x.mean()) / 20)
    assert JUDGES["8d"](close).met is True
    assert JUDGES["8d"](frame(0.85)).met is False


@pytest.mark.parametrize("number", JUDGES)
def test_without_records_nothing_is_judged(number):
    assert JUDGES[number](pd.DataFrame({"metric": [], "seed": [], "value": []})).met is None


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
