import pandas as pd
import pytest

from experiments.diffusion_transforms import SAMPLERS, SYSTEM, judge_cost, judge_second_order
from experiments.lab import registry, runs
from experiments.lab.runner import execute

TINY = ("steps=4", "batch_size=16", "width=8", "samples=16", "projections=4", "calls=4", "cost_width=8",
        "cost_batch=4", "repeats=1")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs")
    folder = execute(
        registry.load("diffusion_transforms"), preset="smoke", seeds=(0,), assignments=TINY, workdir=workdir
    )
    return runs.read(folder)


def test_every_sampler_is_recorded_and_drawn(run):
    assert set(SAMPLERS) <= set(run.frame["method"])
    assert set(SYSTEM.figures(run.frame)) == {"samplers"}
    assert len(SYSTEM.tables(run.frame)) == 2
    assert judge_second_order(run.frame).met is None
    assert judge_cost(run.frame).met is None  # a network of microseconds says nothing


@pytest.mark.parametrize(("ours", "met"), [(0.02, True), (0.04, False)])
def test_second_order_is_judged_by_the_mean_over_seeds(ours, met):
    rows = [
        {"metric": "sliced W1", "method": method, "calls": calls, "seed": seed, "value": value + 0.001 * seed}
        for method, calls, value in (("DPM-Solver++(2M)", 20, ours), ("DDIM", 50, 0.03))
        for seed in range(3)
    ]
    assert judge_second_order(pd.DataFrame(rows)).met is met


@pytest.mark.parametrize(("step", "met"), [(2.1, True), (2.4, False)])
def test_cost_is_judged_at_a_tenth(step, met):
    times = {("sampling step", 50): step, ("network call", 1): 2.0, ("dispatch", 10): 0.1, ("dispatch", 50): 0.1}
    rows = [{"metric": "milliseconds", "method": m, "calls": c, "seed": 0, "value": v} for (m, c), v in times.items()]
    assert judge_cost(pd.DataFrame(rows)).met is met
