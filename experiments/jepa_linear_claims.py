"""What must be shown of ``jepa_linear``, and how its records are judged."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from core.stats import Summary, all_of, share, within
from experiments.frames import select
from experiments.system import Claim, ShownByRecords, ShownByTest, Verdict
from latent.jepa_linear import OBJECTIVES


def values(frame: pd.DataFrame, metric: str, **where: Any) -> np.ndarray:
    """Values of a metric at given columns, by seed."""
    return select(frame, metric=metric, **where).sort_values("seed")["value"].to_numpy()


RUNS = 20
"""With fewer no share is judged."""


def happened(successes: np.ndarray) -> Summary:
    """The share of runs."""
    return share(int(successes.sum()), len(successes))


def judge_shares(found: Mapping[str, np.ndarray], least: float = 0.8) -> Verdict:
    """Whether every interval lies above a limit."""
    if min(map(len, found.values())) < RUNS:
        return Verdict(None)
    shares = {name: happened(successes) for name, successes in found.items()}
    words = [f"{name}: {s.value:.0%} [{s.low:.0%}, {s.high:.0%}] of {s.n} runs" for name, s in shares.items()]
    first, *_ = shares.values()
    return Verdict(all_of(within(s.interval, least) for s in shares.values()), "; ".join(words), first.interval)


def judge_first_learned(frame: pd.DataFrame) -> Verdict:
    """Item 8: at depth 3, the share of runs whose first feature is the expected one."""
    at = {"dataset": "mixed", "L": 3, "variant": "population"}
    return judge_shares({
        "JEPA, largest rho first": values(frame, "first has largest rho", method="JEPA", **at),
        "MAE, largest lambda first": values(frame, "first has largest lambda", method="MAE", **at),
    })  # fmt: skip


def judge_slow_and_fast(frame: pd.DataFrame) -> Verdict:
    """Item 9: a slow feature first for JEPA at depth 3, a fast one for MAE; with equal noise both the same feature."""
    at = {"L": 3, "variant": "population"}
    slow = values(frame, "first is slow", dataset="dynamic", method="JEPA", **at)
    fast = 1 - values(frame, "first is slow", dataset="dynamic", method="MAE", **at)
    jepa, mae = (values(frame, "first learned", dataset="static", method=o, **at) for o in OBJECTIVES)
    if len(jepa) != len(mae):
        return Verdict(None)
    return judge_shares({"JEPA, slow first": slow, "MAE, fast first": fast, "equal noise, the same first": jepa == mae})


def judge_minibatches(frame: pd.DataFrame) -> Verdict:
    """Item 11: the same first feature with mini-batches as with the population, intervals of the two overlapping."""
    at = {"dataset": "mixed", "method": "JEPA", "L": 3}
    population, sampled = (
        values(frame, "first has largest rho", variant=variant, **at) for variant in ("population", "mini-batches")
    )
    if min(len(population), len(sampled)) < RUNS:
        return Verdict(None)
    flow, batches = happened(population), happened(sampled)
    overlap = max(flow.low, batches.low) <= min(flow.high, batches.high)
    text = f"largest rho first in {flow.value:.0%} (population) and {batches.value:.0%} (mini-batches) of runs"
    return Verdict(overlap, text, batches.interval)


def judge_cost(frame: pd.DataFrame) -> Verdict:
    """Item 12: the seconds of 10,000 steps."""
    seconds = values(frame, "seconds", part="cost", steps=10_000, configurations=1_000)
    return Verdict(bool(seconds.min() < 60), f"{seconds.min():.1f} s") if len(seconds) else Verdict(None)


TESTS = "tests/latent/test_jepa_linear.py::"
THEORY = "tests/latent/test_jepa_theory.py::"
CLAIMS = (
    Claim(
        "1",
        "From an aligned start, gradient descent follows the exact ODE for both losses and three depths, and the "
        "difference halves with the step size",
        ShownByTest(TESTS + "test_gradient_descent_follows_the_ode_with_an_error_of_first_order"),
    ),
    Claim(
        "2",
        "Features end at rho^L (JEPA) and rho^(L/(L+1)) (MAE), and the map on top stays the L-th root of the encoder",
        ShownByTest(TESTS + "test_fixed_points_and_the_map_on_top"),
    ),
    Claim(
        "3",
        "Differences of Gram matrices of neighbouring layers are conserved, so that balanced starts stay balanced",
        ShownByTest(TESTS + "test_differences_of_gram_matrices_are_conserved"),
    ),
    Claim(
        "4",
        "MAE learns the feature of larger covariance first at every depth; JEPA turns to the one of larger regression "
        "coefficient between depth 3 and 4",
        ShownByTest(THEORY + "test_critical_times_and_the_change_of_order_with_depth"),
    ),
    Claim(
        "5",
        "The small-start expansion of JEPA's critical time agrees with quadrature",
        ShownByTest(THEORY + "test_the_expansion_approaches_the_quadrature"),
    ),
    Claim(
        "6",
        "At equal covariance the delay of a noisy feature grows with depth for JEPA and vanishes for MAE",
        ShownByTest(THEORY + "test_jepa_delays_noisy_features_more_the_deeper_it_is"),
    ),
    Claim(
        "7",
        "Rotated data give the rotated solution, scaled data the same one in another time",
        ShownByTest(TESTS + "test_rotated_and_scaled_data_give_the_rotated_and_retimed_solution"),
    ),
    Claim(
        "8",
        "From random orthogonal starts at depth 3, JEPA's first feature has the largest regression coefficient and "
        "MAE's the largest covariance, in at least 80 % of runs each",
        ShownByRecords("share of runs on mixed features, population flow, L = 3", judge_first_learned),
    ),
    Claim(
        "9",
        "Of slow weak and fast strong features MAE learns a fast one first and JEPA a slow one; with equal noise both "
        "learn the same one first",
        ShownByRecords("shares of runs on dynamic and static views, L = 3", judge_slow_and_fast),
    ),
    Claim(
        "10",
        "An averaged target without memory is the stop-gradient; with memory growth is slower in the same order",
        ShownByTest(TESTS + "test_an_averaged_target_without_memory_is_the_stop_gradient_and_memory_slows_growth"),
    ),
    Claim(
        "11",
        "Mini-batches of 256 keep the order of item 8",
        ShownByRecords("share of runs with mini-batches beside the population flow, L = 3", judge_minibatches),
    ),
    Claim(
        "12a",
        "A thousand configurations of width 8 and depth 3 are one compiled program per depth, with memory independent "
        "of the number of steps",
        ShownByTest(TESTS + "test_many_configurations_are_one_compilation_per_depth_with_memory_independent_of_steps"),
    ),
    Claim(
        "12b",
        "Ten thousand steps of that program take less than 60 s on two cores",
        ShownByRecords("seconds of one call, compilation apart", judge_cost),
    ),
)
