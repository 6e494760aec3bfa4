import numpy as np
import pandas as pd
import pytest

from experiments.diffusion_transforms import SYSTEM
from experiments.diffusion_transforms.claims import CLAIMS
from experiments.diffusion_transforms.study import CALL, DISPATCH, REPEATED, SAMPLERS, STEP, W1
from experiments.lab import registry, runs
from experiments.lab.bindings import fault
from experiments.lab.ledger import ROOT
from experiments.lab.runner import execute
from experiments.lab.system import ShownByTest
from tests.experiments.diffusion_transforms import TINY

JUDGE = {claim.number: claim.evidence for claim in CLAIMS}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    found, workdir = registry.load("diffusion_transforms"), tmp_path_factory.mktemp("runs")
    return runs.read(execute(found, preset="smoke", seeds=(0,), assignments=TINY, workdir=workdir))


def test_every_sampler_is_recorded_and_drawn(run):
    assert set(SAMPLERS) <= set(run.frame["method"])
    assert SYSTEM.figures["samplers"](run.frame) is not None
    tables = [table(run.frame) for table in SYSTEM.tables.values()]
    assert [len(table) for table in tables] == [len(SAMPLERS) + 1, 4, 4]
    assert tables[0]["method"].iloc[0] == "fresh data"
    for number in ("9", "11a", "11b"):
        assert JUDGE[number](run.frame).met is None


def test_claims_by_tests_name_tests_that_are_there():
    for claim in CLAIMS:
        if isinstance(claim.evidence, ShownByTest):
            assert fault(claim.evidence.nodeid, ROOT) is None, claim.number


@pytest.mark.parametrize(("ours", "met"), [(0.02, True), (0.04, False), (0.03, None)])
def test_second_order_is_judged_by_the_interval_over_paired_seeds(ours, met):
    rows = [
        {
            "metric": W1,
            "method": method,
            "calls": calls,
            "seed": seed,
            "value": value + 0.001 * seed * (-1) ** seed * own,
        }
        for own, (method, calls, value) in enumerate((("DPM-Solver++(2M)", 20, ours), ("DDIM", 50, 0.03)))
        for seed in range(3)
    ]
    assert JUDGE["9"](pd.DataFrame(rows)).met is met
    assert JUDGE["9"](pd.DataFrame(rows[1:])).met is None


def repeats(count=8, **values):
    at = {"step": (STEP, 50), "call": (CALL, 1), "short": (DISPATCH, 10), "long": (DISPATCH, 50)}
    return pd.DataFrame(
        [
            {"metric": REPEATED, "method": at[name][0], "calls": at[name][1], "repeat": i, "seed": 0,
             "value": value * (1 + 0.01 * np.sin(2.3 * i * (place + 1)))}
            for place, (name, value) in enumerate(values.items()) for i in range(count)
        ]
    )  # fmt: skip


@pytest.mark.parametrize(("step", "call", "met"), [(2.1, 2.0, True), (2.4, 2.0, False), (2.2, 2.0, None),
                                                   (0.2, 0.5, None)])  # fmt: skip
def test_cost_is_judged_at_a_tenth_of_slow_networks(step, call, met):
    assert JUDGE["11a"](repeats(step=step, call=call)).met is met
    assert JUDGE["11a"](repeats(5, step=step, call=call)).met is None


@pytest.mark.parametrize(("long", "met"), [(0.3, True), (1.5, False), (0.1, False), (0.375, None)])
def test_python_overhead_must_not_grow_with_the_steps(long, met):
    assert JUDGE["11b"](repeats(short=0.3, long=long)).met is met
