from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal import rep4ex as rep
from core.errors import ConfigError
from core.linalg import small_inverse


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def rows(seed: int, n: int, *columns: int):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.standard_normal((n, c))) for c in columns)


def conditioned(seed: int, d: int, most: float) -> jax.Array:
    """A random matrix whose condition number is the given one."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(2))
    return jnp.asarray(left * np.geomspace(1, 1 / most, d) @ right)


def bent_codes(seed: int, n: int = 200, d: int = 3):
    """Codes with a non-linear effect of the actions, and the actions."""
    a, v = rows(seed, n, d, d)
    return a + 0.5 * a**2 + v, a


def test_small_inverse_equals_numpy():
    factor = rows(0, 6, 6)[0]
    S = factor @ factor.T
    np.testing.assert_allclose(small_inverse(S), np.linalg.inv(S), rtol=1e-9)


def test_the_regression_is_least_squares_with_an_intercept():
    w, a = bent_codes(0)
    found = rep.regress(w + 2.0, a)
    expected = np.linalg.lstsq(np.c_[np.ones(len(a)), a], np.asarray(w) + 2.0)[0]
    np.testing.assert_allclose(found.q, expected[0], atol=1e-10)
    np.testing.assert_allclose(found.M, expected[1:].T, atol=1e-10)
    np.testing.assert_allclose(found.V, w + 2.0 - np.c_[np.ones(len(a)), a] @ expected, atol=1e-10)


def test_the_whitened_restriction_knows_no_affine_map(record_property):
    moments = {"V": rep.v_statistic, "U": rep.u_statistic, "Fourier": rep.fourier_statistic(rows(9, 3, 64)[0])}
    largest = {1e-4: 0.0, 0.0: 0.0}
    for seed in range(20):
        w, a = bent_codes(seed)
        H, c = conditioned(seed, 3, 100.0), rows(seed, 1, 3)[0]
        for form in moments.values():
            for ridge in largest:
                scale = partial(rep.whitened, ridge=ridge)
                before, after = (rep.restriction(codes, a, jnp.asarray(1.0), form, scale) for codes in (w, w @ H.T + c))
                largest[ridge] = max(largest[ridge], abs(float(after / before - 1)))
    record_property("value", f"largest relative change {largest[1e-4]:.0e}; without ridge {largest[0.0]:.0e}")
    assert largest[1e-4] < 1e-4
    assert largest[0.0] < 1e-8


def test_in_single_precision_it_hardly_changes_either():
    w, a = (jnp.asarray(part, jnp.float32) for part in bent_codes(1))
    H = conditioned(1, 3, 10.0).astype(jnp.float32)
    before, after = (rep.restriction(codes, a, jnp.float32(1.0)) for codes in (w, w @ H.T))
    np.testing.assert_allclose(after, before, rtol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 10.0))
def test_the_v_statistic_is_never_negative(seed, bandwidth):
    w, a = bent_codes(seed, n=30, d=2)
    for scale in (rep.raw, rep.whitened):
        assert rep.restriction(w, a, jnp.asarray(bandwidth), rep.v_statistic, scale) >= 0


def test_forms_equal_their_double_sums():
    w, a = bent_codes(3, n=12, d=2)
    r, h = np.asarray(rep.regress(w, a).V), 0.8
    v = u = 0.0
    for i in range(12):
        for j in range(12):
            term = r[i] @ r[j] * np.exp(-np.sum((np.asarray(a)[i] - np.asarray(a)[j]) ** 2) / (2 * h**2))
            v += term / 144
            u += term / 132 if i != j else 0.0
    for form, expected in ((rep.v_statistic, v), (rep.u_statistic, u)):
        np.testing.assert_allclose(rep.restriction(w, a, jnp.asarray(h), form, rep.raw), expected, rtol=1e-10)


def test_random_features_give_the_v_statistic(record_property):
    errors = []
    for seed in range(3):
        w, a = bent_codes(seed)
        fourier = rep.fourier_statistic(jax.random.normal(jax.random.key(seed), (3, 10_000)))
        exact, features = (rep.restriction(w, a, jnp.asarray(1.5), form) for form in (rep.v_statistic, fourier))
        errors.append(abs(float(features / exact - 1)))
    record_property("value", f"largest relative difference {max(errors):.4f} with 20,000 features")
    assert max(errors) < 0.02


def test_codes_linear_in_actions_have_no_restriction_and_bent_ones_have():
    a = rows(4, 300, 2)[0]
    assert abs(rep.regress(a @ rows(5, 2, 2)[0] + 1.0, a).V).max() < 1e-10
    assert abs(rep.restriction(a @ rows(5, 2, 2)[0] + 1.0, a, jnp.asarray(1.0))) < 1e-10
    assert rep.restriction(a**2, a, jnp.asarray(1.0)) > 0.01


def test_the_restriction_of_a_square_equals_quadrature(record_property, full_compilation):
    """Of the library's V- and U-statistic on 20,000 rows at once, to 1e-3 of the list and to 3 % of the value."""
    h = 0.7
    nodes, weights = np.polynomial.legendre.leggauss(60)
    centred = nodes**2 - 1 / 3
    kernel = np.exp(-((nodes[:, None] - nodes) ** 2) / (2 * h**2))
    exact = (weights / 2 * centred) @ kernel @ (weights / 2 * centred)
    a = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (20_000, 1)), jnp.float32)

    @partial(jax.jit, static_argnums=1)
    def Q(a, form):
        return rep.restriction(a**2, a, jnp.float32(h), form, rep.raw)

    found = [float(Q(a, form)) for form in (rep.v_statistic, rep.u_statistic)]
    record_property("value", f"quadrature {exact:.5f}, 20,000 random actions {found[0]:.5f}")
    np.testing.assert_allclose(found, exact, atol=1e-3)
    np.testing.assert_allclose(found, exact, rtol=0.03)


def test_gradients_through_the_batch_regression_match_finite_differences(record_property):
    w, a = bent_codes(6, n=40, d=2)
    direction, step = rows(7, 40, 2)[0], 1e-6
    worst = 0.0
    for form in (rep.v_statistic, rep.u_statistic, rep.fourier_statistic(rows(8, 2, 30)[0])):

        @jax.jit
        def Q(t, form=form):
            return rep.restriction(w + t * direction, a, jnp.asarray(1.0), form)

        slope, difference = jax.jit(jax.grad(Q))(0.0), (Q(step) - Q(-step)) / (2 * step)
        worst = max(worst, abs(float(slope / difference - 1)))
    record_property("value", f"largest relative difference {worst:.0e}")
    assert worst < 1e-5


def confounded(seed: int, n: int = 400, d: int = 2):
    """Codes, actions and an outcome with the codes' noise in it."""
    a, v, e = rows(seed, n, d, d, 1)
    w = a @ rows(seed + 1, d, d)[0] + v
    return w, a, w.sum(1) - 0.3 * w[:, 0] * w[:, 1] + 1.5 * v.sum(1) + 0.1 * e[:, 0]


ACTIONS = jnp.asarray(np.random.default_rng(11).uniform(-3, 3, (7, 2)))


def predicted(w, a, y, nu, psi, ridge=0.0):
    stage = rep.first_stage(w, a)
    return rep.interventional(stage, rep.additive_ridge(stage, w, y, nu, psi, ridge), ACTIONS)


def test_the_linear_control_function_is_two_stage_least_squares(record_property):
    w, a, y = confounded(0)
    linear = rep.polynomial(1)
    stage = rep.first_stage(w, a)
    outcome = rep.additive_ridge(stage, w, y, linear, linear, 0.0)
    unit = jnp.eye(2)
    slope = jnp.linalg.solve(stage.root.T, outcome.nu(unit) - outcome.nu(jnp.zeros((2, 2))))
    fitted = a @ stage.regression.M.T + stage.regression.q
    expected = np.linalg.lstsq(np.c_[np.ones(len(y)), fitted], np.asarray(y))[0][1:]
    reduced = rep.linear(rep.Rows(a, y), ACTIONS)
    own = rep.interventional(stage, rep.two_stage(stage, w, a, y), ACTIONS)
    differences = [
        np.abs(slope - expected).max(),
        np.abs(rep.interventional(stage, outcome, ACTIONS) - reduced).max(),
        np.abs(own - reduced).max(),
    ]
    record_property("value", f"slopes differ by {differences[0]:.0e}, predictions by {max(differences[1:]):.0e}")
    assert max(differences) < 1e-8


def test_predictions_do_not_depend_on_the_affine_map_of_the_code(record_property):
    worst = 0.0
    for seed in range(5):
        w, a, y = confounded(seed)
        moved = w @ conditioned(seed, 2, 30.0).T + 3.0
        quadratic = rep.polynomial(2)
        before, after = (predicted(codes, a, y, quadratic, quadratic) for codes in (w, moved))
        worst = max(worst, float(np.abs(before - after).max() / np.abs(before).max()))
    record_property("value", f"largest relative difference {worst:.0e}")
    assert worst < 1e-6


@pytest.mark.parametrize("basis", ["fourier", "polynomial"])
def test_the_mean_over_the_training_actions_is_the_mean_outcome(basis, record_property):
    w, a, y = confounded(2)
    made = rep.random_fourier(jax.random.key(0), 2, 40, 2.5) if basis == "fourier" else rep.polynomial(3)
    stage = rep.first_stage(w, a)
    outcome = rep.additive_ridge(stage, w, y, made, made, 1e-6)
    matching = outcome.nu(stage.shifts(a) + stage.noise()) + outcome.intercept
    difference = abs(float(matching.mean() - y.mean()))
    record_property("value", f"{difference:.0e}")
    assert difference < 1e-10


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_monomials_are_counted_and_named_once(degree):
    z = rows(0, 50, 3)[0]
    features = rep.polynomial(degree).features(z)
    assert features.shape[1] == {1: 3, 2: 9, 3: 19}[degree]
    assert np.linalg.matrix_rank(features) == features.shape[1]


def test_means_over_shifted_points_are_means_of_features():
    v, t = rows(0, 60, 2)[0], ACTIONS
    for basis in (rep.random_fourier(jax.random.key(1), 2, 30, 1.5), rep.polynomial(3), rep.NOTHING):
        expected = jnp.stack([basis.features(one + v).mean(axis=0) for one in t])
        np.testing.assert_allclose(basis.shifted(v)(t), expected, atol=1e-12)


@pytest.mark.slow
def test_every_regression_of_step_two_extrapolates_a_smooth_outcome():
    """Ridge on random features and the kernel ridge that they approximate, beside the truth."""
    w, a, y = confounded(3, n=600)
    stage = rep.first_stage(w, a)
    fourier = rep.random_fourier(jax.random.key(0), 2, 300, 4.0)
    truth = rep.interventional(
        stage, rep.additive_ridge(stage, w, y, rep.polynomial(2), rep.polynomial(1), 0.0), ACTIONS
    )
    near = jnp.abs(ACTIONS).max(axis=1) < 2.0
    for outcome in (
        rep.additive_ridge(stage, w, y, fourier, fourier, 1e-6), rep.kernel_ridge(stage, w, y, 4.0, 1e-6),
    ):  # fmt: skip
        found = rep.interventional(stage, outcome, ACTIONS)
        assert jnp.sqrt(jnp.mean((found - truth)[near] ** 2)) < 0.25


def test_conditional_predictions_add_the_control_function():
    w, a, y = confounded(4)
    stage = rep.first_stage(w, a)
    quadratic = rep.polynomial(2)
    outcome = rep.additive_ridge(stage, w, y, quadratic, quadratic, 0.0)
    fitted = rep.conditional(stage, outcome, w, a)
    assert jnp.mean((y - fitted) ** 2) < 0.02
    without = rep.conditional(stage, rep.additive_ridge(stage, w, y, quadratic, rep.NOTHING, 0.0), w, a)
    assert jnp.mean((y - without) ** 2) > 0.2


@pytest.mark.slow
def test_quadratic_outcomes_are_extrapolated_at_the_root_n_rate(record_property):
    """E[Y | do(a)] = m^T B m + tr(B Sigma) + b^T m with m = M0 a; slope over n of the error's root mean square."""
    B, b = jnp.asarray([[0.5, 0.2], [0.2, 0.4]]), jnp.asarray([1.0, -0.5])
    quadratic = rep.polynomial(2)

    @jax.jit
    def error(w, a, y, truth):
        found = predicted(w, a, y, quadratic, quadratic)
        return jnp.mean((found - truth) ** 2)

    sizes, roots = (1_000, 10_000, 100_000), []
    for n in sizes:
        squares = []
        for seed in range(20):
            world, sample = rep.gen1(seed, n, rep.Design())
            z = sample.z
            own = np.random.default_rng(seed + 999).standard_normal(n)
            y = ((z @ B) * z).sum(1) + z @ b + rep.confounder(world, sample) + 0.3 * own
            mean = world.mean(np.asarray(ACTIONS))
            truth = ((mean @ B) * mean).sum(1) + np.trace(B @ world.Sigma) + mean @ b
            squares.append(error(*map(jnp.asarray, (z, sample.a, y, truth))))
        roots.append(float(np.sqrt(np.mean(squares))))
    slope = np.polyfit(np.log(sizes), np.log(roots), 1)[0]
    record_property("value", f"slope {slope:.3f}; errors " + ", ".join(f"{root:.4f}" for root in roots))
    assert abs(slope + 0.5) < 0.15


@pytest.mark.parametrize(
    ("w", "a", "y", "message"),
    [
        (np.ones((5, 2)), np.ones((5, 2)), np.ones(4), "agree in rows"),
        (np.full((5, 2), np.nan), np.ones((5, 2)), np.ones(5), "finite"),
        (np.ones((5, 2)) * np.arange(5)[:, None], np.ones((5, 2)), np.ones(5), "linearly dependent"),
    ],
)
def test_step_two_says_what_it_cannot_use(w, a, y, message):
    with pytest.raises(ConfigError, match=message):
        rep.check_second_stage(w, a, y)
