"""What must be shown of ``moe_trajectories``."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from core.stats import all_of, critical_value, from_error, share, within
from experiments.lab import (
    Claim,
    Every,
    Numbers,
    Verdict,
    count,
    every,
    every_seed,
    geometric,
    groups,
    larger,
    mean,
    numbers,
    select,
    tested,
)  # fmt: skip
from experiments.lab.judges import AnyJudge
from experiments.moe_trajectories.config import Config
from experiments.moe_trajectories.published import LOG_L, ONE_CLASS, OPENMX, TWO_CLASSES
from experiments.moe_trajectories.study import FINITE, FULL

TESTS = "tests/latent/test_moe_trajectories.py::"
FITS = "tests/latent/test_moe_trajectories_fits.py::"
ENOUGH = 50
"""Replications below which nothing is judged."""
example = functools.partial(numbers, dataset="example", method=FULL)
simulated = functools.partial(numbers, dataset="simulation", method=FULL)
compared = functools.partial(numbers, dataset="comparison")
once = functools.partial(every_seed, seeds=1)
"""Of what has no randomness."""
ACCURACY = {FULL: 0.898, "gating network": 0.892, "expert network": 0.890, FINITE: 0.892}
REDUCED = [method for method in ACCURACY if method != FULL]
TRUE = {"gx1": math.log(1.5), "gx2": math.log(1.7)}
PLANTED = {"ex1", "ex2", "gx1", "gx2"}
LOST = 0.27
"""Of a gating coefficient, by two steps."""


def entries(metric: str, rounding: float) -> Numbers:
    """How far the published table is off beyond its rounding, as shares of its entries; NaN for a missing one."""
    place = {"estimate": 0, "SE": 1, "sandwich SE": 2}[metric]
    found = example(metric, per=("class", "parameter"))

    def of(frame: pd.DataFrame) -> pd.Series:
        ours = found.of(frame)
        theirs = pd.Series({key: row[place] for key, row in OPENMX.items()})
        off = (ours.reindex(theirs.index) - theirs).abs() - rounding
        return off.clip(lower=0) / theirs.abs() if len(ours) else ours

    return Numbers(f"{metric} off by", of)


def limit_of_bias(term: str) -> float:
    """The largest relative bias that is allowed; infinite where the list states none."""
    if term in ("intercept", "slope 1", "slope 2", "knot"):
        return 0.01
    if " on " in term:
        return 0.05
    variance = term == "residual variance" or (term.startswith("variance of ") and "ex" not in term)
    return 0.03 if variance else math.inf


Metrics = dict[str, float]


@dataclasses.dataclass(frozen=True)
class AllParameters:
    """Whether intervals that hold for all parameters at once lie within limits; not met where one is outside."""

    what: str
    interval: Callable[[Metrics, int], tuple[float, float, float]]
    """Of one parameter's metrics, for as many comparisons: the number and its limits."""
    limits: Callable[[str], tuple[float, float]]
    """By the parameter's name."""

    @property
    def words(self) -> str:
        """How the claim is judged, in words."""
        return f"{self.what} of every parameter, with intervals that hold for all at once"

    def __call__(self, frame: pd.DataFrame) -> Verdict:
        """The verdict from the simulation's records."""
        rows = select(frame, dataset="simulation", method=FULL)
        found = list(groups(rows, "class", "parameter")) if "parameter" in rows else []
        each = {place: dict(zip(part["metric"], part["value"], strict=True)) for place, part in found}
        each = {place: metrics for place, metrics in each.items() if np.isfinite(self.limits(place[1])).all()}
        if not each or min(metrics["replications"] for metrics in each.values()) < ENOUGH:
            return Verdict(None)
        judged = {place: (self.interval(m, len(each)), self.limits(place[1])) for place, m in each.items()}
        met = all_of([within((low, high), *limits) for (_, low, high), limits in judged.values()])
        beyond = [f"{term}, class {k:g}" for (k, term), ((x, *_), (a, b)) in judged.items() if not a <= x <= b]
        values = [x for (x, *_), _ in judged.values()]
        text = f"{self.what} from {min(values):.3f} to {max(values):.3f} over {len(values)} parameters"
        text += f"; as measured beyond: {', '.join(beyond)}" if beyond else ""
        return Verdict(met, text, None, met is None and bool(beyond))


def bias(m: Metrics, comparisons: int) -> tuple[float, float, float]:
    """Relative bias, with its Monte Carlo error."""
    half = critical_value(comparisons=comparisons) * m["relative bias SE"]
    return m["relative bias"], m["relative bias"] - half, m["relative bias"] + half


def coverage(m: Metrics, comparisons: int) -> tuple[float, float, float]:
    """Of 95 % intervals."""
    found = share(round(m["coverage"] * m["replications"]), round(m["replications"]), 1 - 0.05 / comparisons)
    return found.value, found.low, found.high


def ratio(m: Metrics, comparisons: int) -> tuple[float, float, float]:
    """Empirical over mean standard error."""
    value = m["empirical SE"] / m["mean SE"]
    low, high = from_error(value, value / math.sqrt(2 * (m["replications"] - 1)), comparisons=comparisons)
    return value, float(low), float(high)


def attenuation() -> Every:
    """Two steps lose about 27 % of the coefficients, and lie below one step's; one step's are near the truth."""
    found: list[AnyJudge] = []
    for covariate, true in TRUE.items():
        at = functools.partial(compared, "gating", covariate=covariate)
        two, one = at(method="two steps"), at(method=FULL)
        lost = two.map(lambda b, true=true: 1 - b / true, f"lost of {covariate} in two steps")
        found += [
            mean(lost, LOST - 0.05, LOST + 0.05, seeds=ENOUGH),
            mean(two - one, most=0, seeds=ENOUGH),
            mean(one, true - 0.05, true + 0.05, seeds=ENOUGH),
        ]
    return every(*found)


def by_seed(q: Numbers, name: str, reduce: Callable[[pd.Series], Any]) -> Numbers:
    """One number per seed of several; NaN where one of them is missing."""

    def of(frame: pd.DataFrame) -> pd.Series:
        found = q.of(frame)
        parts = found.groupby(level="seed") if len(found) else ()
        return pd.Series({s: math.nan if x.isna().any() else float(reduce(x)) for s, x in parts}, dtype=float)

    return Numbers(name, of)


importance = numbers("importance", dataset="forest", per=("seed", "covariate"))
planted = by_seed(importance, "the four active covariates rank first",
                  lambda x: {*x.nlargest(4).index.get_level_values("covariate")} == PLANTED)  # fmt: skip
reached = numbers("reached", per=("seed", "start"), dataset="mathematics", method="2 classes")


def knot(k: int) -> Numbers:
    """Of a class, by the finite mixture."""
    place: dict[str, Any] = {"class": k}
    return compared("knot", method=FINITE, **place)


def faster() -> Every:
    """Seconds per replication at each batch over those at the one before, by call."""
    at = functools.partial(numbers, "seconds per replication", dataset="batches")
    first, *rest = Config().batches
    steps = zip((first, *rest), rest, strict=False)
    return every(*(geometric(at(batch=large) / at(batch=small), most=1) for small, large in steps))


MORE = "as many data sets as its intervals need, where the list has 200 (8) and 60 (9, 10)"


CLAIMS = (
    Claim("1", "The density equals that of the explicit normal distribution to 1e-9, with occasions missing",
          tested(TESTS + "test_the_density_is_that_of_the_explicit_normal_distribution")),
    Claim("2", "F G = I, and both parameterisations give one trajectory to 1e-12 on either side of the knot",
          tested(TESTS + "test_both_parameterisations_give_one_trajectory")),
    Claim("3a", "Full mixture on the authors' example: log L = -11458.347 within 1e-3, from at least 5 of 6 starts",
          every(once(example("log L"), LOG_L - 1e-3, LOG_L + 1e-3),
                once(example("starts that agree"), least=5 / 6 - 1e-9))),
    Claim("3b", "Its estimates agree with the published table within 0.2 %, model SE within 1 %, sandwich within 2 %",
          every(once(entries("estimate", 5e-5), most=2e-3), once(entries("SE", 5e-5), most=1e-2),
                once(entries("sandwich SE", 5e-4), most=2e-2)),
          note="beyond the rounding of the published digits"),
    Claim("4", "One class on the mathematics data: -2 log L within 1e-4 of 31347.3926",
          once(numbers("-2 log L", dataset="mathematics", method="1 classes"), ONE_CLASS - 1e-4, ONE_CLASS + 1e-4)),
    Claim("5a", "One class without covariates is the one-class model; with gates at 0 the mixture has equal shares",
          tested(TESTS + "test_limits_are_the_one_class_model_and_equal_shares")),
    Claim("5b", "Permuted classes leave L, shifted times shift the knot, scaled outcomes change L by -n J log s",
          tested(TESTS + "test_likelihood_under_permuted_classes_shifted_times_and_scaled_outcomes")),
    Claim("6", "Standard errors from the exact Hessian equal those of finite differences to 1e-3; scores sum to 0",
          tested(FITS + "test_standard_errors_equal_those_of_finite_differences"),
          note="steps of 1e-4 as listed, of 1e-7 in knots, for curvature jumps where a knot meets a time"),
    Claim("7", "Joint less conditional likelihood at one class is the normal likelihood of the covariates",
          tested(TESTS + "test_joint_less_conditional_likelihood_is_that_of_the_covariates")),
    Claim("8a", "2,000 simulated data sets: relative bias below 1 % (means, knots), 5 % (effects, gates), 3 % (others)",
          AllParameters("relative bias", bias, lambda term: (-limit_of_bias(term), limit_of_bias(term))), note=MORE),
    Claim("8b", "Coverage of 95 % Wald intervals from 0.90 to 0.97 for every parameter, about 0.935 on average",
          every(AllParameters("coverage", coverage, lambda term: (0.90, 0.97)),  # pyright: ignore[reportArgumentType]
                mean(simulated("share of parameters covered"), 0.92, 0.95, seeds=ENOUGH)), note=MORE),
    Claim("8c", "Empirical over mean standard error from 0.9 to 1.2",
          AllParameters("empirical over mean SE", ratio, lambda term: (0.9, 1.2)), note=MORE),
    Claim("8d", "Accuracy 0.890 and entropy 0.692",
          every(mean(simulated("accuracy"), 0.885, 0.895, seeds=ENOUGH),
                mean(simulated("entropy"), 0.687, 0.697, seeds=ENOUGH)),
          note="to two digits; shares of persons, with the intervals of means over data sets"),
    Claim("9a", "On the example the full mixture classifies best: 0.898 against 0.892, 0.890, 0.892",
          every(once(example("accuracy") - larger(*(example("accuracy", method=m) for m in REDUCED)), least=0),
                *(once(example("accuracy", method=m), x - 0.0025, x + 0.0025) for m, x in ACCURACY.items()))),
    Claim("9b", "Over 600 simulated data sets it classifies better than the finite mixture",
          mean(compared("accuracy", method=FULL) - compared("accuracy", method=FINITE), least=0, seeds=ENOUGH),
          note=MORE),
    Claim("10a", "The finite mixture keeps the knots unbiased",
          every(*(mean(knot(k), true - 0.02, true + 0.02, seeds=ENOUGH) for k, true in ((1, 3.5), (2, 5.5)))),
          note=MORE),
    Claim("10b", "Two-step gating coefficients are attenuated by about 27 %, one-step ones are not",
          attenuation(), note=MORE + "; about 27 % is read as 22 to 32, not attenuated as within 0.05 of the truth"),
    Claim("11", "A SEM forest ranks the four active of ten covariates first in at least 4 of 5 seeds",
          count(planted, lambda x: x > 0.5, least=4 / 5), note="32 trees at the small preset, where the list has 64"),
    Claim("12a", "Time per replication falls as more are fitted in one call",
          faster(), note="every batch beside the one before, five calls each"),
    Claim("12b", "The cost of the likelihood is linear in persons, occasions and classes",
          tested(TESTS + "test_cost_is_linear_in_persons_occasions_and_classes")),
    Claim("13", "On the mathematics data with two classes a start ends below the published -2 log L of 31171.41",
          once(by_seed(reached, "least -2 log L", min), most=TWO_CLASSES - 0.01)),
)  # fmt: skip
