"""What an experiment's arrays must be before anything is trained on them."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Num

from causal.treatment_effects.inference import Clusters
from core.errors import ConfigError


def finite(name: str, values: Any) -> Num[np.ndarray, "..."]:
    """An array of numbers without missing values.

    Raises:
      ConfigError: where a value is no number, missing or infinite.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ConfigError(
            f"{name} has rows of different shapes; make them alike, such as images of one size"
        ) from error
    if array.dtype.kind not in "fiub":
        array = _converted(name, values, array)
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        first = _place(values, bad[0])
        raise ConfigError(
            f"{name} has {len(bad)} values that are NaN or infinite, the first {first}; drop or impute those units"
        )
    return array


def _converted(name: str, values: Any, array: np.ndarray) -> np.ndarray:
    """Numbers that are kept as objects or as text."""
    converted = np.empty(array.shape)
    for place, value in np.ndenumerate(array):
        try:
            converted[place] = value
        except (TypeError, ValueError) as error:
            what = f"{str(value)!r:.40}" if isinstance(value, str) else f"a {type(value).__name__}"
            raise ConfigError(
                f"{name} holds {what} {_place(values, place)}; pass numbers, of categories one column for each: "
                "pandas.get_dummies"
            ) from error
    return converted


def _place(values: Any, place: Any) -> str:
    """Where an element is, by the names of a table's columns."""
    place = [int(i) for i in place]
    if hasattr(values, "columns") and len(place) == 2:
        return f"in column {values.columns[place[1]]!r}, row {values.index[place[0]]!r}"
    return f"at {place}"


def images(values: Any) -> Num[np.ndarray, "images h w channels"]:
    """Images, or patches of them, with their channels last.

    Raises:
      ConfigError: where there is an axis more or less, or channels seem to come first.
    """
    x = finite("x", values)
    if x.ndim != 4 or not x.size:
        remedy = "; give grey images a channel: x[..., None], a single one an axis: x[None]" if x.ndim == 3 else ""
        raise ConfigError(f"x has shape {x.shape}, but images are [images, h, w, channels]{remedy}")
    if x.shape[1] in (1, 3, 4) and x.shape[1] < x.shape[2] and x.shape[3] > 4:
        raise ConfigError(
            f"x has shape {x.shape}, as if its {x.shape[1]} channels came first; images are [images, h, w, channels]: "
            "x.transpose(0, 2, 3, 1)"
        )
    return x


def covariates(values: Any) -> Num[np.ndarray, "n ..."]:
    """What the trunk takes: at least one number for every unit.

    Raises:
      ConfigError: where there is no axis of units or none of numbers, or nothing along one.
    """
    x = finite("x", values)
    if x.ndim < 2 or not x.size:
        remedy = "; write one column as x[:, None]" if x.ndim == 1 else ""
        raise ConfigError(f"x has shape {x.shape}, but must be [units, ...] with a number at least per unit{remedy}")
    return x


def of_length(name: str, values: Any, n: int) -> Num[np.ndarray, " n"]:
    """A finite number for each of n units.

    Raises:
      ConfigError: where there are more or fewer.
    """
    array = finite(name, values)
    if array.shape != (n,):
        remedy = f": {name}[:, 0] of a column, {name}.argmax(1) of one-hot rows" if array.ndim == 2 else ""
        raise ConfigError(f"{name} has shape {array.shape}, but there are {n} units; pass one number per unit{remedy}")
    return array


def treatment(values: Any, n: int) -> Float[np.ndarray, " n"]:
    """Zeros and ones, both of them.

    Raises:
      ConfigError: where there is another value, or an arm without units.
    """
    labels = np.asarray(values)
    if labels.dtype.kind in "OUS" and labels.size and isinstance(labels.flat[0], str):
        raise ConfigError(
            f"t holds text, such as {str(labels.flat[0])!r}; code controls as 0 and treated units as 1, such as "
            "(t == 'treated').astype(int)"
        )
    t = of_length("t", values, n)
    others = np.setdiff1d(t, (0, 1))
    if others.size:
        raise ConfigError(f"t holds {others[0]:g}; code controls as 0 and treated units as 1")
    for arm, name in enumerate(("control", "treated")):
        if not (t == arm).any():
            raise ConfigError(f"t has no {name} unit; an effect needs units of both arms")
    return t.astype(np.float32)


def outcome(values: Any, n: int) -> Float[np.ndarray, " n"]:
    """Numbers that are not all the same.

    Raises:
      ConfigError: where they are.
    """
    y = of_length("y", values, n).astype(np.float64)
    if np.ptp(y) == 0:
        raise ConfigError(f"y is {y[0]:g} for every unit; there is no effect to estimate")
    return y


def propensities(values: Any, n: int) -> Float[np.ndarray, " n"]:
    """The probability of treatment of every unit, from one number or one for each.

    Raises:
      ConfigError: where it is not between 0 and 1.
    """
    e = of_length("propensity", np.broadcast_to(values, n) if np.ndim(values) == 0 else values, n)
    bad = (e <= 0) | (e >= 1)
    if bad.any():
        raise ConfigError(
            f"propensity is {e[bad][0]:g} for {int(bad.sum())} units; it must lie between 0 and 1,"
            " so drop units that had no chance of one arm"
        )
    return e.astype(np.float32)


def clusters(labels: Any, n: int, folds: int) -> Clusters:
    """Groups by label, at least as many as folds; every unit a group of its own where there are no labels.

    Raises:
      ConfigError: where the labels are not one per unit, or name too few groups.
    """
    if labels is None:
        labels = np.arange(n)
    labels = np.asarray(labels)
    if labels.shape != (n,):
        raise ConfigError(f"groups has shape {labels.shape}, but there are {n} units; pass one label per unit")
    if labels.dtype.kind == "f":
        finite("groups", labels)
    missing = np.flatnonzero(pd.isna(labels))
    if missing.size:
        raise ConfigError(
            f"groups has no label for {missing.size} units, the first at [{missing[0]}]; name their group, or drop them"
        )
    try:
        found, index = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise ConfigError("groups holds labels of several types; make all of them text: .astype(str)") from error
    if len(found) < folds:
        raise ConfigError(f"groups has {len(found)} groups, fewer than the {folds} folds; lower folds")
    return Clusters(index.astype(np.int32), len(found))  # pyright: ignore[reportArgumentType]


def require_sizes(n: int, batch: int | None, draws: int) -> None:
    """A batch that n units fill, and enough resamples for a spread.

    Raises:
      ConfigError: where it is not so.
    """
    if batch is not None and not 1 <= batch <= n:
        raise ConfigError(f"batch is {batch}, but there are {n} units; choose 1 to {n}, or None for all")
    if 0 < draws < 20:
        raise ConfigError(f"draws is {draws}; pass 0 for no intervals, or 20 or more for a spread: 50 are better")


def require_both_arms(weights: Any, t: Any) -> None:
    """Weights [runs, n] leave units of both arms in every run.

    Raises:
      ConfigError: where they do not.
    """
    w, t = np.asarray(weights) > 0, np.asarray(t) > 0
    if not ((w & t).any(-1) & (w & ~t).any(-1)).all():
        raise ConfigError("t has a single arm without some fold or in a resample; use fewer folds or draws=0")
