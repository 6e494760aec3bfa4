import numpy as np
import pandas as pd
import pytest

from experiments.ekfac_influence import SYSTEM, claims
from experiments.ekfac_influence.figures import COST, DECODERS
from experiments.lab import registry, runs
from experiments.lab.runner import execute
from tests.experiments.noise import noise as little

TINY = ("queries=3", "moved=2", "regression_steps=40", "response_steps=40", "lissa_iterations=20", "subsets=6",
        "corpus_steps=40", "width=4")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs")
    folder = execute(registry.load("ekfac_influence"), preset="smoke", seeds=(0,), assignments=TINY, workdir=workdir)
    return runs.read(folder)


@pytest.mark.slow
def test_every_part_is_recorded_and_drawn(run):
    frame = run.frame
    assert set(frame["dataset"]) == {"regression", DECODERS}
    assert {"exact", "block-exact", "EK-FAC", "K-FAC", "LiSSA", "TRAK", "TracIn", "cosine"} <= set(frame["method"])
    assert bool(np.isfinite(frame["value"]).all())
    assert set(SYSTEM.figures(frame)) >= {"correlation_with_response", "cost_and_agreement", "word_order", "layers"}
    assert len(SYSTEM.tables(frame)) == 2


@pytest.mark.slow
def test_the_page_shows_the_query_and_its_top_sequences(run):
    (page,) = run.folder.glob("work/*/pages/*.html")
    text = page.read_text()
    assert "What taught the decoder fact" in text
    assert "http" not in text.replace("http://www.w3.org", "")  # self-contained


@pytest.mark.slow
def test_exact_influence_agrees_with_itself(run):
    rows = run.frame[(run.frame["method"] == "exact") & (run.frame["metric"] == "correlation with exact")]
    np.testing.assert_allclose(rows["value"], 1.0, atol=1e-5)


@pytest.mark.slow
def test_a_second_run_has_nothing_to_do(run):
    before = (run.folder / runs.RECORDS).stat().st_size
    execute(registry.load("ekfac_influence"), preset="smoke", seeds=(0,), assignments=TINY,
            workdir=run.folder.parents[1])  # fmt: skip
    assert (run.folder / runs.RECORDS).stat().st_size == before


def frame(metric: str, dataset: str, seeds: int = 5, **methods: float) -> pd.DataFrame:
    """One row per method and seed: the value with a little of the seed in it."""
    names = {"EKFAC": "EK-FAC", "dot": "dot product", "block": "block-exact"}
    return pd.DataFrame(
        [
            {
                "dataset": dataset,
                "metric": metric,
                "method": names.get(m, m),
                "seed": s,
                "value": v + 0.001 * (s % 3) + little(m, s),
            }
            for m, v in methods.items()
            for s in range(seeds)
        ]
    )  # fmt: skip


@pytest.mark.parametrize(("dot", "met"), [(0.3, True), (0.65, False)])
def test_the_order_of_methods_needs_a_margin_over_the_dot_product(dot, met):
    assert claims.judge_order(frame("correlation with exact", "regression", block=0.9, EKFAC=0.75, dot=dot)).met is met


def test_too_few_seeds_leave_a_claim_open():
    few = frame("correlation with exact", "regression", 2, block=0.9, EKFAC=0.75, dot=0.3)
    assert claims.judge_order(few).met is None
    assert claims.judge_lissa(few).met is None
    assert claims.judge_recall(few).met is None


@pytest.mark.parametrize(("lissa", "evaluations", "met"), [(0.8, 5000, True), (0.95, 5000, False), (0.8, 500, False)])
def test_lissa_is_compared_in_agreement_and_cost(lissa, evaluations, met):
    parts = [
        made
        for task in ("regression", "image", "language")
        for made in (
            frame("correlation with PBRF", task, EKFAC=0.75, LiSSA=lissa),
            frame("gradient evaluations per query", task, EKFAC=100.0, LiSSA=evaluations),
        )
    ]
    assert claims.judge_lissa(pd.concat(parts)).met is met


@pytest.mark.parametrize(("flipped", "met"), [(0.1, True), (0.4, False)])
def test_word_order_is_judged_by_the_largest_decoder(flipped, met):
    parts = [
        frame("same-order influence", DECODERS, small=0.1, large=5.0).assign(width=[16] * 5 + [64] * 5),
        frame("flipped over same", DECODERS, small=0.9, large=flipped).assign(width=[16] * 5 + [64] * 5),
    ]
    assert claims.judge_word_order(pd.concat(parts)).met is met


@pytest.mark.parametrize(("eigen", "met"), [(2.6, True), (1.5, False)])
def test_slopes_of_cost_are_judged(eigen, met):
    slopes = [
        frame(f"{stage}, s", COST, 1, **{"slope in examples": 1.0})
        for stage in ("covariances", "eigenvalue correction", "scores")
    ]
    slopes.append(frame("eigendecomposition, s", COST, 1, **{"slope in width": eigen}))
    assert claims.judge_slopes(pd.concat(slopes)).met is met
