import numpy as np
import pandas as pd
import pytest

from experiments.lab import registry, runs
from experiments.lab.runner import execute
from experiments.rep4ex import SYSTEM, claims
from experiments.rep4ex import figures as drawing

TINY = (
    "rows=200", "fresh=100", "validation=50", "steps=2", "batch=50", "hidden=4", "outcome_rows=200", "outcome_steps=2",
    "features=8", "actions=20", "network_steps=2", "bootstrap=2", "oracle_seeds=1", "tests=2", "test_rows=60",
    "thorough=True", "image_steps=2", "image_seeds=1", "cost_repeats=1", "cost_seeds=1", "cost_strengths=1",
    "cost_steps=1", "lambdas=1,10", "refits=2", "refit_worlds=1", "refit_restarts=1",
)  # fmt: skip
NOISE = np.linspace(-0.01, 0.01, 8)


@pytest.mark.slow
def test_a_tiny_run_records_draws_and_tabulates_every_part(tmp_path):
    folder = execute(registry.load("rep4ex"), preset="smoke", seeds=(0,), assignments=TINY, workdir=tmp_path / "runs")
    frame = runs.read(folder).frame
    assert {"oracle", "size of the test", "cost"} <= set(frame["part"].dropna())
    assert {"encoder", "distance", "curve", "diagnostics", "confounding", "robustness"} <= set(frame["kind"].dropna())
    assert {"VAE + CF", "iVAE + CF", "PCA + CF", "OLS on A", "MLP on A", "engression on A"} <= set(frame["method"])
    assert set(SYSTEM.figures(frame)) == {"identification", "curves", "distance"}
    assert len(SYSTEM.tables(frame)) == 8
    for claim in SYSTEM.claims:
        if hasattr(claim.evidence, "judge"):
            assert claim.evidence.judge(frame).met is None, f"{claim.number} is judged on one world"


def frame(*parts) -> pd.DataFrame:
    return pd.DataFrame([row for part in parts for row in part])


def rows(numbers, **place) -> list[dict]:
    return [{"seed": seed, "value": float(value), **place} for seed, value in enumerate(numbers)]


def r2(method, alpha, value, d=2):
    return rows(value + NOISE, dataset=f"d = {d}, alpha = {alpha}", method=method, metric="R^2")


@pytest.mark.parametrize(("ours", "met"), [(0.98, True), (0.9, False), (0.955, None)])
def test_identification_is_judged_by_its_interval(ours, met):
    assert claims.judge_identified(frame(r2("AE-MMR", 2, ours))).met is met


@pytest.mark.parametrize(("plain", "met"), [(0.8, True), (0.95, False)])
def test_gains_are_paired_by_seed(plain, met):
    made = frame(r2("AE-MMR", 2, 0.98), r2("AE-Vanilla", 2, plain))
    assert claims.judge_gain(made).met is met


@pytest.mark.parametrize(("difference", "met"), [(0.01, True), (-0.2, False)])
def test_without_an_effect_nothing_may_be_gained_or_lost(difference, met):
    made = frame(r2("AE-MMR", 0, 0.8 + difference), r2("AE-Vanilla", 0, 0.8))
    assert claims.judge_no_information(made).met is met


@pytest.mark.parametrize(("weak", "met"), [(0.02, True), (0.3, False)])
def test_the_gain_must_grow_with_the_strength(weak, met):
    made = frame(
        r2("AE-MMR", 1, 0.6 + weak, 4), r2("AE-Vanilla", 1, 0.6, 4), r2("AE-MMR", 2, 0.8, 4),
        r2("AE-Vanilla", 2, 0.6, 4),
    )  # fmt: skip
    assert claims.judge_growth(made).met is met
    assert claims.judge_gain_of_four(made).met is True


def errors(method, numbers):
    return rows(numbers, dataset=claims.DATASET, method=method, metric=claims.MSE)


@pytest.mark.parametrize(("error", "met"), [(0.02, True), (0.2, False)])
def test_the_oracle_is_judged_by_its_median(error, met):
    assert claims.judge_oracle(frame(errors(claims.ORACLE, error * np.exp(NOISE)))).met is met
    spread = np.array([0.01, 0.01, 0.01, 0.2, 0.2])
    assert claims.judge_oracle(frame(errors(claims.ORACLE, spread))).met is None


@pytest.mark.parametrize(("ours", "met"), [(0.2, True), (0.9, False)])
def test_ours_is_judged_beside_ols_and_the_plain_autoencoder(ours, met):
    made = frame(
        errors(claims.OURS, ours * np.exp(NOISE)), errors("OLS on A", np.exp(NOISE)),
        errors(claims.VANILLA, 0.5 * np.exp(NOISE)),
    )  # fmt: skip
    for judge in (claims.judge_error, claims.judge_ratio, claims.judge_plain_is_worse):
        assert judge(made).met is met


def fresh(method, numbers):
    return rows(numbers, dataset=claims.FRESH, method=method, metric=claims.MSE)


@pytest.mark.parametrize(("chosen", "met"), [(0.2, True), (0.9, False)])
def test_chosen_settings_are_judged_on_fresh_worlds_alone(chosen, met):
    made = [
        fresh(claims.CHOSEN, chosen * np.exp(NOISE)), fresh("OLS on A", np.exp(NOISE)),
        fresh(claims.OURS, 0.5 * np.exp(NOISE)),
    ]  # fmt: skip
    others = frame(errors(claims.CHOSEN, NOISE), errors("OLS on A", NOISE), errors(claims.OURS, NOISE))
    for judge in (claims.judge_chosen_error, claims.judge_chosen_ratio, claims.judge_choice):
        assert judge(frame(*made)).met is met
        assert judge(others).met is None


def oracle(method, error, d=2, **place):
    return rows(error * np.exp(NOISE), dataset=f"oracle, d = {d}", method=method, metric=claims.MSE, **place)


@pytest.mark.parametrize(("factor", "confounded", "unconfounded"), [(100, True, False), (1.1, False, True)])
def test_the_control_function_must_matter_where_there_is_confounding(factor, confounded, unconfounded):
    made = frame(
        *(
            oracle(method, error, confounding=c, alpha=2.0)
            for c in (0.0, 1.5)
            for method, error in ((claims.ORACLE, 0.01), ("oracle, no control function", 0.01 * factor))
        )
    )
    assert claims.judge_control(made).met is confounded
    assert claims.judge_unconfounded(made).met is unconfounded


@pytest.mark.parametrize(("last", "met"), [(0.001, True), (0.5, False)])
def test_errors_must_fall_at_every_widening_of_the_support(last, met):
    made = frame(
        *(
            oracle(claims.ORACLE, error, d, gamma=gamma, alpha=1.2)
            for d in (1, 2)
            for gamma, error in ((0.5, 0.2), (1.0, 0.03), (1.5, last))
        )
    )
    assert claims.judge_support(made).met is met


def p_values(method, share, n):
    return rows(np.arange(n) >= share * n, part="size of the test", method=method, metric="p of the constraint")


@pytest.mark.parametrize(("share", "n", "met"), [(0.05, 400, True), (0.3, 400, False), (0.05, 20, None)])
def test_the_size_needs_many_repetitions(share, n, met):
    assert claims.judge_size(frame(p_values("affine map", share, n))).met is met


@pytest.mark.parametrize(("share", "met"), [(1.0, True), (0.3, False)])
def test_power_is_a_share_with_an_exact_interval(share, met):
    made = frame(p_values("AE-Vanilla", share, 20), p_values("z + 0.3 z^2", share, 100))
    assert claims.judge_power_plain(made).met is met
    assert claims.judge_power_bent(made).met is met


@pytest.mark.parametrize(("noisy", "met"), [(0.95, True), (0.5, False)])
def test_noise_may_not_cost_much(noisy, met):
    place = {"metric": "R^2", "method": "AE-MMR", "kind": "robustness"}
    made = frame(
        rows(0.97 + NOISE, violated="none", **place), rows(noisy + NOISE, violated="noise on X, 0.1 sd", **place)
    )
    assert claims.judge_noise(made).met is met


@pytest.mark.parametrize(("third", "met"), [(0.02, True), (0.9, False)])
def test_a_coordinate_too_many_must_show(third, met):
    place = {"method": "AE-MMR", "encoder": "d = 3"}
    made = frame(
        rows(third + NOISE / 10, metric="singular value 3 (noise)", **place),
        rows(1 + NOISE, metric="singular value 2 (noise)", **place),
    )
    assert claims.judge_ranks(made).met is met


@pytest.mark.parametrize(("many", "met"), [(10.0, True), (200.0, False)])
def test_many_runs_are_compared_with_one_by_the_least_times(many, met):
    made = frame(
        *(
            rows(value + np.arange(5), part="cost", method=method, metric=metric, runs=runs)
            for metric in ("seconds", "CPU seconds")
            for method, value, runs in (("one run", 1.0, 1), ("one program", many, 200))
        )
    )
    assert claims.judge_cost(made).met is met


def test_without_records_nothing_is_judged_or_drawn():
    empty = pd.DataFrame({"metric": [], "seed": [], "value": [], "dataset": [], "method": []})
    for claim in SYSTEM.claims:
        if hasattr(claim.evidence, "judge"):
            assert claim.evidence.judge(empty).met is None
    assert drawing.tables(empty) == {}
    assert drawing.figures(empty) == {}
