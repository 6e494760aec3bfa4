"""The likelihood of growth mixtures: against explicit normal distributions, its limits, symmetries and cost."""

import itertools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings

import latent.moe_trajectories as moe
from latent.moe_trajectories import ldl, model
from latent.moe_trajectories.curves import BILINEAR, bilinear, spline_from_original, spline_to_original, summed_moments

MIX = moe.Mixture


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def persons(rng, n=12, J=6, ce=2, cg=2, tvc=False, missing=True, missing_xe=False):
    t = np.arange(J) + rng.uniform(-0.3, 0.3, (n, J))
    observed = (rng.random((n, J)) > 0.3).astype(float) if missing else np.ones((n, J))
    observed[:, 0] = 1
    y = rng.normal(size=(n, J)) * 3 * observed
    known = (rng.random((n, ce)) > 0.4).astype(float) if missing_xe else np.ones((n, ce))
    x = rng.normal(size=(n, J)) * observed if tvc else np.zeros((n, 0))
    xe, xg = rng.normal(size=(n, ce)), rng.normal(size=(n, cg))
    return moe.GrowthData(*map(jnp.asarray, (t, y, observed, xe * known, known, xg, x)))


def parameters(rng, K=2, p=3, s=1, ce=2, cg=2, joint=True, J=0):
    e, j = (ce, J) if joint else (0, 0)
    experts = moe.Experts(
        alpha=rng.normal(size=(K, p)),
        gamma=rng.uniform(1.5, 4.0, (K, s)),
        psi=0.3 * rng.normal(size=(K, p * (p + 1) // 2)),
        log_theta=0.3 * rng.normal(size=K),
        B=rng.normal(size=(K, p, ce)),
        mux=rng.normal(size=(K, e)),
        phi=0.3 * rng.normal(size=(K, e * (e + 1) // 2)),
        beta=rng.normal(size=(K, 1 if J else 0)),
        tau=rng.normal(size=(K, j)),
        log_omega=0.2 * rng.normal(size=(K, j)),
    )
    return jax.tree.map(jnp.asarray, moe.Params(rng.normal(size=(K - 1, 1 + cg)), experts))


def explicit(mixture, params, data):
    """Log-likelihood of every person by scipy's normal density of everything known of it at once."""
    e, total = jax.tree.map(np.asarray, params.experts), []
    d = jax.tree.map(np.asarray, data)
    for i in range(d.y.shape[0]):
        logits = np.concatenate([[0.0], params.gating[:, 0] + params.gating[:, 1:] @ d.xg[i]])
        seen, known = d.observed[i] > 0, d.xe_observed[i] > 0
        each = []
        for k in range(mixture.classes):
            loadings = np.stack(
                np.broadcast_arrays(*map(np.asarray, mixture.curve.loadings(d.t[i][seen], e.gamma[k]))), 1
            )
            psi, noise = np.asarray(ldl.from_triangle(jnp.asarray(e.psi[k]))), np.exp(e.log_theta[k])
            y, B, of_x = d.y[i][seen], e.B[k], 0.0
            if d.tvc.shape[1]:
                x = d.tvc[i][seen]
                y = y - e.beta[k, 0] * x
                if mixture.covariates == "joint":
                    of_x = scipy.stats.norm.logpdf(x, e.tau[k][seen], np.exp(e.log_omega[k][seen] / 2)).sum()
            if mixture.covariates == "joint" and B.shape[1]:
                phi = np.asarray(ldl.from_triangle(jnp.asarray(e.phi[k])))
                mean = np.concatenate([loadings @ (e.alpha[k] + B @ e.mux[k]), e.mux[k][known]])
                yy = loadings @ (psi + B @ phi @ B.T) @ loadings.T + noise * np.eye(len(y))
                yx = loadings @ B @ phi[:, known]
                cov = np.block([[yy, yx], [yx.T, phi[np.ix_(known, known)]]])
                point = np.concatenate([y, d.xe[i][known]])
            else:
                mean = loadings @ (e.alpha[k] + B @ d.xe[i])
                cov, point = loadings @ psi @ loadings.T + noise * np.eye(len(y)), y
            each.append(scipy.stats.multivariate_normal(mean, cov).logpdf(point) + of_x)
        total.append(scipy.special.logsumexp(scipy.special.log_softmax(logits) + np.array(each)))
    return np.array(total)


def each(mixture, params, data):
    return np.asarray(moe.person_log_likelihoods(mixture, params, moe.arrange(data)))


def total(mixture, params, data):
    return float(each(mixture, params, data).sum())


CASES = {
    "joint": ({}, {}, {}),
    "conditional": ({"covariates": "conditional"}, {}, {"joint": False}),
    "missing covariates": ({"missing_covariates": True}, {"missing_xe": True}, {}),
    "varying covariate": ({}, {"tvc": True}, {"J": 6}),
    "quadratic": ({"curve": moe.QUADRATIC}, {}, {"s": 0}),
    "exponential": ({"curve": moe.EXPONENTIAL}, {}, {"p": 2}),
    "Jenss-Bayley": ({"curve": moe.JENSS_BAYLEY}, {}, {}),
    "no covariates": ({}, {"ce": 0, "cg": 0}, {"ce": 0, "cg": 0}),
}


def test_the_density_is_that_of_the_explicit_normal_distribution(record_property):
    furthest = 0.0
    for seed, (settings_, of_data, of_params) in enumerate(CASES.values()):
        rng = np.random.default_rng(seed)
        mixture, data, params = MIX(2, **settings_), persons(rng, **of_data), parameters(rng, **of_params)
        if mixture.curve.name == "Jenss-Bayley":
            params = params._replace(experts=params.experts._replace(gamma=-0.1 * params.experts.gamma))
        expected = explicit(mixture, params, data)
        furthest = max(furthest, float(np.abs(each(mixture, params, data) / expected - 1).max()))
    record_property("value", f"relative difference at most {furthest:.1e} over {', '.join(CASES)}")
    assert furthest < 1e-9


@settings(max_examples=20, deadline=None)
@given(g=st.floats(-3, 9), eta=st.lists(st.floats(-50, 50), min_size=3, max_size=3))
def test_both_parameterisations_give_one_trajectory(g, eta):
    shape, eta = jnp.array([g]), np.array(eta)
    F, G = np.asarray(spline_to_original(shape)), np.asarray(spline_from_original(shape))
    np.testing.assert_allclose(F @ G, np.eye(3), atol=1e-12)
    t = np.linspace(-2, 10, 25)
    direct = eta[0] + eta[1] * np.minimum(t, g) + eta[2] * np.maximum(t - g, 0)
    loadings = np.stack(np.broadcast_arrays(*map(np.asarray, BILINEAR.loadings(t, shape))), 1)
    np.testing.assert_allclose(loadings @ G @ eta, direct, atol=1e-12 * (1 + np.abs(direct).max()))


def test_closed_moments_equal_sums_over_loadings():
    arranged = moe.arrange(persons(np.random.default_rng(0), tvc=True))
    shape = jnp.array([2.3])
    for a, b in zip(
        jax.tree.leaves(BILINEAR.moments(shape, arranged.occasions)),
        jax.tree.leaves(summed_moments(BILINEAR, shape, arranged.occasions)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_a_rounded_knot_approaches_the_sharp_one():
    rng = np.random.default_rng(1)
    data, params = persons(rng), parameters(rng)
    sharp = total(MIX(2), params, data)
    errors = [abs(total(MIX(2, bilinear(eps)), params, data) - sharp) for eps in (1e-2, 1e-4, 1e-6)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-2 * abs(sharp)


def test_limits_are_the_one_class_model_and_equal_shares():
    rng = np.random.default_rng(2)
    data, params = persons(rng), parameters(rng)
    plain = data.without("expert", "gating")
    single = parameters(rng, K=1, ce=0, cg=0)
    np.testing.assert_allclose(each(MIX(1), single, plain), explicit(MIX(1), single, plain), rtol=1e-9)
    flat = params._replace(gating=jnp.zeros_like(params.gating))
    classes = [jax.tree.map(lambda leaf, k=k: leaf[k : k + 1], params.experts) for k in range(2)]
    densities = [each(MIX(1), moe.Params(params.gating[:0], experts), data) for experts in classes]
    np.testing.assert_allclose(
        each(MIX(2), flat, data), scipy.special.logsumexp(densities, axis=0) - np.log(2), rtol=1e-12
    )


def test_likelihood_under_permuted_classes_shifted_times_and_scaled_outcomes():
    rng = np.random.default_rng(3)
    data, params = persons(rng), parameters(rng, K=3)
    base = total(MIX(3), params, data)
    for order in itertools.permutations(range(3)):
        np.testing.assert_allclose(total(MIX(3), moe.permute_classes(params, np.array(order)), data), base, rtol=1e-12)
    e, c, s = params.experts, 7.5, 3.0
    shifted = params._replace(experts=e._replace(gamma=e.gamma + c))
    np.testing.assert_allclose(total(MIX(3), shifted, data._replace(t=data.t + c)), base, rtol=1e-9)
    diagonal = jnp.array([1, 0, 1, 0, 0, 1])
    scaled = e._replace(
        alpha=s * e.alpha, B=s * e.B, log_theta=e.log_theta + 2 * np.log(s),
        psi=jnp.where(diagonal == 1, e.psi + np.log(s), s * e.psi),
    )  # fmt: skip
    found = total(MIX(3), params._replace(experts=scaled), data._replace(y=s * data.y))
    np.testing.assert_allclose(found, base - float(data.observed.sum()) * np.log(s), rtol=1e-10)


def test_joint_less_conditional_likelihood_is_that_of_the_covariates():
    rng = np.random.default_rng(4)
    data, params = persons(rng), parameters(rng, K=1)
    e = params.experts
    conditional = params._replace(experts=e._replace(mux=e.mux[:, :0], phi=e.phi[:, :0]))
    phi = np.asarray(ldl.from_triangle(e.phi[0]))
    expected = scipy.stats.multivariate_normal(np.asarray(e.mux[0]), phi).logpdf(np.asarray(data.xe))
    found = each(MIX(1), params, data) - each(MIX(1, covariates="conditional"), conditional, data)
    np.testing.assert_allclose(found, expected, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_persons_do_not_know_each_other_and_hidden_values_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    data, params = persons(rng, n=6), parameters(rng)
    hidden = data._replace(y=jnp.where(data.observed > 0, data.y, 1e3), t=jnp.where(data.observed > 0, data.t, -50.0))
    order = rng.permutation(6)
    found = each(MIX(2), params, jax.tree.map(lambda leaf: leaf[order], hidden))
    np.testing.assert_allclose(found, each(MIX(2), params, data)[order], rtol=1e-10)


def test_ill_conditioned_covariances_cannot_raise_the_density_above_that_of_the_noise():
    rng = np.random.default_rng(8)
    data = persons(rng, n=50, ce=0, cg=0)
    params = parameters(rng, K=1, ce=0, cg=0)
    e = params.experts
    each = lambda psi: moe.person_log_likelihoods(MIX(1), params._replace(experts=e._replace(psi=psi)), arranged)  # noqa: E731
    arranged, compute = moe.arrange(data), jax.jit(jax.vmap(each))
    highest = -0.5 * np.asarray(data.observed.sum(1)) * (float(e.log_theta[0]) + np.log(2 * np.pi))
    for scale in (2.0, 5.0, 10.0, 20.0, 40.0):
        found = np.asarray(compute(jnp.asarray(scale * rng.normal(size=(200, 1, 6)))))
        assert (np.isnan(found) | (found <= highest + model.LOST)).all()


def test_exploding_loadings_cannot_raise_the_density_above_that_of_the_noise():
    rng = np.random.default_rng(9)
    data, params = persons(rng, ce=0, cg=0), parameters(rng, p=2, ce=0, cg=0)
    compute = jax.jit(lambda p: moe.person_log_likelihoods(MIX(2, moe.EXPONENTIAL), p, moe.arrange(data)))
    for rate in (-1.0, -5.0, -20.0, -50.0):
        e = params.experts._replace(gamma=jnp.full((2, 1), rate))
        found = np.asarray(compute(params._replace(experts=e)))
        noise = np.asarray(e.log_theta).min() + np.log(2 * np.pi)
        assert (np.isnan(found) | (found <= -0.5 * np.asarray(data.observed.sum(1)) * noise + 1e-6)).all()


def test_triangles_are_inverse_to_covariances():
    flat = jnp.asarray(np.random.default_rng(5).normal(size=(4, 6)))
    np.testing.assert_allclose(ldl.to_triangle(ldl.from_triangle(flat)), flat, atol=1e-12)
    matrix = np.asarray(ldl.from_triangle(flat))
    b = np.random.default_rng(6).normal(size=(4, 3, 2))
    np.testing.assert_allclose(
        ldl.solve_matrix(jnp.asarray(matrix), jnp.asarray(b)), np.linalg.solve(matrix, b), rtol=1e-7
    )


def test_single_precision_agrees_with_double_on_standardised_data():
    rng = np.random.default_rng(7)
    data, params = persons(rng), parameters(rng)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, data))
    np.testing.assert_allclose(each(MIX(2), *single), each(MIX(2), params, data), rtol=2e-4, atol=2e-3)


def flops(n, J, K):
    rng = np.random.default_rng(0)
    data, params = persons(rng, n=n, J=J, missing=False), parameters(rng, K=K)
    lowered = jax.jit(lambda p, a: moe.log_likelihood(MIX(K), p, a)).lower(params, moe.arrange(data))
    costs = lowered.compile().cost_analysis()
    assert costs
    return costs["flops"]


def test_cost_is_linear_in_persons_occasions_and_classes(record_property):
    """Equal steps cost alike: operations are a constant and a multiple, neither constant nor of a higher power."""
    steps = {
        "persons": [flops(n, 10, 2) for n in (400, 800, 1_200)],
        "occasions": [flops(400, J, 2) for J in (10, 20, 30)],
        "classes": [flops(400, 10, K) for K in (2, 4, 6)],
    }
    ratios = {name: (third - second) / (second - first) for name, (first, second, third) in steps.items()}
    record_property("value", "second step over first: " + ", ".join(f"{k} {v:.3f}" for k, v in ratios.items()))
    assert all(abs(ratio - 1) < 0.05 for ratio in ratios.values())
    assert all(second > 1.3 * first for first, second, _ in steps.values())
