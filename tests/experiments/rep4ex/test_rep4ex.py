import numpy as np
import pandas as pd
import pytest

from experiments.lab import registry, runs
from experiments.lab.plots import drawn
from experiments.lab.runner import execute
from experiments.lab.system import ShownByTest
from experiments.rep4ex import SYSTEM, claims
from tests.experiments.rep4ex import TINY

NOISE = np.linspace(-0.01, 0.01, 8)
JUDGES = {claim.number: claim.evidence for claim in SYSTEM.claims if not isinstance(claim.evidence, ShownByTest)}


@pytest.mark.slow
def test_a_tiny_run_records_draws_and_tabulates_every_part(tmp_path):
    folder = execute(registry.load("rep4ex"), preset="smoke", seeds=(0,), assignments=TINY, workdir=tmp_path / "runs")
    frame = runs.read(folder).frame
    assert {"oracle", "size of the test", "cost"} <= set(frame["part"].dropna())
    assert {"encoder", "distance", "curve", "diagnostics", "confounding", "robustness"} <= set(frame["kind"].dropna())
    assert {"VAE + CF", "iVAE + CF", "PCA + CF", "OLS on A", "MLP on A", "engression on A"} <= set(frame["method"])
    assert {name for name, _ in drawn(SYSTEM.figures, frame)} == {"identification", "curves", "distance"}
    assert all(len(table(frame)) for table in SYSTEM.tables.values())
    assert all(judge(frame).met is None for judge in JUDGES.values()), "judged on one world"


def frame(*parts) -> pd.DataFrame:
    return pd.DataFrame([row for part in parts for row in part])


def rows(numbers, **place) -> list[dict]:
    return [{"seed": seed, "value": float(value), **place} for seed, value in enumerate(numbers)]


def r2(method, alpha, value, d=2):
    return rows(value + NOISE, dataset=f"d = {d}, alpha = {alpha}", method=method, metric="R^2")


def met(number: str, *parts) -> bool | None:
    return JUDGES[number](frame(*parts)).met


@pytest.mark.parametrize(("ours", "expected"), [(0.98, True), (0.9, False), (0.955, None)])
def test_identification_is_judged_by_its_interval(ours, expected):
    assert met("8a", r2("AE-MMR", 2, ours)) is expected


@pytest.mark.parametrize(("plain", "expected"), [(0.8, True), (0.95, False)])
def test_gains_are_paired_by_seed(plain, expected):
    assert met("8b", r2("AE-MMR", 2, 0.98), r2("AE-Vanilla", 2, plain)) is expected


def test_a_seed_that_is_missing_leaves_a_gain_open():
    assert met("8b", r2("AE-MMR", 2, 0.98), r2("AE-Vanilla", 2, 0.8)[:-1]) is None


@pytest.mark.parametrize(("difference", "expected"), [(0.01, True), (-0.2, False)])
def test_without_an_effect_nothing_may_be_gained_or_lost(difference, expected):
    assert met("8c", r2("AE-MMR", 0, 0.8 + difference), r2("AE-Vanilla", 0, 0.8)) is expected


@pytest.mark.parametrize(("weak", "expected"), [(0.02, True), (0.3, False)])
def test_the_gain_must_grow_with_the_strength(weak, expected):
    made = (
        r2("AE-MMR", 1, 0.6 + weak, 4), r2("AE-Vanilla", 1, 0.6, 4), r2("AE-MMR", 2, 0.8, 4),
        r2("AE-Vanilla", 2, 0.6, 4),
    )  # fmt: skip
    assert met("9a", *made) is expected
    assert met("9b", *made) is True


def errors(method, numbers, dataset=claims.DATASET):
    return rows(numbers, dataset=dataset, method=method, metric=claims.MSE)


@pytest.mark.parametrize(("error", "expected"), [(0.02, True), (0.2, False)])
def test_the_oracle_is_judged_by_its_median(error, expected):
    assert met("10a", errors(claims.ORACLE, error * np.exp(NOISE))) is expected
    assert met("10a", errors(claims.ORACLE, [0.01, 0.01, 0.01, 0.2, 0.2])) is None


@pytest.mark.parametrize(("ours", "expected"), [(0.2, True), (0.9, False)])
def test_ours_is_judged_beside_ols_and_the_plain_autoencoder(ours, expected):
    made = (
        errors(claims.OURS, ours * np.exp(NOISE)), errors("OLS on A", np.exp(NOISE)),
        errors(claims.VANILLA, 0.5 * np.exp(NOISE)),
    )  # fmt: skip
    assert [met(number, *made) for number in ("10b", "10c", "10d")] == [expected] * 3


@pytest.mark.parametrize(("chosen", "expected"), [(0.2, True), (0.9, False)])
def test_chosen_settings_are_judged_on_fresh_worlds_alone(chosen, expected):
    values = {f"{claims.OURS}, {claims.CHOSEN}": chosen, "OLS on A": 1.0, claims.OURS: 0.5}
    for dataset, answer in ((claims.FRESH, expected), (claims.DATASET, None)):
        made = [errors(method, value * np.exp(NOISE), dataset) for method, value in values.items()]
        assert [met(number, *made) for number in ("10e", "10f", "10g")] == [answer] * 3


def oracle(method, error, d=2, **place):
    return rows(error * np.exp(NOISE), dataset=f"oracle, d = {d}", method=method, metric=claims.MSE, **place)


@pytest.mark.parametrize(("factor", "confounded", "unconfounded"), [(100, True, False), (1.1, False, True)])
def test_the_control_function_must_matter_where_there_is_confounding(factor, confounded, unconfounded):
    made = [
        oracle(method, error, confounding=c, alpha=2.0)
        for c in (0.0, 1.5)
        for method, error in ((claims.ORACLE, 0.01), ("oracle, no control function", 0.01 * factor))
    ]
    assert met("11a", *made) is confounded
    assert met("11b", *made) is unconfounded


@pytest.mark.parametrize(("last", "expected"), [(0.001, True), (0.5, False)])
def test_errors_must_fall_at_every_widening_of_the_support(last, expected):
    made = [
        oracle(claims.ORACLE, error, d, gamma=gamma, alpha=1.2)
        for d in (1, 2)
        for gamma, error in ((0.5, 0.2), (1.0, 0.03), (1.5, last))
    ]
    assert met("12", *made) is expected


def p_values(method, share, n, **place):
    return rows(np.arange(n) >= share * n, method=method, metric="p of the constraint", **place)


SIZE = {"part": "size of the test", "dataset": "d = 2, alpha = 2"}
KEPT = {"kind": "encoder", "dataset": "d = 2, alpha = 2"}


@pytest.mark.parametrize(("share", "n", "expected"), [(0.05, 400, True), (0.3, 400, False), (0.05, 20, None)])
def test_the_size_needs_many_repetitions(share, n, expected):
    assert met("13c", p_values("affine map", share, n, **SIZE)) is expected


@pytest.mark.parametrize(("share", "expected"), [(1.0, True), (0.3, False)])
def test_power_is_a_share_with_an_exact_interval(share, expected):
    assert met("13b", p_values("z + 0.3 z^2", share, 100, **SIZE)) is expected


@pytest.mark.parametrize(
    ("kept", "single", "expected"), [(1.0, 1.0, True), (0.3, 1.0, False), (1.0, 0.3, False), (0.95, 1.0, None)]
)
def test_the_test_must_reject_the_encoders_that_are_kept_and_single_ones(kept, single, expected):
    made = p_values("AE-Vanilla", kept, 20, **KEPT), p_values("AE-Vanilla", single, 20, **SIZE)
    assert met("13a", *made) is expected


@pytest.mark.parametrize(
    ("noisy", "worst", "expected"),
    [((0.96, 0.95, 0.94), 0.95, True), ((0.96, 0.5, 0.4), 0.5, False), ((0.96, 0.95, 0.7), 0.95, False),
     ((0.96, 0.95, 0.94), 0.3, False)],
)  # fmt: skip
def test_noise_may_cost_little_at_every_step_and_ruin_no_world(noisy, worst, expected):
    place = {"metric": "R^2", "method": "AE-MMR", "kind": "robustness"}
    made = [rows(0.97 + NOISE, violated="none", **place)]
    for sigma, value in zip((0.05, 0.1, 0.2), noisy, strict=True):
        values = value + NOISE
        values[0] = worst if sigma == 0.1 else values[0]
        made.append(rows(values, violated=f"noise on X, {sigma:g} sd", **place))
    assert met("14a", *made) is expected


@pytest.mark.parametrize(("third", "expected"), [(0.02, True), (0.9, False)])
def test_a_coordinate_too_many_must_show(third, expected):
    place = {"method": "AE-MMR", "encoder": "d = 3"}
    third, second = (
        rows(third + NOISE / 10, metric="singular value 3 (noise)", **place),
        rows(1 + NOISE, metric="singular value 2 (noise)", **place),
    )
    assert met("14b", third, second) is expected


@pytest.mark.parametrize(("many", "expected"), [(10.0, True), (200.0, False)])
def test_many_runs_are_compared_with_one(many, expected):
    made = [
        rows(value + np.arange(5) / 100, part="cost", method=method, metric=metric, runs=runs)
        for metric in ("seconds", "CPU seconds")
        for method, value, runs in (("one run", 1.0, 1), ("one program", many, 200))
    ]
    assert met("15a", *made) is expected


def test_without_records_nothing_is_judged_or_drawn():
    empty = pd.DataFrame({"metric": [], "seed": [], "value": [], "dataset": [], "method": []})
    assert all(judge(empty).met is None for judge in JUDGES.values())
    assert not any(len(table(empty)) for table in SYSTEM.tables.values())
    assert not list(drawn(SYSTEM.figures, empty))
