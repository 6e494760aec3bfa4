"""Mixtures of experts of growth curves, beside the same likelihood in NumPy maximised by SciPy's L-BFGS-B.

Same data (500 persons, 10 occasions, 2 classes, expert and gating covariates: 47 parameters), same starts, float64 on
both sides, every start run to convergence. The peer is vectorised over persons with J x J covariances in batched LAPACK
calls, and has its gradient written out by hand; likelihood and gradient of both sides are compared before anything is
timed. It is timed on a few starts; the note says how many, and times are scaled by their number.
"""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.optimize
import scipy.special
from jax.flatten_util import ravel_pytree

import latent.moe_trajectories as moe
from core.bench import BenchResult, Timing, first_call
from latent.moe_trajectories import inference

PERSONS, STARTS, PEER_STARTS = 500, (1, 10, 100), 3
LANES = 16


def run() -> list[BenchResult]:
    """Seconds for 1, 10 and 100 starts and for standard errors."""
    with jax.enable_x64(True):
        return _run()


def _run() -> list[BenchResult]:
    mixture, truth = moe.Mixture(2), moe.example_truth()
    data, _ = jax.jit(lambda key: moe.simulate(key, truth, PERSONS))(jax.random.key(1000))
    arranged = moe.arrange(data)
    starts = moe.draw_starts(mixture, jax.random.key(0), arranged, max(STARTS))
    loss = functools.partial(loss_and_gradient, data=jax.tree.map(np.asarray, data))
    flat = np.asarray(jax.vmap(lambda p: ravel_pytree(p)[0])(starts))
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], starts))[1]
    ours_at = jax.jit(jax.value_and_grad(lambda x: -moe.log_likelihood(mixture, unravel(x), arranged)))(flat[0])
    for peers_one, ours_one in zip(loss(flat[0]), ours_at, strict=True):
        np.testing.assert_allclose(peers_one, ours_one, rtol=1e-6, atol=1e-6)
    options = {"maxiter": 10_000, "maxfun": 100_000, "ftol": 1e-13, "gtol": 1e-4}
    search = functools.partial(scipy.optimize.minimize, loss, jac=True, method="L-BFGS-B", options=options)
    peer_s, peers = zip(*(timed(functools.partial(search, x)) for x in flat[:PEER_STARTS]), strict=True)
    peer_each = Timing(float(np.mean(peer_s)))  # starts differ in length: their spread is none of the measurement
    results = []
    for number in STARTS:
        first = jax.tree.map(lambda leaf, number=number: leaf[:number], starts)
        call = functools.partial(moe.descend, mixture, first, arranged, lanes=LANES)
        compile_s, _ = timed(call)
        ours, found = zip(*(timed(call) for _ in range(3 if number < 100 else 1)), strict=True)
        params, value = found[0][0], -np.asarray(found[0][1].value)
        note = f"log L of the first start {value[0]:.3f}, peer's {-peers[0].fun:.3f}; best {value.max():.3f}, peer's "
        note += f"{-min(peer.fun for peer in peers):.3f}, timed on {PEER_STARTS} starts and scaled to {number}"
        name = f"growth mixture, {number} start" + "s" * (number > 1)
        peer = "SciPy L-BFGS-B, gradient by hand"
        results.append(BenchResult.of(name, Timing.of(ours), peer, peer_each * number, compile_s, note))
    return [*results, _standard_errors(mixture, jax.tree.map(lambda leaf: leaf[0], params), arranged, loss)]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one call, results ready, and its result."""
    begin = time.perf_counter()
    result = jax.block_until_ready(call())
    return time.perf_counter() - begin, result


def _standard_errors(mixture, params, arranged, loss) -> BenchResult:
    def ours():
        at = moe.curvature(mixture, params, arranged)
        return inference._errors(mixture, params, arranged, at)

    compile_s = first_call(ours)
    own = Timing.of([first_call(ours) for _ in range(3)])
    x = np.asarray(ravel_pytree(params)[0])
    begin = time.perf_counter()
    np.linalg.inv(_differences(loss, x))
    peer = Timing(time.perf_counter() - begin)
    note = "peer: Hessian alone, by central differences of its gradient; ours: exact, with sandwich and delta method"
    return BenchResult.of("growth mixture, SE", own, "NumPy, central differences", peer, compile_s, note)


def _differences(loss, x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """The Hessian by two gradients per parameter."""
    return np.stack([(loss(x + step)[1] - loss(x - step)[1]) / (2 * h) for step in h * np.eye(len(x))])


class _Density(NamedTuple):
    """Log density of every person, and its gradient by alpha, gamma, psi, log theta, B, mux and phi of the class."""

    value: np.ndarray
    gradient: tuple[np.ndarray, ...]


def loss_and_gradient(x: np.ndarray, data: moe.GrowthData) -> tuple[float, np.ndarray]:
    """-log L with the explicit covariance of every person, and its gradient, in the order of the flattened mixture."""
    gating, *parts = np.split(x, np.cumsum([3, 6, 2, 12, 2, 12, 4]))
    classes = [_density(data, *(part.reshape(2, -1)[k] for part in parts)) for k in range(2)]
    design = np.column_stack([np.ones(len(data.xg)), data.xg])
    logits = np.stack([np.zeros(len(design)), design @ gating])
    joint = scipy.special.log_softmax(logits, axis=0) + np.stack([density.value for density in classes])
    posterior = scipy.special.softmax(joint, axis=0)
    by_gating = (posterior[1] - scipy.special.softmax(logits, axis=0)[1]) @ design
    by_class = [
        np.stack([np.tensordot(p, leaf, 1).ravel() for p, leaf in zip(posterior, leaves, strict=True)])
        for leaves in zip(*(density.gradient for density in classes), strict=True)
    ]
    gradient = np.concatenate([by_gating, *(leaf.ravel() for leaf in by_class)])
    return -scipy.special.logsumexp(joint, axis=0).sum(), -gradient


def _density(data: moe.GrowthData, alpha, gamma, psi, log_theta, B, mux, phi) -> _Density:
    """One class: with w = S^{-1} r and V = (w w' - S^{-1}) / 2, d log f = w' d mean + tr(V d S)."""
    B, c, root, xe = B.reshape(3, 2), _triangle(psi, 3), _triangle(phi, 2), np.asarray(data.xe)
    t, theta = np.asarray(data.t) - gamma[0], np.exp(log_theta[0])
    loadings = np.stack([np.ones_like(t), t, np.abs(t)], -1)
    moved = np.stack([np.zeros_like(t), -np.ones_like(t), -np.sign(t)], -1)
    eta = alpha + xe @ B.T
    half = loadings @ c
    cov = half @ half.transpose(0, 2, 1) + theta * np.eye(t.shape[1])
    of_y, w, V = _normal(data.y - np.einsum("njp,np->nj", loadings, eta), cov)
    of_x, w_x, V_x = _normal(xe - mux, np.broadcast_to(root @ root.T, (len(xe), 2, 2)))
    by_eta = np.einsum("njp,nj->np", loadings, w)
    V_loadings = V @ loadings
    by_gamma = np.einsum("nj,njp,np->n", w, moved, eta) + 2 * np.einsum("njp,pq,njq->n", V_loadings, c @ c.T, moved)
    by_psi = _by_triangle(loadings.transpose(0, 2, 1) @ V_loadings, c)
    by_theta = theta * np.trace(V, axis1=1, axis2=2)
    by_B = by_eta[:, :, None] * xe[:, None, :]
    gradient = (by_eta, by_gamma[:, None], by_psi, by_theta[:, None], by_B, w_x, _by_triangle(V_x, root))
    return _Density(of_y + of_x, gradient)


def _triangle(flat: np.ndarray, size: int) -> np.ndarray:
    """The lower triangle C whose diagonal is given by its logarithm."""
    c = np.zeros((size, size))
    c[np.tril_indices(size)] = flat
    c[np.diag_indices(size)] = np.exp(np.diag(c))
    return c


def _by_triangle(G: np.ndarray, c: np.ndarray) -> np.ndarray:
    """From derivatives by C C' to those by the entries that give C."""
    by_c = 2 * G @ c
    by_c[:, np.arange(len(c)), np.arange(len(c))] *= np.diag(c)
    rows, columns = np.tril_indices(len(c))
    return by_c[:, rows, columns]


def _normal(off: np.ndarray, cov: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log density of N(0, S) at every row, S^{-1} r and (w w' - S^{-1}) / 2."""
    inverse = np.linalg.inv(cov)
    w = np.einsum("nij,nj->ni", inverse, off)
    logdet = np.linalg.slogdet(cov)[1]
    value = -0.5 * ((w * off).sum(1) + logdet + off.shape[1] * np.log(2 * np.pi))
    return value, w, 0.5 * (w[:, :, None] * w[:, None, :] - inverse)
