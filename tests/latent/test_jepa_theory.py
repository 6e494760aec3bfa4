"""Critical times: quadrature against its expansion, against direct integration, and their reading."""

import jax.numpy as jnp
import numpy as np
import pytest

from latent.jepa_linear import (
    critical_time,
    critical_time_series,
    dynamic_features,
    fixed_point,
    learned_at,
    rate,
    static_features,
    trajectory,
)

A, B = (1.0, 0.9), (1.15, 0.5)
TABLE = {
    1: (1001.9, 871.5, 5.501, 4.528),
    2: (11131, 10118, 29.687, 25.450),
    3: (23264, 23222, 48.888, 42.178),
    4: (33106, 37710, 58.535, 50.622),
}


def test_critical_times_and_the_change_of_order_with_depth(record_property):
    first = {}
    for depth, expected in TABLE.items():
        found = [critical_time(o, depth, *f, 1e-3, 0.25) for o in ("JEPA", "MAE") for f in (A, B)]
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        first[depth] = ("A" if found[0] < found[1] else "B", "A" if found[2] < found[3] else "B")
    assert [order[1] for order in first.values()] == ["B"] * 4
    assert [order[0] for order in first.values()] == ["B", "B", "B", "A"]
    record_property("value", "MAE learns B first at every depth; JEPA B up to L = 3 and A at L = 4")


@pytest.mark.parametrize(("depth", "eps", "bound"), [(2, 1e-2, 0.03), (2, 1e-4, 1e-4), (4, 1e-4, 2e-4)])
def test_the_expansion_approaches_the_quadrature(depth, eps, bound, record_property):
    exact = critical_time("JEPA", depth, 1.0, 0.5, eps, 0.5)
    series = critical_time_series("JEPA", depth, 1.0, 0.5, eps)
    assert abs(series / exact - 1) < bound
    record_property("value", f"L = {depth}, eps = {eps:g}: {series:.1f} against {exact:.1f}")


def test_the_expansion_for_mae_is_off_by_a_constant():
    for depth in (1, 2, 3):
        gaps = [
            critical_time("MAE", depth, 1.0, 0.5, e) - critical_time_series("MAE", depth, 1.0, 0.5, e)
            for e in (1e-6, 1e-8)
        ]
        assert gaps[0] == pytest.approx(gaps[1], abs=0.05)


def test_jepa_delays_noisy_features_more_the_deeper_it_is(record_property):
    ratios = {
        objective: [
            critical_time(objective, depth, 1.0, 0.5, 1e-3, 0.25)
            / critical_time(objective, depth, 1.0, 0.9, 1e-3, 0.25)
            for depth in range(1, 6)
        ]
        for objective in ("JEPA", "MAE")
    }
    np.testing.assert_allclose(ratios["JEPA"], [1.0003, 1.0453, 1.1479, 1.3099, 1.5346], atol=1e-4)
    np.testing.assert_allclose(ratios["MAE"], [0.9466, 0.9859, 0.9922, 0.9945, 0.9958], atol=1e-4)
    assert np.all(np.diff(ratios["JEPA"]) > 0)
    assert np.all(np.diff(ratios["MAE"]) > 0)
    assert max(ratios["MAE"]) < 1
    record_property("value", "JEPA " + ", ".join(f"{r:.4f}" for r in ratios["JEPA"]) + " for L = 1 to 5; MAE below 1")


NEVER = np.inf
SLOW_AND_FAST = {
    ((1.0, 0.9), (2.5, 0.5)): {
        "JEPA": ((114.2, 83.0), (445.2, 371.7), (689.2, 705.0), (861.6, 1081.2), (993.7, 1153.7)),
        "MAE": ((4.45, 2.97), (9.82, 6.86), (11.4, 8.10), (11.5, 8.17), (11.0, 7.84)),
    },
    ((1.0, 0.95), (2.0, 0.6)): {
        "JEPA": ((108.1, 86.2), (417.5, 367.0), (638.3, 646.7), (786.6, 944.5), (893.3, 1277.0)),
        "MAE": ((4.24, 3.17), (9.32, 7.22), (10.9, 8.49), (10.9, 8.55), (10.4, 8.18)),
    },
    ((1.0, 0.9), (4.0, 0.3)): {
        "JEPA": ((114.2, 87.1), (445.2, 454.2), (689.2, 574.7), (861.6, NEVER), (993.7, NEVER)),
    },
}
"""Critical times of a slow and a fast feature, (variance, autocorrelation) each, at depths 1 to 5 from eps = 0.01."""
LAST_DIGIT = 5e-3


def slow_and_fast(objective, *features):
    """Critical times [depths, features] of the dynamic model."""
    made = dynamic_features(*(jnp.asarray(column) for column in zip(*features, strict=True)))
    pairs = np.stack([made.lam, made.rho], axis=1).tolist()
    return np.array([[critical_time(objective, depth, *pair, 0.01, 0.5) for pair in pairs] for depth in range(1, 6)])


def test_slow_features_overtake_fast_ones_with_depth_in_jepa_only(record_property):
    first = {}
    for features, expected in SLOW_AND_FAST.items():
        found = {objective: slow_and_fast(objective, *features) for objective in ("JEPA", "MAE")}
        for objective, table in expected.items():
            np.testing.assert_allclose(found[objective], table, rtol=LAST_DIGIT)
        first[features] = {o: ["slow" if a < b else "fast" for a, b in times] for o, times in found.items()}
        assert first[features]["MAE"] == ["fast"] * 5
    one, other, third = (orders["JEPA"] for orders in first.values())
    assert one == other == ["fast", "fast", "slow", "slow", "slow"]
    assert third[:3] == ["fast", "slow", "fast"]  # no law for every pair; at depths 4 and 5 there is no race
    record_property("value", "MAE fast first at L = 1 to 5; JEPA fast up to L = 2 and slow from L = 3 on, in two pairs")


def test_with_equal_noise_both_losses_learn_the_stronger_feature_first():
    made = static_features(jnp.array([1.0, 0.5]), jnp.array([0.3, 0.3]))
    np.testing.assert_allclose(made.rho, [0.769, 0.625], atol=5e-4)
    pairs = np.stack([made.lam, made.rho], axis=1).tolist()
    times = {
        (objective, depth): [critical_time(objective, depth, *pair, 0.01, 0.5) for pair in pairs]
        for objective in ("JEPA", "MAE")
        for depth in range(1, 6)
    }
    assert all(strong < weak for strong, weak in times.values())
    for place, expected in {("JEPA", 2): (414.0, 871.2), ("JEPA", 3): (668.7, 1511), ("MAE", 2): (8.77, 17.4),
                            ("MAE", 3): (10.3, 20.4)}.items():  # fmt: skip
        np.testing.assert_allclose(times[place], expected, rtol=LAST_DIGIT)


@pytest.mark.parametrize("objective", ["JEPA", "MAE"])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_quadrature_and_integration_agree(objective, depth):
    when = critical_time(objective, depth, 1.3, 0.6, 0.02, 0.5)
    w = trajectory(objective, depth, 1.3, 0.6, 0.02, np.array([0.0, when]))
    assert w[1] == pytest.approx(0.5 * fixed_point(objective, depth, 0.6), rel=1e-6)
    assert rate(objective, depth, 1.3, 0.6, fixed_point(objective, depth, 0.6)) == pytest.approx(0, abs=1e-12)


@pytest.mark.peers
def test_an_independent_solver_gives_the_same_trajectory():
    diffrax = pytest.importorskip("diffrax")
    import jax
    import jax.numpy as jnp

    times = np.linspace(0, 60, 30)
    with jax.enable_x64(True):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, w, args: rate("JEPA", 3, 1.0, 0.9, w)),
            diffrax.Tsit5(),
            0.0,
            60.0,
            0.01,
            jnp.asarray(0.2),
            saveat=diffrax.SaveAt(ts=jnp.asarray(times)),
            stepsize_controller=diffrax.PIDController(rtol=1e-10, atol=1e-12),
            max_steps=100_000,
        )
    np.testing.assert_allclose(solution.ys, trajectory("JEPA", 3, 1.0, 0.9, 0.2, times), rtol=1e-7)


def test_a_feature_whose_fixed_point_lies_below_its_start_is_never_learned():
    assert fixed_point("JEPA", 4, 0.3) < 0.01
    assert critical_time("JEPA", 4, 1.0, 0.3, 0.01, 0.5) == np.inf
    w = trajectory("JEPA", 4, 1.0, 0.3, 0.01, np.array([0.0, 1e7]))
    assert w[1] < w[0]


def test_learning_times_are_interpolated_and_plateaus_count_as_never():
    times = np.arange(5.0)
    curves = np.array(
        [[0.0, 0.1, 0.9, 0.2], [0.2, 0.1, 0.8, 0.2], [0.4, 0.1, 0.7, 0.3], [0.8, 0.1, 0.6, 0.3], [1.0, 0.1, 0.6, 0.3]]
    )
    found = learned_at(curves, times, np.array([1.0, 1.0, 0.5, 1.0]))
    np.testing.assert_allclose(found, [2.25, np.inf, np.inf, np.inf])
