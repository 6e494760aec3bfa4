r"""How good a counterfactual image is: effectiveness, composition, minimality, and the Frechet distance of features.

Composition and effectiveness: Monteiro, Ribeiro, Pawlowski, Castro, Glocker, Measuring axiomatic soundness of
counterfactual image models, ICLR 2023. Minimality: the counterfactual latent divergence of Sanchez and Tsaftaris (2022)
with the weights of counterfactual-benchmark. Features come from an anticausal predictor trained on factual images, not
from Inception; Frechet distances here compare with each other only.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
import scipy.linalg
from jaxtyping import Array, Float

from core.checks import Count, checked
from core.conv import Conv
from core.learner import GradientLearner, gradient_learner


class Seen(NamedTuple):
    """What a predictor makes of an image."""

    output: Float[Array, "b n"]
    features: Float[Array, "b d"]


@checked
class Predictor(nn.Module):
    """The anticausal model: outputs (labels, or logits of classes) and features from an image.

    Convolutions of stride two where ``convolutions`` are given, then a perceptron whose last hidden layer is the
    features.
    """

    n: Count
    widths: Sequence[Count] = (128, 32)
    convolutions: Sequence[Count] = ()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Seen:
        """Outputs and features."""
        for channels in self.convolutions:
            x = nn.leaky_relu(Conv(channels, stride=2)(x))
        h = x.reshape(x.shape[0], -1)
        for width in self.widths:
            h = nn.leaky_relu(nn.Dense(width)(h))
        return Seen(nn.Dense(self.n)(h), h)


def predictor_learner(
    model: Predictor, tx: optax.GradientTransformation, target: str = "labels", *, classes: bool = False
) -> GradientLearner:
    """Trains on batches ``{"x", target}``, by squared error or, for classes, cross-entropy."""

    def loss(params, key, batch):
        found: Any = model.apply(params, batch["x"])
        if classes:
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(found.output, batch[target])), {}
        return jnp.mean((found.output - batch[target]) ** 2), {}

    return gradient_learner(lambda key, batch: model.init(key, batch["x"][:1]), loss, tx, batch_axes=0)


@checked
def composition(
    null: Callable[[Any], Any], x: Any, times: Sequence[Count] = (1, 10), axis: tuple[int, ...] | None = None
) -> dict[int, Any]:
    """Mean |x - x after m null interventions| for each m: 0 for a model that abducts perfectly.

    Args:
      null: one null intervention on all images.
      x: the images.
      times: the numbers m.
      axis: over which the mean is taken, such as all but that of the seeds; all if None.
    """
    out, now = {}, x
    for done in range(1, max(times) + 1):
        now = null(now)
        if done in times:
            out[done] = np.abs(np.asarray(now) - np.asarray(x)).mean(axis)
    return out


def correlation(a: Any, b: Any) -> float:
    """Pearson's; 0 where one side does not vary."""
    x, y = (np.asarray(values, float) for values in (a, b))
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) > 0 and np.ptp(y) > 0 else 0.0


def slope(x: Any, y: Any) -> float:
    """Of the least squares line y ~ x; 0 where x does not vary. Measures how much of a change is carried out."""
    x, y = (np.asarray(values, float) for values in (x, y))
    centred = x - x.mean()
    return float(centred @ (y - y.mean()) / (centred @ centred)) if np.ptp(x) > 0 else 0.0


class Calibration(NamedTuple):
    """A linear map from raw measurements to labels, fitted on factual images."""

    slope: float
    intercept: float

    @classmethod
    def fit(cls, raw: Any, labels: Any) -> "Calibration":
        """By least squares of labels on measurements."""
        rate = slope(raw, labels)
        return cls(rate, float(np.mean(labels) - rate * np.mean(raw)))

    def __call__(self, raw: Any) -> Float[np.ndarray, " n"]:
        """Calibrated measurements."""
        return self.intercept + self.slope * np.asarray(raw, float)


def frechet(a: Any, b: Any) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of two sets of features, [n, d] and [m, d].

    The trace of the root is the sum of the roots of the eigenvalues of S_a S_b, which are those of the symmetric
    S_a^(1/2) S_b S_a^(1/2) and hence not negative.
    """
    x, y = np.asarray(a, float), np.asarray(b, float)
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values, vectors = scipy.linalg.eigh(s)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(scipy.linalg.eigvalsh(root @ t @ root), 0)).sum()
    return float(max(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * cross, 0.0))


@checked
def minimality(
    factual: Any,
    counterfactual: Any,
    attribute: Float[np.ndarray, " n"],
    target: Float[np.ndarray, " n"],
    bins: Count = 10,
) -> float:
    """Mean over images of log(0.8 exp P(S_cf <= d) + 0.2 exp P(S_f >= d)); lower is more minimal.

    d is the l1 distance in features from an image to its counterfactual, S_cf that from it to the real images whose
    attribute lies in the bin of the target, S_f in the bin of its own. Images without company in either bin are left
    out. Features are [n, d].
    """
    factual, counterfactual = np.asarray(factual), np.asarray(counterfactual)
    edges = np.quantile(attribute, np.linspace(0, 1, bins + 1)[1:-1])
    own, wanted = np.searchsorted(edges, attribute), np.searchsorted(edges, target)
    pairs = np.abs(factual[:, None, :] - factual[None, :, :]).mean(-1)
    d = np.abs(counterfactual - factual).mean(-1)
    scores = []
    for i in range(len(d)):
        others = np.arange(len(d)) != i
        to_target, to_own = pairs[i, (own == wanted[i]) & others], pairs[i, (own == own[i]) & others]
        if to_target.size and to_own.size:
            near, far = (to_target <= d[i]).mean(), (to_own >= d[i]).mean()
            scores.append(np.log(0.8 * np.exp(near) + 0.2 * np.exp(far)))
    return float(np.mean(scores)) if scores else float("nan")
