"""Critical times: quadrature against its expansion, against direct integration, and their reading."""

import numpy as np
import pytest

from latent.jepa_linear import critical_time, critical_time_series, fixed_point, learned_at, rate, trajectory

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
