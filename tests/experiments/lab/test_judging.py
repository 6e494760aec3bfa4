import math

import numpy as np
import pytest

from experiments.lab.judging import Quantity, decided

ABOUT_ONE = np.array([0.9, 1.0, 1.1])


@pytest.mark.parametrize(
    ("least", "most", "met"), [(0.5, 2.0, True), (1.5, math.inf, False), (-math.inf, 0.5, False), (1.0, math.inf, None)]
)
def test_a_mean_is_judged_by_its_interval(least, most, met):
    found = decided(Quantity("x", ABOUT_ONE, least, most), seeds=3)
    assert found.met is met
    assert found.value == "x 1"
    assert found.interval == pytest.approx((0.7516, 1.2484), abs=1e-4)


def test_all_quantities_must_hold_and_one_that_fails_decides():
    good, bad, unsure = (Quantity(name, ABOUT_ONE, least) for name, least in (("a", 0.5), ("b", 1.5), ("c", 1.0)))
    assert decided(good, unsure, seeds=3).met is None
    assert decided(good, unsure, bad, seeds=3).met is False
    assert decided(good, good, seeds=3).value == "a 1 [0.752, 1.25]; a 1 [0.752, 1.25]"


def test_too_few_seeds_judge_nothing_and_logarithms_are_told_as_ratios():
    assert decided(Quantity("x", ABOUT_ONE), Quantity("y", ABOUT_ONE[:2]), seeds=3).interval is None
    ratio = decided(Quantity("ratio", np.log([2.0, 2.01, 1.99]), math.log(1.5)), seeds=3, shown=math.exp)
    assert (ratio.met, ratio.value) == (True, "ratio 2")
