"""What the theory says, and gradient descent from aligned starts beside it."""

import itertools

import jax.numpy as jnp
import numpy as np
import optax

from experiments.jepa_linear.config import Config
from experiments.lab import Context
from latent import jepa_linear as jepa

CURVES = ((1.0, 0.9), (1.0, 0.4), (0.5, 0.9), (2.0, 0.3))
"""(lambda, rho) of the learning curves."""
PAIRS = {
    "dynamic: (1, .9), (2.5, .5)": jepa.dynamic_features(jnp.array([1.0, 2.5]), jnp.array([0.9, 0.5])),
    "dynamic: (1, .95), (2, .6)": jepa.dynamic_features(jnp.array([1.0, 2.0]), jnp.array([0.95, 0.6])),
    "dynamic: (1, .9), (4, .3)": jepa.dynamic_features(jnp.array([1.0, 4.0]), jnp.array([0.9, 0.3])),
    "static: 1, .5": jepa.static_features(jnp.array([1.0, 0.5]), jnp.array([0.3, 0.3])),
}
"""A slow and a fast feature, (variance, autocorrelation) each; a strong and a weak one of equal noise."""
PAIR_DEPTHS, PAIR_EPS, PAIR_SHARE = (1, 2, 3, 4, 5), 0.01, 0.5


def learning_curves(config: Config, context: Context) -> None:
    """W / w* over time by the ODE and by gradient descent."""
    eps, dt, until, dots = 0.2, 4e-3, 40.0, 50
    features = jepa.Features(*(jnp.array(column) for column in zip(*CURVES, strict=True)))
    times = np.arange(dots) * until / dots
    for objective, depth in itertools.product(jepa.OBJECTIVES, config.depths[:3]):
        model = jepa.DeepLinear.of(objective, depth, len(CURVES))
        gd = jepa.learner(objective, model, optax.sgd(dt), jepa.aligned(model, eps))
        seen = jepa.norms_over_time(gd, model, features.moments(), [0], dots, round(until / dots / dt))[0]
        at = context.at(dataset="aligned", method=objective, seed=0, part="curves", L=depth)
        for (lam, rho), simulated in zip(CURVES, seen.T, strict=True):
            target = jepa.fixed_point(objective, depth, rho)
            curves = {"theory": jepa.trajectory(objective, depth, lam, rho, eps, times), "gradient descent": simulated}
            for kind, curve in curves.items():
                for t, w in zip(times, curve, strict=True):
                    at.record("w/w*", w / target, lam=lam, rho=rho, kind=kind, t=float(t))


def critical_times(config: Config, context: Context) -> None:
    """By quadrature, along rho at equal lambda and along lambda at equal rho."""
    lines = [(1.0, rho) for rho in np.linspace(0.2, 0.95, 16)] + [(lam, 0.6) for lam in np.linspace(0.3, 1.5, 13)]
    for objective, depth, (lam, rho) in itertools.product(jepa.OBJECTIVES, config.depths, lines):
        at = context.at(dataset="theory", method=objective, seed=0, part="critical times", L=depth)
        t = jepa.critical_time(objective, depth, lam, rho, 1e-3, 0.25)
        at.record("critical time", t, lam=float(lam), rho=float(rho))


def both_ways(objective, depth: int, features: np.ndarray, eps: float, share: float, longer: float):
    """Critical times by kind: by quadrature, and by gradient descent for ``longer`` times the longest of those."""
    exact = [jepa.critical_time(objective, depth, lam, rho, eps, share) for lam, rho in features.tolist()]
    longest = longer * max(t for t in exact if np.isfinite(t))
    return {
        "theory": np.array(exact),
        "gradient descent": jepa.descended_times(objective, depth, jepa.Features(*features.T), eps, share, longest),
    }


def phase_diagram(config: Config, context: Context) -> None:
    """log(t_B / t_A) over ratios of lambda and rho."""
    lam, rho = 1.0, 0.9
    lam_ratios, rho_ratios = np.linspace(0.6, 1.6, config.grid), np.linspace(0.4, 1.0, config.grid)
    b = np.array([(lam * x, rho * y) for x in lam_ratios for y in rho_ratios])
    for objective, depth in itertools.product(jepa.OBJECTIVES, config.depths):
        at = context.at(dataset="two features", method=objective, seed=0, part="phase diagram", L=depth)
        for kind, t in both_ways(objective, depth, np.vstack([[lam, rho], b]), 0.05, 0.25, 1.2).items():
            for pair, ratio in zip(b, np.log(t[1:] / t[0]), strict=True):
                place = {"lam_ratio": float(pair[0] / lam), "rho_ratio": float(pair[1] / rho)}
                at.record("ln t_B/t_A", ratio, kind=kind, **place)


def pairs_of_features(config: Config, context: Context) -> None:
    """Critical times of two features each."""
    features = np.array([[float(x) for x in row] for pair in PAIRS.values() for row in zip(*pair, strict=True)])
    names = list(itertools.product(PAIRS, ("first", "second")))
    for objective, depth in itertools.product(jepa.OBJECTIVES, PAIR_DEPTHS):
        for kind, times in both_ways(objective, depth, features, PAIR_EPS, PAIR_SHARE, 1.1).items():
            for (name, feature), t in zip(names, times, strict=True):
                at = context.at(dataset=name, method=objective, seed=0, part="pairs", L=depth, kind=kind)
                at.record("critical time of a pair", t, feature=feature)


PARTS = {
    "curves": learning_curves,
    "critical times": critical_times,
    "phase diagram": phase_diagram,
    "pairs": pairs_of_features,
}
