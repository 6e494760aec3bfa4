"""Numbers with their uncertainty: the one place where an interval, a ± or a p-value of a comparison is made.

Every interval is a :class:`Summary`. It says what it is the interval of (``value``), its limits, how many repetitions
it rests on and of what (``n``, ``kind``), and its coverage (``level``), which is the true one where few values do not
allow for the one that was asked for.

===========================  ================================  =================================================
function                     what is repeated                  interval
===========================  ================================  =================================================
:func:`summary`              runs with seeds of their own      Student's, of a mean
:func:`share`                trials that happen or do not      Wilson's, or Clopper and Pearson's
:func:`mean_share`           runs, a number in 0..1 from each  Clopper and Pearson's at the effective number of trials
:func:`median`               runs                              exact, from order statistics
:func:`geometric_mean`       runs, positive numbers            Student's, of logarithms
:func:`paired`               pairs                             Student's, of the mean difference
:func:`clustered`            clusters of values                Student's with the sandwich variance, over clusters
:func:`balanced_share`       people of several classes         as :func:`mean_share`, over people within classes
:func:`cross_validated`      repeated cross-validation         Student's, variance corrected for shared people
:func:`same_people`          splits of the same people         none
:func:`exact`                nothing: there is no randomness   none
===========================  ================================  =================================================

Repetitions of cross-validation over the same people are no independent runs, and folds are no seeds: their spread says
nothing of other people. Where hits of each person were kept, :func:`balanced_share` and :func:`mean_share` over people
give the interval; where they were not, :func:`cross_validated` does. An interval from an estimate and its standard
error is :func:`from_error`, and one from draws of a posterior or a bootstrap :func:`central`.
"""

from core.stats.comparisons import Paired, all_of, auc, holm, paired, rank_correlation, sign_test, within
from core.stats.grouped import balanced_share, clustered, cross_validated, same_people
from core.stats.intervals import (
    NO_RANDOMNESS,
    Summary,
    exact,
    exponential_rate,
    geometric_mean,
    mean_share,
    median,
    share,
    summary,
)
from core.stats.limits import central, correlation_limits, critical_value, from_error, wilson

__all__ = [
    "NO_RANDOMNESS",
    "Paired",
    "Summary",
    "all_of",
    "auc",
    "balanced_share",
    "central",
    "clustered",
    "correlation_limits",
    "critical_value",
    "cross_validated",
    "exact",
    "exponential_rate",
    "from_error",
    "geometric_mean",
    "holm",
    "mean_share",
    "median",
    "paired",
    "rank_correlation",
    "same_people",
    "share",
    "sign_test",
    "summary",
    "wilson",
    "within",
]
