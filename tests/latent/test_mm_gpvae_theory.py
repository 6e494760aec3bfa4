"""Basis, bounds and exact inference of the multi-modal GP-VAE against closed forms and independent implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel

from core.errors import ConfigError
from latent import mm_gpvae as gp

pytestmark = pytest.mark.slow  # minutes of compilation: beyond what the default tests may take

RNG = np.random.default_rng(0)


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("bins", [31, 60])
def test_rows_of_the_unpruned_basis_are_orthonormal(bins, record_property):
    basis = gp.fourier_basis(bins, bins).matrix
    worst = np.abs(basis @ basis.T - np.eye(len(basis))).max()
    record_property("value", f"largest entry of B B' - I: {worst:.0e}")
    assert len(basis) == 2 * ((bins - 1) // 2) + 1
    assert worst < 1e-12


def covariance(circle, shortest, length=10.0, bins=60):
    basis = gp.fourier_basis(bins, circle, shortest)
    k = gp.spectrum(basis, jnp.array([length], jnp.float64), jitter=0.0)
    return np.asarray(basis.matrix.T @ (k * basis.matrix))


@pytest.mark.usefixtures("double")
def test_pruned_covariance_is_the_periodised_kernel(record_property):
    errors = [np.abs(covariance(n, 10.0) - gp.windings(60, n, 10.0)).max() for n in (72, 100, 120)]
    record_property("value", f"largest difference {max(errors):.1e} for n = 72, 100, 120")
    record_property("interval", (0.0, max(errors)))
    assert max(errors) < 1e-8


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("circle", "bound"), [(100, 1e-3), (120, 1e-6)])
def test_covariance_is_plain_rbf_on_a_long_enough_circle(circle, bound, record_property):
    plain = np.asarray(gp.rbf(60, jnp.array([10.0])))[0]
    error = np.abs(covariance(circle, 10.0) - plain).max()
    record_property("value", f"n = {circle}: {error:.1e}")
    assert error < bound
    assert np.abs(covariance(72, 10.0) - plain).max() > 0.4  # the released code's circle: the ends meet


@pytest.mark.parametrize(("bins", "circle", "shortest", "size"), [(60, 72, 10, 13), (60, 100, 10, 19), (31, 51, 3, 33)])
def test_number_of_coefficients(bins, circle, shortest, size, record_property):
    found = gp.fourier_basis(bins, circle, shortest).matrix.shape
    record_property("value", f"F = {found[0]} for T = {bins}, n = {circle}, l_min = {shortest}")
    assert found == (size, bins)


@settings(max_examples=6, deadline=None)
@given(st.integers(8, 50), st.integers(0, 60), st.floats(2, 12))
def test_covariance_is_stationary_and_frequencies_are_paired(bins, more, length):
    basis = gp.fourier_basis(bins, bins + more, 2.0)
    k = np.asarray(gp.spectrum(basis, jnp.array([length])))
    kernel = basis.matrix.T @ (k * basis.matrix)
    for lag in range(bins):
        np.testing.assert_allclose(np.diagonal(kernel, lag), kernel[0, lag], atol=1e-4)
    assert sorted(basis.frequencies) == list(range(-(len(k) // 2), len(k) // 2 + 1))


def test_a_circle_shorter_than_the_trial_is_refused():
    with pytest.raises(ConfigError, match="circle = 50 is below bins = 60"):
        gp.fourier_basis(60, 50)


@pytest.mark.usefixtures("double")
def test_divergences_are_those_of_torch(record_property):
    torch = pytest.importorskip("torch")
    mean, log_std = RNG.normal(size=(2, 5, 7, 3))
    k = RNG.uniform(0.1, 3, (7, 3))
    normal, kl = torch.distributions.Normal, torch.distributions.kl_divergence
    theirs = kl(
        normal(torch.tensor(mean), torch.tensor(log_std).exp()), normal(0.0, torch.tensor(k).sqrt())
    ).sum((1, 2))  # fmt: skip
    ours = np.asarray(gp.diagonal_kl(jnp.array(mean), jnp.array(log_std), jnp.array(k)))
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12)
    kernel = np.asarray(gp.rbf(7, jnp.array([2.0, 3.0, 4.0]), jitter=1e-2))
    q = torch.distributions.MultivariateNormal(
        torch.tensor(mean.transpose(0, 2, 1)),
        torch.diag_embed(torch.tensor(np.exp(2 * log_std.transpose(0, 2, 1)))),
    )
    theirs_dense = kl(q, torch.distributions.MultivariateNormal(torch.zeros(3, 7).double(), torch.tensor(kernel)))
    dense = np.asarray(gp.dense_kl(jnp.array(mean), jnp.array(log_std), jnp.array(kernel)))
    np.testing.assert_allclose(dense, theirs_dense.sum(1).numpy(), rtol=1e-9)
    worst = np.abs(ours / theirs.numpy() - 1).max()
    record_property("value", f"relative difference {worst:.0e} (diagonal prior), dense prior within 1e-9")


@pytest.mark.usefixtures("double")
def test_divergences_agree_where_both_priors_are_the_same():
    mean, log_std = jnp.array(RNG.normal(size=(2, 4, 6, 2)))
    unit = jnp.broadcast_to(jnp.eye(6), (2, 6, 6))
    np.testing.assert_allclose(
        gp.dense_kl(mean, log_std, unit), gp.diagonal_kl(mean, log_std, jnp.ones((6, 2))), rtol=1e-12
    )
    zero = jnp.zeros((6, 2))
    np.testing.assert_allclose(gp.diagonal_kl(zero, zero, jnp.ones((6, 2))), 0.0, atol=1e-12)


@pytest.mark.usefixtures("double")
def test_derivatives_of_the_dense_divergence_are_those_of_the_plain_formula():
    mean, log_std = jnp.array(RNG.normal(size=(2, 4, 6, 2)))

    def plain(lengths):
        kernel = gp.rbf(6, lengths, jitter=1e-2)
        precision = jnp.linalg.inv(kernel)
        quadratic = jnp.einsum("btd,dtu,bud->b", mean, precision, mean)
        trace = jnp.einsum("btd,dtt->b", jnp.exp(2 * log_std), precision)
        return jnp.sum(trace + quadratic + jnp.linalg.slogdet(kernel)[1].sum()) / 2

    lengths = jnp.array([1.5, 2.5])
    ours = jax.grad(lambda l: gp.dense_kl(mean, log_std, gp.rbf(6, l, jitter=1e-2)).sum())(lengths)
    np.testing.assert_allclose(ours, jax.grad(plain)(lengths), rtol=1e-8)


def sampled_read_out(samples):
    basis = gp.fourier_basis(20, 50, 5.0).matrix
    mean, log_std = 0.5 * RNG.normal(size=(len(basis), 2)), RNG.normal(-1.0, 0.3, (len(basis), 2))
    W, d = RNG.normal(size=(2, 6)) * 0.5, RNG.normal(size=6) * 0.3
    z = np.einsum("ft,sfd->std", basis, mean + np.exp(log_std) * RNG.normal(size=(samples, *mean.shape)))
    args = [jnp.asarray(a, jnp.float64) for a in (basis, mean, log_std, W, d)]
    eta, v = gp.read_out(gp.in_time(args[0], args[1]), gp.variance_in_time(args[0], args[2]), args[3], args[4])
    return z @ W + d, eta, v


@pytest.mark.usefixtures("double")
def test_expected_likelihoods_equal_monte_carlo(record_property):
    drawn, eta, v = sampled_read_out(8000)
    y = RNG.poisson(1.0, eta.shape)
    poisson = scipy.stats.poisson.logpmf(y, np.exp(drawn)).sum((1, 2))
    normal = scipy.stats.norm.logpdf(y, drawn, np.sqrt(0.7)).sum((1, 2))
    scores = []
    for samples, exact in (
        (poisson, gp.expected_poisson(jnp.asarray(y), eta, v)),
        (normal, gp.expected_gaussian(jnp.asarray(y), eta, v, jnp.float64(0.7))),
    ):
        scores.append((samples.mean() - float(exact)) / (samples.std() / len(samples) ** 0.5))
    record_property("value", f"{scores[0]:.2f} (Poisson) and {scores[1]:.2f} (Gaussian) standard errors")
    record_property("interval", (-4.0, 4.0))
    assert np.abs(scores).max() < 4


def regression(circle, jitter):
    """One Gaussian channel of one latent, three trials: ours and scikit-learn's posterior means and likelihoods."""
    bins, length, noise = 40, 6.0, 0.2
    basis = gp.fourier_basis(bins, circle, length)
    y = np.sin(np.arange(bins) / 5.0) + np.sqrt(noise) * RNG.normal(size=(3, bins))
    params = gp.Gpfa(jnp.ones((1, 1)), jnp.zeros(1), jnp.log(jnp.full(1, noise)), jnp.log(jnp.full(1, length)))
    found = gp.infer(basis, params, jnp.asarray(y)[..., None], jitter)
    peer = GaussianProcessRegressor(RBF(length, "fixed") + WhiteKernel(noise, "fixed"), optimizer=None)
    t = np.arange(bins)[:, None]
    theirs = np.stack([peer.fit(t, row).predict(t) for row in y])
    likelihood = [float(peer.fit(t, row).log_marginal_likelihood()) for row in y]
    return basis, params, y, found, theirs, likelihood


@pytest.mark.usefixtures("double")
def test_exact_inference_is_gaussian_process_regression(record_property):
    basis, params, y, found, theirs, likelihood = regression(40 + 36, 1e-8)
    error = np.abs(np.asarray(gp.gpfa_latents(basis, params, jnp.asarray(y)[..., None]) * 1.0)[..., 0] - theirs).max()
    ours = np.einsum("ft,bfd->btd", basis.matrix, found.mean)[..., 0]
    exact = np.abs(ours - theirs).max()
    record_property("value", f"largest difference of means {exact:.1e} at eps = 1e-8, {error:.1e} at eps = 1e-2")
    record_property("interval", (0.0, exact))
    assert exact < 1e-3
    np.testing.assert_allclose(found.log_marginal, likelihood, atol=1e-3)


@pytest.mark.usefixtures("double")
def test_the_optimum_of_the_bound_with_full_covariance_is_the_exact_posterior(record_property):
    basis, params, y, found, _, _ = regression(40 + 36, 1e-8)
    k = np.asarray(gp.spectrum(basis, jnp.exp(params.log_length), jitter=1e-8))[:, 0]
    B, noise, data = jnp.asarray(basis.matrix), 0.2, jnp.asarray(y[0])

    def full_bound(mean, factor):
        """ELBO of q = N(K^(1/2) mean, K^(1/2) L L' K^(1/2)), from the definition."""
        scaled = jnp.sqrt(k)[:, None] * B
        predicted, root = mean @ scaled, jnp.tril(factor).T @ scaled
        terms = (jnp.square(data - predicted) + jnp.square(root).sum(0)) / noise + jnp.log(2 * jnp.pi * noise)
        covariance = jnp.tril(factor) @ jnp.tril(factor).T
        kl = jnp.trace(covariance) + mean @ mean - len(mean) - jnp.linalg.slogdet(covariance)[1]
        return -(terms.sum() + kl) / 2

    mean = found.mean[0, :, 0] / np.sqrt(k)
    factor = jnp.linalg.cholesky(jnp.linalg.inv(found.root @ found.root.T))
    slopes = jax.grad(full_bound, argnums=(0, 1))(mean, factor)
    steepest = max(float(jnp.abs(slope).max()) for slope in slopes)
    gap = float(found.log_marginal[0] - full_bound(mean, factor))
    record_property("value", f"steepest slope at the exact posterior {steepest:.0e}, bound below evidence by {gap:.0e}")
    assert steepest < 1e-6  # the bound is concave in mean and covariance: no slope is the optimum
    assert abs(gap) < 1e-6
    assert full_bound(mean + 0.1, factor) < full_bound(mean, factor) > full_bound(mean, 1.1 * factor)


def test_single_and_double_precision_agree():
    results = []
    for wide in (False, True):
        with jax.enable_x64(wide):
            rng, kind = np.random.default_rng(3), jnp.float64 if wide else jnp.float32
            y = jnp.asarray(rng.normal(size=(3, 60, 8)), kind)
            C = jnp.asarray(rng.normal(size=(8, 2)), kind)
            params = gp.Gpfa(C, jnp.zeros(8, kind), jnp.zeros(8, kind), jnp.log(jnp.full(2, 10.0, kind)))
            found = gp.infer(gp.fourier_basis(60, 100, 10.0), params, y)
            assert found.mean.dtype == kind
            results.append(found)
    np.testing.assert_allclose(results[0].mean, results[1].mean, atol=2e-4)
    np.testing.assert_allclose(results[0].log_marginal, results[1].log_marginal, rtol=1e-4)


def test_untrained_rates_cannot_overflow():
    eta = jnp.full((1, 2, 2), 300.0)
    assert np.isfinite(gp.expected_poisson(jnp.ones((1, 2, 2)), eta, eta)).all()
    assert np.isfinite(jax.grad(lambda e: gp.expected_poisson(jnp.ones((1, 2, 2)), e, e).sum())(eta)).all()


@settings(max_examples=6, deadline=None)
@given(st.integers(5, 40), st.integers(1, 5), st.integers(0, 3))
def test_chunks_put_together_are_the_recording(bins, hop, more):
    hop = min(hop, bins)
    recording = np.random.default_rng(0).normal(size=(bins + more * hop, 2)).astype(np.float32)
    chunks = gp.windows(recording, bins, hop)
    assert chunks.shape == (more + 1, bins, 2)
    np.testing.assert_allclose(gp.stitch(chunks, hop), recording, atol=1e-5)
