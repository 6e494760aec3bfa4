"""What must be shown of ``moe_trajectories``, and how its records are judged."""

from collections.abc import Sized
from typing import NamedTuple

import numpy as np
import pandas as pd

from core.stats import all_of, critical_value, from_error, paired, share, summary, within
from experiments.lab.frames import groups, select, values
from experiments.lab.statistics import SHARE, Statistic
from experiments.lab.system import Claim, ShownByRecords, ShownByTest, Verdict
from experiments.moe_trajectories.published import LOG_L, ONE_CLASS, OPENMX, TWO_CLASSES

ENOUGH = 50
"""Replications below which no share or bias is judged."""


STATISTICS = tuple(Statistic("share", metric) for metric in ("accuracy", "entropy", "starts that agree"))


def open_unless(inside: bool, outside: Sized) -> bool | None:
    """Met where all lies inside as measured, missed where something is outside beyond doubt, open between the two."""
    return False if len(outside) else True if inside else None


def judge_maximum(frame: pd.DataFrame) -> Verdict:
    """Item 3: log L of the full mixture, and how many starts reach it."""
    at = {"dataset": "example", "method": "full MoE"}
    best, share = (values(frame, metric=m, **at) for m in ("log L", "starts that agree"))
    if not len(best) or not len(share):
        return Verdict(None)
    met = abs(best[0] - LOG_L) < 1e-3 and share[0] >= 5 / 6
    return Verdict(bool(met), f"log L {best[0]:.4f}, reached by {share[0]:.0%} of the starts")


def judge_published_table(frame: pd.DataFrame) -> Verdict:
    """Item 3: estimates within 0.2 %, model standard errors within 1 %, sandwich ones within 2 % or their rounding."""
    rows = select(frame, dataset="example", method="full MoE")
    furthest = dict.fromkeys(("estimate", "SE", "sandwich SE"), 0.0)
    for (k, term), published in OPENMX.items():
        for metric, value in zip(furthest, published, strict=True):
            found = values(rows, metric=metric, parameter=term, **{"class": k})
            if not len(found):
                return Verdict(None)
            rounding = {"estimate": 5e-5, "SE": 5e-5, "sandwich SE": 5e-4}[metric]
            off = max(0.0, abs(found[0] - value) - rounding) / abs(value)
            furthest[metric] = max(furthest[metric], off)
    met = furthest["estimate"] < 2e-3 and furthest["SE"] < 1e-2 and furthest["sandwich SE"] < 2e-2
    return Verdict(bool(met), "furthest off: " + ", ".join(f"{m} {v:.2%}" for m, v in furthest.items()))


def judge_one_class(frame: pd.DataFrame) -> Verdict:
    """Item 4: -2 log L of one class on the mathematics data."""
    found = values(frame, dataset="mathematics", method="1 classes", metric="-2 log L")
    if not len(found):
        return Verdict(None)
    return Verdict(bool(abs(found[0] - ONE_CLASS) < 1e-4), f"-2 log L {found[0]:.5f} against {ONE_CLASS:.5f}")


def judge_two_classes(frame: pd.DataFrame) -> Verdict:
    """Item 13: a start that ends below the published two-class fit."""
    found = values(frame, dataset="mathematics", method="2 classes", metric="reached")
    if not len(found):
        return Verdict(None)
    below = int((found < TWO_CLASSES - 0.01).sum())
    text = f"best -2 log L {found.min():.3f} against {TWO_CLASSES:.3f}; {below} of {len(found)} starts end below"
    return Verdict(below > 0, text)


def _bound(term: str) -> float | None:
    """The largest relative bias that item 8 allows."""
    if term in ("intercept", "slope 1", "slope 2", "knot"):
        return 0.01
    if " on " in term:
        return 0.05
    return 0.03 if term == "residual variance" or (term.startswith("variance of ") and "ex" not in term) else None


class Simulated(NamedTuple):
    """What the replications say of one parameter."""

    term: str
    name: str
    """The term with its class."""
    relative_bias: float
    relative_bias_se: float
    coverage: float
    ratio: float
    """Empirical over mean standard error."""
    replications: int


def _simulated(frame: pd.DataFrame) -> list[Simulated]:
    """Every parameter of the simulation; none where there are too few replications."""
    rows = select(frame, dataset="simulation", method="full MoE")
    if "parameter" not in rows:
        return []
    found = []
    for (k, term), part in groups(rows, "class", "parameter"):
        m = dict(zip(part["metric"], part["value"].to_numpy(float), strict=True))
        ratio, n = m["empirical SE"] / m["mean SE"], round(m["replications"])
        name = f"{term}, class {k:g}"
        found.append(Simulated(term, name, m["relative bias"], m["relative bias SE"], m["coverage"], ratio, n))
    return found if found and min(s.replications for s in found) >= ENOUGH else []


def judge_bias(frame: pd.DataFrame) -> Verdict:
    """Item 8: every relative bias within its bound as measured; missed where an interval for all at once says so."""
    bounded = [(s, bound) for s in _simulated(frame) if (bound := _bound(s.term)) is not None]
    if not bounded:
        return Verdict(None)
    z = critical_value(comparisons=len(bounded))
    beyond = [s.name for s, bound in bounded if abs(s.relative_bias) - z * s.relative_bias_se > bound]
    inside = sum(abs(s.relative_bias) < bound for s, bound in bounded)
    worst, bound = max(bounded, key=lambda pair: abs(pair[0].relative_bias) / pair[1])
    text = f"{inside} of {len(bounded)} within their bounds as measured; "
    text += f"furthest: {worst.name}, {worst.relative_bias:.1%} where {bound:.0%} are allowed"
    return Verdict(
        open_unless(inside == len(bounded), beyond), text + (f"; beyond: {', '.join(beyond)}" if beyond else "")
    )


def judge_coverage(frame: pd.DataFrame) -> Verdict:
    """Item 8: coverage 0.90 to 0.97 for every parameter as measured, and about 0.935 on average.

    Missed where an interval that holds for all parameters at once lies outside.
    """
    simulated = _simulated(frame)
    if not simulated:
        return Verdict(None)
    level = 1 - 0.05 / len(simulated)
    outside = []
    for s in simulated:
        covered = share(round(s.coverage * s.replications), s.replications, level)
        if covered.low > 0.97 or covered.high < 0.90:
            outside.append(s.name)
    found = np.array([s.coverage for s in simulated])
    text = f"mean {found.mean():.3f}, from {found.min():.3f} to {found.max():.3f} over {len(found)} parameters"
    inside = bool((found >= 0.90).all() and (found <= 0.97).all() and 0.92 < found.mean() < 0.95)
    return Verdict(open_unless(inside, outside), text + (f"; outside: {', '.join(outside)}" if outside else ""))


def judge_standard_errors(frame: pd.DataFrame) -> Verdict:
    """Item 8: empirical over mean standard error within 0.9 to 1.2 as measured; missed as the coverage is."""
    simulated = _simulated(frame)
    if not simulated:
        return Verdict(None)
    ratio, n = (np.array(x) for x in zip(*((s.ratio, s.replications) for s in simulated), strict=True))
    low, high = from_error(ratio, ratio / np.sqrt(2 * (n - 1)), comparisons=len(ratio))
    outside = (low > 1.2) | (high < 0.9)
    inside = bool(((ratio >= 0.9) & (ratio <= 1.2)).all())
    return Verdict(
        open_unless(inside, outside.nonzero()[0]), f"empirical over mean SE from {ratio.min():.2f} to {ratio.max():.2f}"
    )


def judge_classification(frame: pd.DataFrame) -> Verdict:
    """Item 8: accuracy 0.890 and entropy 0.692 to two digits."""
    at = {"dataset": "simulation", "method": "full MoE"}
    accuracy, entropy = (values(frame, metric=m, **at) for m in ("accuracy", "entropy"))
    if min(len(accuracy), len(entropy)) < ENOUGH:
        return Verdict(None)
    a, e = SHARE.of(accuracy), SHARE.of(entropy)
    met = all_of(within(mean.interval, true - 0.005, true + 0.005) for mean, true in ((a, 0.890), (e, 0.692)))
    return Verdict(met, f"accuracy {a.value:.3f}, entropy {e.value:.3f} over {a.n} data sets", a.interval)


def judge_example_accuracy(frame: pd.DataFrame) -> Verdict:
    """Item 9: accuracy on the example, full mixture above the three reduced ones."""
    expected = {"full MoE": 0.898, "gating network": 0.892, "expert network": 0.890, "finite mixture": 0.892}
    found = {m: values(frame, dataset="example", method=m, metric="accuracy") for m in expected}
    if not all(len(v) for v in found.values()):
        return Verdict(None)
    full = found["full MoE"][0]
    met = all(full >= v[0] for v in found.values()) and all(abs(found[m][0] - v) < 0.0025 for m, v in expected.items())
    return Verdict(bool(met), ", ".join(f"{m} {v[0]:.3f}" for m, v in found.items()))


def judge_accuracy(frame: pd.DataFrame) -> Verdict:
    """Item 9: the full mixture classifies better than the finite one on the same data sets."""
    full, finite = (
        values(frame, dataset="comparison", method=m, metric="accuracy") for m in ("full MoE", "finite mixture")
    )
    if len(full) < ENOUGH or len(full) != len(finite):
        return Verdict(None)
    gain = paired(full, finite)
    text = f"accuracy {full.mean():.3f} against {finite.mean():.3f} over {len(full)} data sets"
    return Verdict(within(gain.interval, 0), text, gain.interval)


def judge_knots(frame: pd.DataFrame) -> Verdict:
    """Item 10: the finite mixture's knots are unbiased: the interval of their mean lies within 0.02 of the truth."""
    found = [
        values(frame, dataset="comparison", method="finite mixture", metric="knot", **{"class": k}) for k in (1, 2)
    ]
    if min(map(len, found)) < ENOUGH:
        return Verdict(None)
    means = [summary(v) for v in found]
    met = all_of(within(m.interval, true - 0.02, true + 0.02) for m, true in zip(means, (3.5, 5.5), strict=True))
    return Verdict(met, f"means {means[0].value:.3f} and {means[1].value:.3f} for 3.5 and 5.5", means[0].interval)


def judge_two_steps(frame: pd.DataFrame) -> Verdict:
    """Item 10: two-step gating coefficients lie below the truth and below those of one step, on the same data sets."""
    words, answers, bounds = [], [], None
    for name, true in (("gx1", np.log(1.5)), ("gx2", np.log(1.7))):
        two, one = (
            values(frame, dataset="comparison", method=m, metric="gating", covariate=name)
            for m in ("two steps", "full MoE")
        )
        if len(two) < ENOUGH or len(two) != len(one):
            return Verdict(None)
        gap, mean, single = paired(two, one), summary(two), summary(one)
        bounds = bounds or mean.interval
        answers += [gap.high < 0, mean.high < true, within(single.interval, true - 0.05, true + 0.05)]
        words.append(f"{name}: two steps {mean.value:.3f}, one step {single.value:.3f}, truth {true:.3f}")
    return Verdict(all_of(answers), "; ".join(words), bounds)


def judge_forest(frame: pd.DataFrame) -> Verdict:
    """Item 11: the four active covariates are the four of largest importance in at least 4 of 5 seeds."""
    rows = select(frame, dataset="forest", metric="importance")
    seeds = sorted(rows["seed"].unique()) if len(rows) else []
    if len(seeds) < 3:
        return Verdict(None)
    hits = []
    for seed in seeds:
        ranked = select(rows, seed=seed).sort_values("value", ascending=False)["covariate"].tolist()
        hits.append(set(ranked[:4]) == {"ex1", "ex2", "gx1", "gx2"})
    text = f"the four active covariates rank first in {sum(hits)} of {len(hits)} seeds"
    if len(seeds) < 5 and sum(hits) == len(hits):
        return Verdict(None, text + "; five seeds are needed")
    return Verdict(sum(hits) >= 0.8 * len(hits), text, share(sum(hits), len(hits)).interval)


def judge_batches(frame: pd.DataFrame) -> Verdict:
    """Item 12: seconds per replication fall from the smallest to the largest batch."""
    rows = select(frame, dataset="batches", metric="seconds per replication")
    if len(rows) < 3:
        return Verdict(None)
    rows = rows.sort_values("batch")
    times = rows["value"].to_numpy()
    text = ", ".join(f"{v:.3g} s at {b:g}" for b, v in zip(rows["batch"], times, strict=True))
    return Verdict(bool(times[-1] < times[0]), text)


TESTS = "tests/latent/test_moe_trajectories.py::"
FITS = "tests/latent/test_moe_trajectories_fits.py::"
CLAIMS = (
    Claim("1", "The density equals that of the explicit normal distribution to 1e-9, with occasions missing",
          ShownByTest(TESTS + "test_the_density_is_that_of_the_explicit_normal_distribution")),
    Claim("2", "F G = I, and both parameterisations give one trajectory to 1e-12 on either side of the knot",
          ShownByTest(TESTS + "test_both_parameterisations_give_one_trajectory")),
    Claim("3a", "Full mixture on the authors' example: log L = -11458.347 within 1e-3, from at least 5 of 6 starts",
          ShownByRecords("log L and share of agreeing starts, dataset example", judge_maximum)),
    Claim("3b", "Its estimates agree with the published table within 0.2 %, model SE within 1 %, sandwich within 2 %",
          ShownByRecords("estimates and standard errors, dataset example", judge_published_table)),
    Claim("4", "One class on the mathematics data: -2 log L within 1e-4 of 31347.3926",
          ShownByRecords("-2 log L, dataset mathematics, 1 class", judge_one_class)),
    Claim("5a", "One class without covariates is the one-class model; with gates at 0 the mixture has equal shares",
          ShownByTest(TESTS + "test_limits_are_the_one_class_model_and_equal_shares")),
    Claim("5b", "Permuted classes leave L, shifted times shift the knot, scaled outcomes change L by -n J log s",
          ShownByTest(TESTS + "test_likelihood_under_permuted_classes_shifted_times_and_scaled_outcomes")),
    Claim("6", "Standard errors from the exact Hessian equal those of finite differences to 1e-3; scores sum to 0",
          ShownByTest(FITS + "test_standard_errors_equal_those_of_finite_differences")),
    Claim("7", "Joint less conditional likelihood at one class is the normal likelihood of the covariates",
          ShownByTest(TESTS + "test_joint_less_conditional_likelihood_is_that_of_the_covariates")),
    Claim("8a", "200 simulated data sets: relative bias below 1 % (means, knots), 5 % (effects, gates), 3 % (others)",
          ShownByRecords("relative bias with its Monte Carlo error, dataset simulation", judge_bias)),
    Claim("8b", "Coverage of 95 % Wald intervals from 0.90 to 0.97 for every parameter, about 0.935 on average",
          ShownByRecords("coverage per parameter, dataset simulation", judge_coverage)),
    Claim("8c", "Empirical over mean standard error from 0.9 to 1.2",
          ShownByRecords("ratio per parameter, dataset simulation", judge_standard_errors)),
    Claim("8d", "Accuracy 0.890 and entropy 0.692",
          ShownByRecords("means over simulated data sets", judge_classification)),
    Claim("9a", "On the example the full mixture classifies best: 0.898 against 0.892, 0.890, 0.892",
          ShownByRecords("accuracy of four mixtures, dataset example", judge_example_accuracy)),
    Claim("9b", "Over 60 simulated data sets it classifies better than the finite mixture",
          ShownByRecords("paired difference of accuracy, dataset comparison", judge_accuracy)),
    Claim("10a", "The finite mixture keeps the knots unbiased",
          ShownByRecords("mean knots of the finite mixture, dataset comparison", judge_knots)),
    Claim("10b", "Two-step gating coefficients are attenuated, one-step ones are not",
          ShownByRecords("paired gating coefficients, dataset comparison", judge_two_steps)),
    Claim("11", "A SEM forest ranks the four active of ten covariates first in at least 4 of 5 seeds",
          ShownByRecords("importance by covariate and seed, dataset forest", judge_forest)),
    Claim("12a", "Time per replication falls as more are fitted in one call",
          ShownByRecords("seconds per replication by batch", judge_batches)),
    Claim("12b", "The cost of the likelihood is linear in persons, occasions and classes",
          ShownByTest(TESTS + "test_cost_is_linear_in_persons_occasions_and_classes")),
    Claim("13", "On the mathematics data with two classes a start ends below the published -2 log L of 31171.41",
          ShownByRecords("-2 log L reached by every start, dataset mathematics", judge_two_classes)),
)  # fmt: skip
