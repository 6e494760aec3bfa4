"""What the repetitions of a number are, declared by each system: by it tables and figures choose its interval."""

import dataclasses
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np

from core import stats
from core.checks import Count, Positive, checked
from core.stats import Summary

Kind = Literal["mean", "share", "balanced share", "median", "geometric mean", "splits", "deterministic"]
Unit = Literal["seed", "person", "fold"]
ROUNDING = 1e-9
COORDINATES: dict[Unit, frozenset[str]] = {
    "seed": frozenset(),
    "person": frozenset({"person"}),
    "fold": frozenset({"repetition", "fold"}),
}
"""Which coordinates the records of a number have, beside the seed, by what is repeated."""


@checked
@dataclasses.dataclass(frozen=True)
class Statistic:
    """How equal records but for their repetition become one number with an interval (:mod:`core.stats`).

    Names are shell patterns ("recall@*"). What no rule of a system names is a mean over seeds.
    """

    kind: Kind = "mean"
    """"share": a number in 0..``whole`` from each repetition. "balanced share": the same by class, records with the
    coordinate ``class``. "splits": seeds are other folds of the same people, which give no interval for others.
    "deterministic": no randomness on this data set, whatever the seed."""
    metric: str = "*"
    method: str = "*"
    dataset: str = "*"
    over: Unit = "seed"
    """What is repeated. Folds, and repetitions of a cross-validation, are no seeds: the same people are in all of them;
    they give the corrected interval of cross-validation."""
    whole: Positive = 1.0
    trials: Count = 1
    """Of how many independent trials each share is, where that is known."""

    def names(self, dataset: str, method: str, metric: str) -> bool:
        """Whether the rule is meant for a number."""
        pairs = ((dataset, self.dataset), (method, self.method), (metric, self.metric))
        return all(fnmatchcase(name, pattern) for name, pattern in pairs)

    @property
    def coordinates(self) -> frozenset[str]:
        """Which coordinates its records have."""
        return COORDINATES[self.over] | ({"class"} if self.kind == "balanced share" else frozenset())

    def of(self, values: Sequence[float] | np.ndarray, classes: Sequence[Any] = ()) -> Summary:
        """The number and its interval, from one value per repetition; none where a share lies outside of its range.

        Args:
          values: of seeds or people; over folds [repetitions, folds].
          classes: of the people, for a balanced share.
        """
        x, unit = np.asarray(values, float), {"seed": "seeds", "person": "people", "fold": "folds"}[self.over]
        if "share" in self.kind and not np.all(np.isnan(x) | ((x >= -ROUNDING) & (x <= self.whole * (1 + ROUNDING)))):
            kind = f"mean over {len(x)} {unit}, no shares between 0 and {self.whole:g}, no interval"
            return Summary(float(np.mean(x)), np.nan, np.nan, len(x), 0.95, kind)
        if self.over == "fold":
            return stats.cross_validated(x)
        if self.kind == "balanced share":
            return stats.balanced_share(x, np.unique(classes, return_inverse=True)[1], unit=unit)
        if self.kind == "share":
            return stats.mean_share(x, unit=unit, whole=self.whole, trials=self.trials)
        if self.kind in ("deterministic", "splits"):
            return stats.exact(x) if self.kind == "deterministic" else stats.same_people(x)
        return {"mean": stats.summary, "median": stats.median, "geometric mean": stats.geometric_mean}[self.kind](
            x, unit=unit
        )


MEAN, SHARE = Statistic(), Statistic("share")


def rule_of(declared: Iterable[Statistic], dataset: str = "", method: str = "", metric: str = "") -> Statistic:
    """The first of a system's rules that names a number; a mean over seeds where none does."""
    return next((rule for rule in declared if rule.names(dataset, method, metric)), MEAN)


def told(found: Summary, digits: int = 3) -> str:
    """A number and its interval in words; the number alone where there is no interval, or one of no width."""
    text = f"{found.value:.{digits}f}"
    return f"{text} [{found.low:.{digits}f}, {found.high:.{digits}f}]" if found.high > found.low else text
