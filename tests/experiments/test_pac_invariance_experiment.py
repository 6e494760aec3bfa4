import numpy as np
import pandas as pd
import pytest

from experiments.lab import registry, runs
from experiments.lab.runner import execute
from experiments.pac_invariance import SYSTEM, claims

TINY = (
    "samples=45000", "sizes=3,11", "repeats=2", "radii=0.02", "repeated=20", "bound_sizes=3,11", "pool=20", "dags=2",
    "trend_dags=2", "d=5", "sites=2", "trend_samples=1000,30000", "trend_sizes=3,8", "compared=5", "irm_steps=20",
    "mixings=2", "timed=1000",
)  # fmt: skip


@pytest.mark.slow
def test_a_tiny_run_records_draws_and_tabulates_every_part(tmp_path):
    folder = execute(
        registry.load("pac_invariance"), preset="smoke", seeds=(0,), assignments=TINY, workdir=tmp_path / "runs"
    )
    frame = runs.read(folder).frame
    assert {"study, N = 45000", "radius", "intercept", "cost", "bound", "trends", "indirect"} <= set(frame["part"])
    assert set(SYSTEM.figures(frame)) >= {"generalization", "radius", "bound", "random_sems", "methods", "indirect"}
    assert len(SYSTEM.tables(frame)) >= 3
    for claim in SYSTEM.claims:
        if hasattr(claim.evidence, "judge") and claim.number not in ("13a", "13b", "13c"):
            assert claim.evidence.judge(frame).met is None, f"{claim.number} is judged on two repeats"


def frame(rows) -> pd.DataFrame:
    return pd.DataFrame([{"seed": i, **row} for group in rows for i, row in enumerate(group)])


def repeats(values, **where):
    return [{"value": float(value), **where} for value in values]


def study(panel, metric, values, n=45_000, method="subsets"):
    return repeats(values, dataset=panel, method=method, metric=metric, N=n, m=11)


NOISE = np.linspace(-0.2, 0.2, 12)


@pytest.mark.parametrize(("share", "count", "met"), [(99, 12, True), (96, 12, False), (99, 11, False)])
def test_soft_to_soft_needs_both_share_and_number(share, count, met):
    made = frame(
        [
            study("soft + soft", claims.MEDIAN, share + NOISE),
            study("soft + soft", "accepted sets", count + NOISE),
        ]
    )
    assert claims.judge_soft(made).met is met


@pytest.mark.parametrize(("count", "met"), [(6, True), (9, False)])
def test_few_samples_must_accept_few_sets(count, met):
    made = frame([study("soft + soft", "accepted sets", count + NOISE, n=10_000)])
    assert claims.judge_few_samples(made).met is met


@pytest.mark.parametrize(("low", "high", "met"), [(0, 99, True), (1, 99, False), (0, 90, False)])
def test_two_sets_must_fail_and_two_hold_under_flipped_signs(low, high, met):
    at = {"dataset": "hard + rademacher", "metric": "generalization of a set %", "N": 45_000, "m": 11}
    shares = {"{3}": low, "{0, 3}": low, "{1, 3}": high, "{0, 1, 3}": high}
    made = frame([repeats(np.full(12, share), set=name, **at) for name, share in shares.items()])
    assert claims.judge_split(made).met is met


@pytest.mark.parametrize(("share", "met"), [(26, True), (19, False), (40, False)])
def test_sets_with_the_child_must_hold_in_a_quarter(share, met):
    at = {"dataset": "soft + rademacher", "metric": "generalization of a set %", "N": 45_000, "m": 11}
    made = frame([repeats(share + NOISE, set=f"{{{i}, 6}}", **at) for i in range(4)])
    assert claims.judge_child(made).met is met


@pytest.mark.parametrize(("share", "met"), [(0.5, True), (3, False)])
def test_least_squares_on_everything_must_fail(share, met):
    made = frame(
        [study("hard + hard", claims.MEDIAN, share + NOISE, n, "ERM") for n in (10_000, 15_000, 30_000, 45_000)]
    )
    assert claims.judge_erm(made).met is met


@pytest.mark.parametrize(("times", "met"), [(0, True), (40, True), (80, False)])
def test_frequencies_must_lie_below_the_bound_with_their_upper_limits(times, met):
    metric = "times a subset passes with V > z"
    made = frame(
        [
            repeats([times], metric=metric, m=m, z=z, radius=radius, repeats=2000, bound=63 * (1 - z) ** m)
            for m, z in ((72, 0.1), (21, 0.3), (11, 0.5))
            for radius in (0.02, 0.3)
        ]
    )
    assert claims.judge_bound(made).met is met


@pytest.mark.parametrize("sign", [1, -1])
def test_trends_are_judged_by_rank_correlations_over_sems(sign):
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(20):
        for i in range(5):
            noise = 0.3 * rng.normal()
            rows.append({"seed": seed, "along": "N", "N": 10.0**i, "m": 10, "metric": "generalization",
                         "part": "trends", "value": sign * i + noise})  # fmt: skip
            rows.append({"seed": seed, "along": "m", "m": i, "N": 1, "metric": "falsely accepted",
                         "part": "trends", "value": -sign * i + noise})  # fmt: skip
    made = pd.DataFrame(rows)
    assert claims.judge_samples(made).met is (sign > 0)
    assert claims.judge_environments(made).met is (sign > 0)


@pytest.mark.parametrize(
    ("with_", "without", "met"),
    [(1.0, 0.0, True), (1.0, 0.5, None), (0.5, 0.0, None), (1.0, 0.9, False), (0.1, 0.0, False)],
)
def test_the_intercept_must_make_the_difference(with_, without, met):
    made = frame(
        [
            repeats(np.arange(36) < 36 * share, metric="accepted", method=method, N=45_000)
            for method, share in (("with intercept", with_), ("without intercept", without))
        ]
    )
    assert claims.judge_intercept(made).met is met


@pytest.mark.parametrize(("last", "met"), [(0.5, True), (0.01, False)])
def test_the_spread_must_grow_at_every_step(last, met):
    rows = [
        {"seed": seed, "metric": "relative spread", "noise": noise, "value": value}
        for seed in range(10)
        for noise, value in ((0.0, 0.0), (0.1, 0.2), (0.2, last))
    ]
    assert claims.judge_noise(pd.DataFrame(rows)).met is met


@pytest.mark.parametrize(("slow", "met"), [(1.1, True), (1.5, False)])
def test_costs_are_compared_by_their_least_times(slow, met):
    at = {"part": "cost", "metric": "CPU seconds"}
    made = frame(
        [
            repeats([1.0, 3.0], N=1e3, **at),
            repeats([slow, 4.0], N=1e8, **at),
            repeats([1.0, 2.0], environments=1e4, **at),
            repeats([4 * slow, 9.0], environments=4e4, **at),
            repeats([1.9 * slow], N=1e3, part="cost", metric="seconds"),
            study("soft + soft", "accepted sets", [12]),
        ]
    )
    made.loc[made["dataset"] == "soft + soft", "m"] = 20
    assert claims.judge_cost_of_samples(made).met is met
    assert claims.judge_cost_of_environments(made).met is met
    assert claims.judge_speed(made).met is False


def test_without_records_nothing_is_judged():
    empty = pd.DataFrame({"metric": [], "seed": [], "value": []})
    for claim in SYSTEM.claims:
        if hasattr(claim.evidence, "judge"):
            assert claim.evidence.judge(empty).met is None


def test_published_figures_are_those_of_the_notebook():
    found = {(p.dataset, p.metric): p.value for p in SYSTEM.published}
    assert found["soft + soft, N = 45,000", "accepted sets"] == 12
    assert found["soft + rademacher, N = 10,000", claims.MEDIAN] == 77.5
    assert len(found) == 32
