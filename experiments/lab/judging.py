"""How claims about means over seeds are judged."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from core.stats import all_of, within
from experiments.lab.statistics import MEAN, Statistic
from experiments.lab.system import Verdict


class Quantity(NamedTuple):
    """Numbers by seed and the limits that a claim sets their mean, or what else is declared of them."""

    name: str
    values: np.ndarray
    least: float = -math.inf
    most: float = math.inf
    statistic: Statistic = MEAN


def decided(*quantities: Quantity, seeds: int, shown: Callable[[float], float] = float) -> Verdict:
    """Whether the 95 % interval over seeds of every quantity lies within its limits; open where one holds a limit.

    Args:
      *quantities: all must hold; the verdict's interval is that of the first.
      seeds: with fewer values nothing is judged.
      shown: how a number is told, e.g. ``math.exp`` for logarithms.
    """
    if any(len(each.values) < seeds for each in quantities):
        return Verdict(None)
    means = [each.statistic.of(each.values) for each in quantities]
    answers = [within(mean.interval, each.least, each.most) for mean, each in zip(means, quantities, strict=True)]
    told = [tuple(shown(x) for x in (mean.value, *mean.interval)) for mean in means]
    words = [f"{each.name} {mean:.3g}" for each, (mean, _, _) in zip(quantities, told, strict=True)]
    if len(quantities) > 1:  # the interval of a single one stands beside its words
        words = [f"{text} [{low:.3g}, {high:.3g}]" for text, (_, low, high) in zip(words, told, strict=True)]
    return Verdict(all_of(answers), "; ".join(words), (told[0][1], told[0][2]))
