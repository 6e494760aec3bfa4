"""What must be shown of ``jepa_linear``."""

import functools
import itertools
from typing import Any

import numpy as np
import pandas as pd

from experiments.lab import Claim, Every, Numbers, every, every_seed, median, numbers, share, smaller, tested
from latent.jepa_linear import OBJECTIVES

EXACT, THEORY = "tests/latent/test_jepa_linear.py::test_", "tests/latent/test_jepa_theory.py::test_"
RUNS = 20
mixed = functools.partial(numbers, dataset="mixed", L=3)


def first(what: str, objective: str, variant: str) -> Numbers:
    """Whether the feature with the largest of something is learned first, by start; not where none is learned."""
    at = {"method": objective, "variant": variant}
    found, idle = mixed(f"first has largest {what}", **at), mixed("nothing learned", **at)

    def of(frame: pd.DataFrame) -> pd.Series:
        is_first, learns_nothing = found.of(frame), idle.of(frame)
        starts = is_first.index.union(learns_nothing.index)
        return is_first.reindex(starts).mask(learns_nothing.reindex(starts) > 0, 0.0)

    return Numbers(f"{objective}, largest {what} first", of)


def order(variant: str) -> Every:
    """The feature of largest covariance is first for MAE and never for JEPA; what has no first feature is told."""
    by = {o: {"method": o, "variant": variant} for o in OBJECTIVES}
    return every(
        share(first("lambda", "MAE", variant), least=0.7),
        every_seed(first("lambda", "JEPA", variant), most=0.5, seeds=RUNS),
        *(share(mixed("nothing learned", name=f"{o}, nothing learned", **by[o])) for o in OBJECTIVES),
        *(every_seed(mixed("features dropped", name=f"{o}, features dropped", **by[o]), seeds=1) for o in OBJECTIVES),
    )


def ends(objective: str, *features: int) -> Numbers:
    """Whether all of some features end at their fixed points, by start."""
    place = {"method": objective, "variant": "population"}
    found = smaller(*(mixed("ends at its fixed point", feature=feature, **place) for feature in features))
    return found.named(f"{objective}, ends at {', '.join(str(feature + 1) for feature in features)}")


KINDS, DEPTHS = ("theory", "gradient descent"), (1, 2, 3, 4, 5)
PAIRS, EQUAL_NOISE = ("dynamic: (1, .9), (2.5, .5)", "dynamic: (1, .95), (2, .6)"), "static: 1, .5"
SLOW_FIRST_FROM = {
    **dict.fromkeys(itertools.product(PAIRS, ["JEPA"]), 3),
    **dict.fromkeys(itertools.product(PAIRS, ["MAE"]), 6),
    **dict.fromkeys(itertools.product([EQUAL_NOISE], OBJECTIVES), 1),
}
"""From which depth on the slow feature of a pair is learned before the fast one, and the strong before the weak."""


def pair_times(feature: str, frame: pd.DataFrame) -> pd.Series:
    """Critical times of the first or second of each pair, by data set, loss, depth and kind."""
    found = numbers("critical time of a pair", per=("dataset", "method", "L", "kind"), feature=feature).of(frame)
    expected = [(*pair, depth, kind) for pair in SLOW_FIRST_FROM for depth in DEPTHS for kind in KINDS]
    return found.reindex(pd.MultiIndex.from_tuples(expected, names=found.index.names)) if len(found) else found


def later_over_sooner(frame: pd.DataFrame) -> pd.Series:
    """The time of the feature that is to come later over that of the other; 0 where one of them has no time."""
    slow, fast = pair_times("first", frame), pair_times("second", frame)
    if not len(slow) or not len(fast):
        return pd.Series(dtype=float)
    slow_first = np.array([depth >= SLOW_FIRST_FROM[name, loss] for name, loss, depth, _ in slow.index.to_list()])
    return (fast / slow).where(slow_first, slow / fast).mask(np.isinf(slow) | np.isinf(fast), 0.0)


def disagreement(objective: str) -> Numbers:
    """How far gradient descent is from quadrature, relatively, of every feature of every pair."""

    def of(frame: pd.DataFrame) -> pd.Series:
        times: Any = pd.concat([pair_times(feature, frame) for feature in ("first", "second")])
        if not len(times):
            return times
        theory, descended = (times.xs((objective, kind), level=("method", "kind")) for kind in KINDS)
        return (descended / theory - 1).abs()

    return Numbers(f"{objective}, gradient descent off quadrature by", of)


def as_long(objective: str, feature: int) -> Every:
    """The median time to learn a feature from mini-batches over that without, from the same starts, is 0.95 to 1.05.

    A start that never learns it in either counts against both limits.
    """

    def time(variant: str, never: float) -> Numbers:
        found = mixed("time of a feature", method=objective, feature=feature, variant=variant)
        return found.map(lambda t: np.where(np.isinf(t), never, t))

    slowest, fastest = (time("mini-batches", a) / time("same starts", b) for a, b in ((1e24, 1e12), (1e12, 1e24)))
    name = f"{objective}, time with mini-batches over that without"
    return every(
        median(fastest.named(name), least=0.95, seeds=RUNS), median(slowest.named(name), most=1.05, seeds=RUNS)
    )


def same_first(what: str, objective: str):
    """Mini-batches change from few starts whether the feature with the largest of something is first."""
    change = first(what, objective, "mini-batches") - first(what, objective, "same starts")
    return share(change.named(f"{objective}, first as without mini-batches"), lambda x: x == 0, least=0.9)


CLAIMS = (
    Claim("1", "From an aligned start, gradient descent follows the exact ODE for both losses and three depths, and "
          "the difference halves with the step size",
          tested(EXACT + "gradient_descent_follows_the_ode_with_an_error_of_first_order")),
    Claim("2", "Features end at rho^L (JEPA) and rho^(L/(L+1)) (MAE), and the map on top is the L-th root of the "
          "encoder to 1e-12 all the way there", tested(EXACT + "fixed_points_and_the_map_on_top")),
    Claim("3", "Differences of Gram matrices of neighbouring layers are conserved, so that balanced starts stay "
          "balanced", tested(EXACT + "differences_of_gram_matrices_are_conserved")),
    Claim("4", "MAE learns the feature of larger covariance first at every depth; JEPA turns to the one of larger "
          "regression coefficient between depth 3 and 4",
          tested(THEORY + "critical_times_and_the_change_of_order_with_depth")),
    Claim("5", "The small-start expansion of JEPA's critical time agrees with quadrature",
          tested(THEORY + "the_expansion_approaches_the_quadrature")),
    Claim("6", "At equal covariance the delay of a noisy feature grows with depth for JEPA and vanishes for MAE",
          tested(THEORY + "jepa_delays_noisy_features_more_the_deeper_it_is")),
    Claim("7", "Rotated data give the rotated solution, scaled data the same one in another time",
          tested(EXACT + "rotated_and_scaled_data_give_the_rotated_and_retimed_solution")),
    Claim("8a", "From balanced random orthogonal starts at depth 3, MAE learns the feature of largest covariance first "
          "in at least 70 % of runs and JEPA in none", order("population"),
          note="the list's 14 of 20 as a share; JEPA's half cannot fail, as half of that feature's fixed point lies "
          "below its start: it is dropped, and what JEPA learns instead is 8b"),
    Claim("8b", "There JEPA ends within 5 % of the fixed points of both features of high regression coefficient in at "
          "least 80 % of runs and of the noisiest one in at most 20 %, MAE of the three strongest in at least 80 %",
          every(share(ends("JEPA", 0, 2), least=0.8), share(ends("JEPA", 3), most=0.2),
                share(ends("MAE", 0, 1, 2), least=0.8)),
          note="the list's 16 and 4 of 20 as shares"),
    Claim("9a", "Critical times of slow weak and fast strong features equal the derived table; MAE learns the fast one "
          "first at every depth, JEPA the slow one from depth 3 on, in two pairs and not in a third",
          tested(THEORY + "slow_features_overtake_fast_ones_with_depth_in_jepa_only")),
    Claim("9b", "From aligned starts gradient descent has the order of 9a in its two pairs; with equal noise both "
          "losses learn the stronger feature first",
          every_seed(Numbers("time of the later over that of the sooner feature", later_over_sooner), least=1,
                     seeds=len(SLOW_FIRST_FROM) * len(DEPTHS) * len(KINDS))),
    Claim("9c", "There gradient descent is within 0.2 % (JEPA) and 2 % (MAE) of the critical times by quadrature",
          every(every_seed(disagreement("JEPA"), most=0.002, seeds=30),
                every_seed(disagreement("MAE"), most=0.02, seeds=30)),
          note="added by us after a look: the list has these limits for the pairs that it was checked on"),
    Claim("10a", "An averaged target without memory is the stop-gradient, bit for bit",
          tested(EXACT + "an_averaged_target_without_memory_is_the_stop_gradient_bit_for_bit")),
    Claim("10b", "Memory of the target slows growth and leaves the fixed points; the order stays up to decay 0.999 and "
          "turns from 0.9995 on", tested(EXACT + "memory_of_the_target_slows_growth_and_in_the_end_turns_the_order")),
    Claim("11", "Mini-batches of 256 keep 8a, from 90 % of the starts the same feature is first, and the first "
          "takes as long as with the population, within 5 %",
          every(order("mini-batches"), same_first("rho", "JEPA"), same_first("lambda", "MAE"), as_long("JEPA", 0),
                as_long("MAE", 1)),
          note="90 % and 5 % are ours, set after a look: the list measured equal counts of 20 and times 0.1 and 1.7 % "
          "apart"),
    Claim("12a", "A thousand configurations of width 8 and depth 3 are one compiled program per depth, with memory "
          "independent of the number of steps",
          tested(EXACT + "many_configurations_are_one_compilation_per_depth_with_memory_independent_of_steps")),
    Claim("12b", "Ten thousand steps of that program take less than 60 s on two cores",
          every_seed(numbers("seconds", part="cost", steps=10_000, configurations=1_000), most=60, seeds=1)),
)  # fmt: skip
