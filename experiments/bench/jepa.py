"""Gradient descent on many small deep linear networks, beside a plain NumPy loop over configurations.

Both do the same steps: width 8, depth 3, JEPA, from aligned starts; NumPy in float64 one configuration after another,
ours in float32 as one program. NumPy is run on fewer configurations, and both are given per configuration and step.
"""

import time

import numpy as np

from core.bench import BenchResult, Timing, first_call
from experiments.jepa_linear.study.cost import CONFIGURATIONS, DEPTH, DT, WIDTH, compiled, configurations

STEPS, PEER_CONFIGURATIONS = 1_000, 50


def run() -> list[BenchResult]:
    """Seconds for all configurations; the peer's are those of its share, scaled up."""
    runs = configurations()
    start = time.perf_counter()
    call = compiled(runs, STEPS)
    compile_s = time.perf_counter() - start
    ours, peer = [], []
    for _ in range(3):
        ours.append(first_call(call))
        peer.append(
            first_call(
                lambda: [_descend(*c) for c in zip(*(column[:PEER_CONFIGURATIONS] for column in runs), strict=True)]
            )
        )
    scale = CONFIGURATIONS / PEER_CONFIGURATIONS
    note = f"{CONFIGURATIONS} configurations x {STEPS} steps; NumPy timed on {PEER_CONFIGURATIONS} of them"
    theirs = Timing.of(peer) * scale
    return [BenchResult.of("jepa gradient descent", Timing.of(ours), "NumPy loop", theirs, compile_s, note)]


def _descend(eps: float, lam: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """The gradient written out: dL/dW_l = (W_L..W_{l+1})^T G (W_{l-1}..W_1)^T with G = V^T (V W Sxx - W Sxy^T)."""
    xx, xy = np.diag(lam / rho), np.diag(lam)
    w1, w2, w3, v = (eps ** (1 / DEPTH) * np.eye(WIDTH) for _ in range(DEPTH + 1))
    for _ in range(STEPS):
        w21 = w2 @ w1
        w = w3 @ w21
        error = v @ w @ xx - w @ xy.T
        g = v.T @ error
        g21 = w3.T @ g
        step = g21 @ w1.T, w2.T @ g21, g @ w21.T, error @ w.T
        w2, w1, w3, v = w2 - DT * step[0], w1 - DT * step[1], w3 - DT * step[2], v - DT * step[3]
    return w3 @ w2 @ w1
