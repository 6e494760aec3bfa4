"""How many classes: information criteria, entropy, and fits of one class after another."""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int, Key
from sklearn.linear_model import LogisticRegression

from core.checks import FINITE, Count, Natural, checked
from core.errors import ConfigError
from core.kinds import Range
from latent.moe_trajectories import fitting, inference
from latent.moe_trajectories.fitting import Fit
from latent.moe_trajectories.model import GrowthData, Mixture

Shares = Annotated[Float[np.ndarray, "n K"], Range(0, 1)]


class Criteria(NamedTuple):
    """Smaller is better."""

    aic: float
    bic: float
    sabic: float
    """BIC with the sample size adjusted to (n + 2) / 24."""


@checked
def criteria(log_likelihood: float, parameters: Natural, persons: Count) -> Criteria:
    """-2 log L + 2p, -2 log L + p log n, -2 log L + p log((n + 2) / 24)."""
    deviance = -2.0 * log_likelihood
    return Criteria(
        deviance + 2 * parameters,
        deviance + parameters * float(np.log(persons)),
        deviance + parameters * float(np.log((persons + 2) / 24)),
    )


@checked
def entropy(posterior: Shares) -> float:
    """1 + sum_ik p log p / (n log K): 1 where every person's class is certain; 1 with a single class."""
    n, classes = posterior.shape
    if classes == 1:
        return 1.0
    p = np.clip(posterior, 1e-300, 1.0)
    return float(1 + (posterior * np.log(p)).sum() / (n * np.log(classes)))


@checked
def accuracy(posterior: Shares, labels: Int[np.ndarray, " n"]) -> float:
    """Share of persons whose most probable class is the true one (numbered from 0 in the fit's order)."""
    return float((posterior.argmax(1) == labels).mean())


@checked
def enumerate_classes(
    mixture: Mixture,
    data: GrowthData,
    key: Key[Array, ""] | None = None,
    *,
    classes: Sequence[Count] = (1, 2, 3, 4),
    starts: Count = 20,
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


@checked
def two_step_gating(posterior: Shares, xg: Annotated[Float[np.ndarray, "n cg"], FINITE]) -> Float[np.ndarray, "k c"]:
    """Gating coefficients of the two-step approach: a multinomial logit of modal labels on the covariates.

    Labels hold errors of classification, which pull these coefficients towards 0.
    """
    found = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1_000).fit(xg, posterior.argmax(1))
    b = np.column_stack([found.intercept_, found.coef_])
    return b if len(b) == 1 else b[1:] - b[0]
