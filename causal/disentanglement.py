r"""Disentanglement, completeness and informativeness of a code (DCI; Eastwood and Williams 2018).

With R_dj >= 0 the importance of code d for factor j:

* disentanglement: sum_d rho_d (1 - H(R_d.)), entropy to the base of the number of factors, rho_d = R_d. / sum R,
* completeness: sum_j rho_j (1 - H(R_.j)), entropy to the base of the number of codes,
* informativeness: 1 - MSE / variance of each factor on held-out rows.

Importances and predictions come from scikit-learn's gradient-boosted regression trees with their defaults, as is usual
for DCI. The entropies are exact: the reference adds 1e-11 inside the logarithm.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import xlogy
from sklearn.ensemble import GradientBoostingRegressor

from core.checks import Natural, OpenFraction, checked


class Dci(NamedTuple):
    """The three scores, with what they were computed from."""

    disentanglement: float
    completeness: float
    informativeness: float
    """The mean over factors."""
    importance: Float[np.ndarray, "codes factors"]
    """Each column sums to 1, or is 0 where no code tells anything of the factor."""
    explained: Float[np.ndarray, " factors"]
    """Informativeness of each factor: at most 1, and 0 for the mean of the training rows."""


def disentanglement(importance: Float[np.ndarray, "codes factors"]) -> float:
    """1 if each code is important for one factor only, 0 if each is equally important for all."""
    weights = np.asarray(importance, float).sum(1)
    total = weights.sum()
    return float(weights @ specificity(importance) / total) if total > 0 else 0.0


def completeness(importance: Float[np.ndarray, "codes factors"]) -> float:
    """1 if one code only is important for each factor, 0 if all are equally."""
    return disentanglement(np.asarray(importance).T)


def specificity(importance: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, " rows"]:
    """1 - H of each row as a distribution, entropy to the base of its length; 0 for a row of zeros.

    Raises:
      ValueError: for a negative importance or one that is not finite.
    """
    rows = np.asarray(importance, float)
    if rows.ndim != 2 or not np.isfinite(rows).all() or (rows < 0).any():
        raise ValueError("importances must be a matrix [codes, factors] of finite numbers that are not negative")
    sums = rows.sum(1, keepdims=True)
    shares = np.divide(rows, sums, out=np.zeros_like(rows), where=sums > 0)
    entropy = -xlogy(shares, shares).sum(1) / np.log(max(rows.shape[1], 2))
    return np.where(sums[:, 0] > 0, 1 - entropy, 0.0)


@checked
def dci(
    codes: Float[np.ndarray, "n codes"],
    labels: Float[np.ndarray, "n factors"],
    *,
    held: OpenFraction = 0.25,
    seed: Natural = 0,
) -> Dci:
    """The DCI scores of codes for labelled factors.

    A factor with several codes of the same content is not complete, whatever the block structure of the code; sum the
    importances of a block and ask :func:`completeness` again to score blocks.

    Args:
      codes: one row per example.
      labels: its factors.
      held: the share of rows, chosen at random, on which informativeness is measured.
      seed: of the choice of rows and of the trees.

    Raises:
      ValueError: where the rows disagree, a number is not finite, or a factor is constant.
    """
    z, y = np.asarray(codes, float), np.asarray(labels, float)
    if z.ndim != 2 or y.ndim != 2 or len(z) != len(y):
        raise ValueError(f"codes {z.shape} and labels {y.shape} must be matrices with the same number of rows")
    if not (np.isfinite(z).all() and np.isfinite(y).all()):
        raise ValueError("codes and labels must be finite")
    order = np.random.default_rng(seed).permutation(len(z))
    test, train = np.split(order, [round(held * len(z))])
    constant = np.flatnonzero(y[test].std(0) == 0) if len(test) and len(train) else [0]
    if len(constant):
        raise ValueError(f"factor {constant[0]} does not vary on the {len(test)} held-out of {len(z)} rows")
    fits = [GradientBoostingRegressor(random_state=seed).fit(z[train], column) for column in y[train].T]
    importance = np.stack([fit.feature_importances_ for fit in fits], 1)
    predicted = np.stack([fit.predict(z[test]) for fit in fits], 1)
    explained = 1 - ((predicted - y[test]) ** 2).mean(0) / y[test].var(0)
    return Dci(disentanglement(importance), completeness(importance), float(explained.mean()), importance, explained)
