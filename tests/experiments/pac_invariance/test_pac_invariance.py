import numpy as np
import pandas as pd
import pytest

from experiments.lab import registry, runs
from experiments.lab.plots import drawn
from experiments.lab.runner import execute
from experiments.lab.system import ShownByTest
from experiments.pac_invariance import SYSTEM
from experiments.pac_invariance.config import MEDIAN
from tests.experiments.pac_invariance import TINY

JUDGES = {claim.number: claim.evidence for claim in SYSTEM.claims if not isinstance(claim.evidence, ShownByTest)}


@pytest.mark.slow
def test_a_tiny_run_records_draws_and_tabulates_every_part(tmp_path):
    folder = execute(
        registry.load("pac_invariance"), preset="smoke", seeds=(0,), assignments=TINY, workdir=tmp_path / "runs"
    )
    frame = runs.read(folder).frame
    assert {"study, N = 45000", "radius", "intercept", "cost", "bound", "trends", "indirect"} <= set(frame["part"])
    assert {name for name, _ in drawn(SYSTEM.figures, frame)} == set(SYSTEM.figures)
    assert sum(not table(frame).empty for table in SYSTEM.tables.values()) >= 4
    for number in JUDGES.keys() - {"13a", "13b", "13c", "13d"}:
        assert JUDGES[number](frame).met is None, f"{number} is judged on two repeats"


def verdict(number, *groups):
    return JUDGES[number](pd.DataFrame([{"seed": i, **row} for group in groups for i, row in enumerate(group)])).met


def repeats(values, **where):
    return [{"value": float(value), **where} for value in values]


def study(panel, metric, values, n=45_000, method="subsets", **more):
    at = {"dataset": panel, "method": method, "metric": metric, "part": f"study, N = {n}", "N": n, "m": 11}
    return repeats(values, **{**at, **more})


def of_sets(panel, shares):
    return [study(panel, "generalization of a set %", share, set=name) for name, share in shares.items()]


NOISE = np.linspace(-0.2, 0.2, 12)
ROUNDS = np.linspace(-0.2, 0.2, 7)
WIDE = np.linspace(-3, 3, 12)


@pytest.mark.parametrize(
    ("share", "count", "met"), [(99, 12, True), (96, 12, False), (99, 11, False), (97, 12, None), (99, 11.5, None)]
)
def test_soft_to_soft_needs_both_share_and_number(share, count, met):
    soft = study("soft + soft", MEDIAN, share + NOISE), study("soft + soft", "accepted sets", count + NOISE)
    assert verdict("8a", *soft) is met


def test_a_repeat_without_an_accepted_set_leaves_the_median_open():
    shares = np.append(99 + NOISE[:11], np.nan)
    assert (
        verdict("8a", study("soft + soft", MEDIAN, shares), study("soft + soft", "accepted sets", 12 + NOISE)) is None
    )


@pytest.mark.parametrize(("count", "met"), [(6, True), (9, False), (8, None)])
def test_few_samples_must_accept_few_sets(count, met):
    assert verdict("8b", study("soft + soft", "accepted sets", count + NOISE, n=10_000)) is met
    assert verdict("8b", study("soft + soft", "accepted sets", count + NOISE[:9], n=10_000)) is None


@pytest.mark.parametrize(
    ("low", "high", "count", "met"), [(0, 99, 4, True), (1, 99, 4, False), (0, 90, 4, False), (0, 95, 4, None),
                                      (0, 99, 6, False)],
)  # fmt: skip
def test_two_sets_must_fail_and_two_hold_under_flipped_signs(low, high, count, met):
    shares = {"{3}": low, "{0, 3}": low, "{1, 3}": high, "{0, 1, 3}": high}
    made = of_sets("hard + rademacher", {name: np.full(12, share) for name, share in shares.items()})
    assert verdict("8c", *made, study("hard + rademacher", "accepted sets", count + NOISE)) is met


@pytest.mark.parametrize(("share", "met"), [(26, True), (15, False), (40, False), (34.5, None)])
def test_sets_with_the_child_must_hold_in_a_quarter(share, met):
    names = ("{1, 3, 5, 6}", "{0, 1, 3, 5, 6}", "{1, 2, 3, 5, 6}", "{0, 1, 2, 3, 5, 6}")
    assert verdict("8d", *of_sets("soft + rademacher", dict.fromkeys(names, share + WIDE))) is met


@pytest.mark.parametrize(("share", "met"), [(0.5, True), (3.5, False), (2, None)])
def test_least_squares_on_everything_must_fail(share, met):
    sizes = (10_000, 15_000, 30_000, 45_000)
    assert verdict("8e", *(study("hard + hard", MEDIAN, share + NOISE, n, "ERM") for n in sizes)) is met


@pytest.mark.parametrize(("times", "count", "met"), [(0, 2000, True), (40, 2000, True), (65, 2000, None),
                                                    (120, 2000, False), (0, 200, None)])  # fmt: skip
def test_frequencies_are_judged_by_exact_intervals_against_the_bound(times, count, met):
    cases = [(m, z, radius, family) for m, z in ((72, 0.1), (21, 0.3), (11, 0.5)) for radius in (0.02, 0.3)
             for family in ("hard", "soft", "rademacher")]  # fmt: skip
    metric = "times a subset passes with V > z"
    made = [
        repeats([times if i == 7 else 0], metric=metric, m=m, z=z, radius=radius, dataset=family, repeats=count)
        for i, (m, z, radius, family) in enumerate(cases)
    ]
    assert verdict("9", *made) is met
    assert verdict("9", *made[:-1]) is None


def of_sems(sign, count):
    """Trends with N and m on random SEMs, upwards and downwards for sign = 1."""
    rng = np.random.default_rng(0)
    at = {"part": "trends", "dataset": "random SEMs"}
    made = []
    for i in range(5):
        noise = 0.3 * rng.normal(size=count)
        up = {**at, "along": "N", "N": 10.0**i, "m": 10, "metric": "generalization"}
        down = {**at, "along": "m", "m": i, "N": 1, "metric": "falsely accepted"}
        made += [repeats(sign * i + noise, **up), repeats(-sign * i + noise, **down)]
    return made


@pytest.mark.parametrize("sign", [1, -1])
def test_trends_are_judged_by_rank_correlations_over_twenty_sems_and_over_further_ones(sign):
    for number in ("10a", "10b"):
        assert verdict(number, *of_sems(sign, 20)) is (sign > 0)
        assert verdict(number, *of_sems(sign, 19)) is None
    for number in ("10c", "10d"):
        assert verdict(number, *of_sems(sign, 40)) is (sign > 0)
        assert verdict(number, *of_sems(sign, 39)) is None


def test_sems_where_nothing_is_accepted_count_as_without_a_trend():
    made = of_sems(1, 20)
    for group in made:
        for row in group[:17]:
            row["value"] = float("nan")
    assert verdict("10a", *made) is None
    assert JUDGES["10a"](pd.DataFrame([{"seed": i, **row} for g in made for i, row in enumerate(g)])).interval[0] < 0.5


@pytest.mark.parametrize(("with_", "without", "met"), [(12, 0, True), (12, 1, False), (11, 0, False)])
def test_the_intercept_must_make_the_difference_in_every_repeat(with_, without, met):
    made = [
        repeats(np.arange(12) < times, metric="accepted", method=method, N=45_000, set=name)
        for method, times in (("with intercept", with_), ("without intercept", without))
        for name in ("{0}", "{1}", "{0, 1}")
    ]
    assert verdict("11", *made) is met
    assert verdict("11", *made[:-1]) is None


@pytest.mark.parametrize(("last", "met"), [(0.5, True), (0.2, False), (0.01, False), (np.nan, None)])
def test_the_spread_must_grow_at_every_step(last, met):
    spreads = ((0.0, np.zeros(10)), (0.1, np.full(10, 0.2)), (0.2, np.append(np.full(9, 0.5), last)))
    assert verdict("12", *(repeats(values, metric="relative spread", noise=noise) for noise, values in spreads)) is met


@pytest.mark.parametrize(("slow", "met"), [(1.1, True), (1.2, None), (1.5, False)])
def test_costs_are_compared_round_by_round(slow, met):
    base, factor = 1 + ROUNDS, slow * (1 + 0.2 * ROUNDS[::-1])
    cpu = {"part": "cost", "metric": "CPU seconds"}
    for number, along, few, many, times in (
        ("13a", "N", 1_000, 100_000_000, 1), ("13b", "environments", 10_000, 40_000, 4), ("13d", "features", 8, 10, 4),
    ):  # fmt: skip
        made = repeats(base, **cpu, **{along: few}), repeats(times * base * factor, **cpu, **{along: many})
        assert verdict(number, *made) is met
        assert verdict(number, made[0], made[1][:4]) is None


@pytest.mark.parametrize(("wall", "m", "met"), [(1.0, 20, True), (2.0, 20, None), (3.0, 20, False), (1.0, 11, None)])
def test_the_experiment_is_timed_where_all_its_sizes_were_run(wall, m, met):
    times = [repeats(wall + ROUNDS, part="cost", metric="seconds", N=n) for n in (1_000, 100_000, 100_000_000)]
    assert verdict("13c", *times, study("soft + soft", "accepted sets", [12], m=m)) is met


def test_without_records_nothing_is_judged():
    empty = pd.DataFrame({"metric": [], "seed": [], "value": []})
    assert all(judge(empty).met is None for judge in JUDGES.values())


def test_published_figures_are_those_of_the_notebook():
    found = {(p.dataset, p.metric): p.value for p in SYSTEM.published}
    assert found["soft + soft, N = 45,000", "accepted sets"] == 12
    assert found["soft + rademacher, N = 10,000", MEDIAN] == 77.5
    assert len(found) == 32
