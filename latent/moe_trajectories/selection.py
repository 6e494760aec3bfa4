"""How many classes: information criteria, entropy, and fits of one class after another."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Key
from sklearn.linear_model import LogisticRegression

from core.errors import ConfigError
from latent.moe_trajectories import fitting, inference
from latent.moe_trajectories.fitting import Fit
from latent.moe_trajectories.model import GrowthData, Mixture


class Criteria(NamedTuple):
    """Smaller is better."""

    aic: float
    bic: float
    sabic: float
    """BIC with the sample size adjusted to (n + 2) / 24."""


def criteria(log_likelihood: float, parameters: int, persons: int) -> Criteria:
    """-2 log L + 2p, -2 log L + p log n, -2 log L + p log((n + 2) / 24)."""
    deviance = -2.0 * log_likelihood
    return Criteria(
        deviance + 2 * parameters,
        deviance + parameters * float(np.log(persons)),
        deviance + parameters * float(np.log((persons + 2) / 24)),
    )


def entropy(posterior: Float[np.ndarray, "n K"]) -> float:
    """1 + sum_ik p log p / (n log K): 1 where every person's class is certain; 1 with a single class."""
    n, classes = posterior.shape
    if classes == 1:
        return 1.0
    p = np.clip(posterior, 1e-300, 1.0)
    return float(1 + (posterior * np.log(p)).sum() / (n * np.log(classes)))


def accuracy(posterior: Float[np.ndarray, "n K"], labels: np.ndarray) -> float:
    """Share of persons whose most probable class is the true one (numbered from 0 in the fit's order)."""
    return float((posterior.argmax(1) == labels).mean())


def enumerate_classes(
    mixture: Mixture,
    data: GrowthData,
    key: Key | None = None,
    *,
    classes: Sequence[int] = (1, 2, 3, 4),
    starts: int = 20,
) -> tuple[pd.DataFrame, dict[int, Fit]]:
    """Fits with several numbers of classes, best BIC marked; the paper does this without covariates first.

    Returns:
      A row per number of classes (a collapsed one says so), and the fits.
    """
    rows, fits = [], {}
    for k in classes:
        one = Mixture(k, mixture.curve, mixture.covariates, mixture.missing_covariates)
        try:
            fit = fitting.fit(one, data, key, starts=starts if k > 1 else 3)
        except ConfigError as error:
            rows.append({"classes": k, "note": str(error)})
            continue
        posterior = inference.classify(fit, data)
        found = criteria(fit.log_likelihood, fit.parameters, data.persons)
        rows.append(
            {
                "classes": k,
                "log L": fit.log_likelihood,
                "parameters": fit.parameters,
                **found._asdict(),
                "entropy": entropy(posterior),
                "smallest class": float(posterior.mean(0).min()),
                "starts that agree": fit.agreeing,
                "note": "",
            }
        )
        fits[k] = fit
    table = pd.DataFrame(rows)
    if fits:
        table.loc[table["bic"].idxmin(), "note"] = "best BIC"
    return table, fits


def two_step_gating(posterior: Float[np.ndarray, "n K"], xg: Float[np.ndarray, "n cg"]) -> Float[np.ndarray, "k c"]:
    """Gating coefficients of the two-step approach: a multinomial logit of modal labels on the covariates.

    Labels hold errors of classification, which pull these coefficients towards 0.
    """
    found = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1_000).fit(xg, posterior.argmax(1))
    b = np.column_stack([found.intercept_, found.coef_])
    return b if len(b) == 1 else b[1:] - b[0]
