"""Mixtures of experts of growth curves, beside the same likelihood in NumPy maximised by SciPy's L-BFGS-B.

Same data (500 persons, 10 occasions, 2 classes, expert and gating covariates: 47 parameters), same starts, float64 on
both sides, every start run to convergence. The peer is vectorised over persons with J x J covariances in batched LAPACK
calls, and differentiates as SciPy does unless told otherwise, by finite differences. It is timed on a few starts; the
note says how many, and times are scaled by their number.
"""

import functools
import time

import jax
import numpy as np
import scipy.optimize
import scipy.special
from jax.flatten_util import ravel_pytree

import latent.moe_trajectories as moe
from core.bench import BenchResult, device_name, first_call
from latent.moe_trajectories import inference

STARTS, PEER_STARTS = (1, 10, 100), 1
LANES = 16


def run() -> list[BenchResult]:
    """Seconds for 1, 10 and 100 starts and for standard errors."""
    with jax.enable_x64(True):
        return _run()


def _run() -> list[BenchResult]:
    mixture, truth = moe.Mixture(2), moe.example_truth()
    data, _ = jax.jit(lambda key: moe.simulate(key, truth, 500))(jax.random.key(1000))
    arranged = moe.arrange(data)
    starts = moe.draw_starts(mixture, jax.random.key(0), arranged, max(STARTS))
    loss = functools.partial(_loss, data=jax.tree.map(np.asarray, data))
    flat = np.asarray(jax.vmap(lambda p: ravel_pytree(p)[0])(starts))
    ours_value = -float(moe.log_likelihood(mixture, jax.tree.map(lambda leaf: leaf[0], starts), arranged))
    np.testing.assert_allclose(loss(flat[0]), ours_value, rtol=1e-9)
    begin = time.perf_counter()
    options = {"maxiter": 1000, "maxfun": 100_000}
    peers = [scipy.optimize.minimize(loss, x, method="L-BFGS-B", options=options) for x in flat[:PEER_STARTS]]
    peer_each = (time.perf_counter() - begin) / PEER_STARTS
    results = []
    for number in STARTS:
        first = jax.tree.map(lambda leaf, number=number: leaf[:number], starts)
        call = functools.partial(moe.descend, mixture, first, arranged, lanes=LANES)
        compile_s = first_call(call)
        ours = [first_call(call) for _ in range(3 if number < 100 else 1)]
        value = -np.asarray(call()[1].value)
        note = f"log L of the first start {value[0]:.3f}, peer's {-peers[0].fun:.3f}; best {value.max():.3f}; "
        note += f"peer timed on {PEER_STARTS} start, finite differences, scaled to {number}"
        results.append(BenchResult(f"fit, {number} starts", float(np.median(ours)), "SciPy L-BFGS-B on NumPy",
                                   peer_each * number, compile_s, device_name(), note))  # fmt: skip
    params = jax.tree.map(lambda leaf: leaf[0], moe.descend(mixture, first, arranged, lanes=LANES)[0])
    return [*results, _standard_errors(mixture, params, arranged, loss)]


def _standard_errors(mixture, params, arranged, loss) -> BenchResult:
    def ours():
        at = moe.curvature(mixture, params, arranged)
        return inference._errors(mixture, params, arranged, at)

    compile_s = first_call(ours)
    ours_s = float(np.median([first_call(ours) for _ in range(3)]))
    x = np.asarray(ravel_pytree(params)[0])
    begin = time.perf_counter()
    hessian = _differences(loss, x)
    np.linalg.inv(hessian)
    note = "peer: Hessian alone, by central differences of the likelihood; ours: exact, with sandwich and delta method"
    return BenchResult("standard errors", ours_s, "NumPy, central differences", time.perf_counter() - begin, compile_s,
                       device_name(), note)  # fmt: skip


def _differences(loss, x: np.ndarray, h: float = 1e-4) -> np.ndarray:
    """Second differences: four evaluations per pair of parameters."""
    steps = h * np.eye(len(x))
    hessian = np.zeros((len(x), len(x)))
    for i, a in enumerate(steps):
        for j, b in enumerate(steps[: i + 1]):
            hessian[i, j] = hessian[j, i] = (loss(x + a + b) - loss(x + a - b) - loss(x - a + b) + loss(x - a - b)) / (
                4 * h * h
            )
    return hessian


def _loss(x: np.ndarray, data: moe.GrowthData) -> float:
    """-log L with the explicit covariance of every person, in the order of the parameters of the mixture."""
    n, J = data.y.shape
    gating, alpha, gamma, psi, log_theta, B, mux, phi = np.split(x, np.cumsum([3, 6, 2, 12, 2, 12, 4]))
    densities = np.zeros((2, n))
    for k in range(2):
        c, root = np.zeros((3, 3)), np.zeros((2, 2))
        c[np.tril_indices(3)], root[np.tril_indices(2)] = psi.reshape(2, 6)[k], phi.reshape(2, 3)[k]
        c[np.diag_indices(3)], root[np.diag_indices(2)] = np.exp(np.diag(c)), np.exp(np.diag(root))
        t = data.t - gamma[k]
        loadings = np.stack([np.ones_like(t), t, np.abs(t)], -1)
        eta = alpha.reshape(2, 3)[k] + data.xe @ B.reshape(2, 3, 2)[k].T
        root_y = loadings @ c
        cov = root_y @ root_y.transpose(0, 2, 1) + np.exp(log_theta[k]) * np.eye(J)
        densities[k] = _normal(data.y - np.einsum("njp,np->nj", loadings, eta), np.linalg.cholesky(cov))
        densities[k] += _normal(data.xe - mux.reshape(2, 2)[k], np.broadcast_to(root, (n, 2, 2)))
    logits = np.stack([np.zeros(n), gating[0] + data.xg @ gating[1:]])
    return -scipy.special.logsumexp(scipy.special.log_softmax(logits, axis=0) + densities, axis=0).sum()


def _normal(off: np.ndarray, lower: np.ndarray) -> np.ndarray:
    white = np.linalg.solve(lower, off[..., None])[..., 0]
    logdet = 2 * np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(1)
    return -0.5 * ((white**2).sum(1) + logdet + off.shape[1] * np.log(2 * np.pi))
