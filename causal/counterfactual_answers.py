"""How good answers to the questions of :mod:`causal.counterfactual_worlds` are, as numbers by name.

Of strokes and of the small worlds the true counterfactual images are known; of digits only the attributes. Errors of
images are mean squares in [0, 1] units, errors of labels mean absolute differences in standard deviations.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from causal import counterfactual_metrics as cm
from causal import image_scms as scm
from causal import stroke_measures
from causal.counterfactual_worlds import ASKED, DigitQuestion, Question, World, labels_of
from causal.disentanglement import completeness, dci

THICKNESS_UNIT = 0.63
"""Standard deviation by which thickness is scaled, in pixels."""
VARIABLES = ("t", "i")


class Rulers(NamedTuple):
    """Thickness and intensity of strokes by counting pixels, calibrated to labels."""

    thickness: cm.Calibration
    intensity: cm.Calibration

    @classmethod
    def fit(cls, x: Any, labels: Any) -> "Rulers":
        """From factual strokes [b, h, w, 1] in [-1, 1] and their labels [b, 2]."""
        return cls(*(cm.Calibration.fit(raw, own) for raw, own in zip(_raw(x), np.asarray(labels).T, strict=True)))

    def __call__(self, x: Any) -> Float[np.ndarray, "b 2"]:
        """Labels of strokes."""
        return np.stack([ruler(raw) for ruler, raw in zip(self, _raw(x), strict=True)], axis=1)


def _raw(x: Any) -> tuple[Any, Any]:
    return scm.measured_thickness((x + 1) / 2), scm.measured_intensity((x + 1) / 2)


def of_strokes(
    asked: Question, images: Mapping[str, np.ndarray], rulers: Rulers, see: Callable[[Any], cm.Seen]
) -> dict[str, float]:
    """Distance to the true counterfactuals, effectiveness by measurement and by a predictor, minimality.

    Args:
      asked: the strokes and what is asked of them.
      images: answers [b, h, w, 1] in [-1, 1] by question; "do(t), new noise" where noise was not abducted.
      rulers: what measures them.
      see: the anticausal predictor.
    """
    factual, out = rulers(asked.x), {}
    truth, answers, features = np.asarray(asked.truth), np.asarray(asked.answers), see(asked.x).features
    out["reconstruction MSE"] = ((images["null"] - truth[0]) ** 2).mean() / 4
    for k, name in enumerate(ASKED[1:], 1):
        x, cause = images[name], k - 1
        measured, seen = rulers(x), see(x)
        out[f"cf-MSE {name}"] = ((x - truth[k]) ** 2).mean() / 4
        off = np.abs(measured - answers[k]).mean(0)
        for j, attribute in enumerate(VARIABLES):
            out[f"r({attribute}), {name}"] = cm.correlation(measured[:, j], answers[k, :, j])
            out[f"MAE({attribute}) measured, {name}"] = off[j]
            out[f"MAE({attribute}) predicted, {name}"] = np.abs(seen.output[:, j] - answers[k, :, j]).mean()
        out[f"Frechet, {name}"] = cm.frechet(seen.features, see(truth[k]).features)
        labels = np.asarray(asked.labels)[:, cause]
        out[f"minimality, {name}"] = cm.minimality(features, seen.features, labels, answers[k, :, cause])
        changed = answers[k] - answers[0]
        out[f"effect, {name}"] = cm.slope(changed[:, cause], (measured - factual)[:, cause])
    out["thickness kept under do(i), px"] = np.abs(rulers(images["do(i)"]) - factual)[:, 0].mean() * THICKNESS_UNIT
    if "do(t), new noise" in images:
        out["cf-MSE do(t), random x_T"] = ((images["do(t), new noise"] - truth[1]) ** 2).mean() / 4
    return out


def of_world(there: World, question: str, x: Any, found: Float[np.ndarray, "b 4"]) -> dict[str, float]:
    """Distance to the true counterfactuals, and how far labels that a predictor found are from theirs.

    Args:
      there: the world.
      question: which of its questions.
      x: answers [b, h, w, c] in [-1, 1].
      found: labels, by a predictor.
    """
    factual, (is_set, labels) = there.asked["null"][1], there.asked[question]
    off, is_free = np.abs(found - np.asarray(labels)).mean(0), ~np.asarray(is_set)
    return {
        "cf-MSE": float(((x - there.truth[question]) ** 2).mean() / 4),
        "MAE of the set": float(off[~is_free].mean()) if not is_free.all() else 0.0,
        "MAE of the others": float(off[is_free].mean()),
        "r(last variable)": cm.correlation(found[:, 3] - np.asarray(factual)[:, 3], np.asarray(labels - factual)[:, 3]),
    }


def of_digits(asked: DigitQuestion, images: np.ndarray, read: Callable[[Any], np.ndarray]) -> dict[str, float]:
    """Attributes measured in the images; a digit is kept where the classifier reads it as it reads the original.

    Args:
      asked: the digits and what is asked of them.
      images: answers [3, b, 28, 28, 1] in [0, 1] to nothing, do(t) and do(i).
      read: classes of images.
    """
    original, out = read(asked.strokes.images), {}
    measured = [labels_of(stroke_measures.thickness(x), stroke_measures.intensity(x)) for x in images]
    for k, name in enumerate(ASKED):
        for j, attribute in enumerate(VARIABLES):
            if k:
                out[f"r({attribute}), {name}"] = cm.correlation(measured[k][:, j], asked.labels[k, :, j])
            out[f"MAE({attribute}) measured, {name}"] = np.abs(measured[k][:, j] - asked.labels[k, :, j]).mean()
        kept = read(images[k]) == original
        out |= {f"digits kept, {name}": kept.mean(), f"digits, {name}": len(kept)}
    out["reconstruction MSE"] = ((images[0] - asked.strokes.images) ** 2).mean()
    out["composition l1, 1"] = np.abs(images[0] - asked.strokes.images).mean()
    return out


def of_code(z: Float[np.ndarray, "b n k"], labels: Float[np.ndarray, "b n"]) -> dict[str, float]:
    """Correlation of block means with labels, and DCI of the code; completeness also of whole blocks."""
    means, found = z.mean(2), dci(z.reshape(len(z), -1), labels)
    return {
        "label correlation": min(cm.correlation(means[:, j], labels[:, j]) for j in range(labels.shape[1])),
        "DCI disentanglement": found.disentanglement,
        "DCI completeness of blocks": completeness(found.importance.reshape(*z.shape[1:], -1).sum(1)),
        "DCI informativeness": found.informativeness,
    }
