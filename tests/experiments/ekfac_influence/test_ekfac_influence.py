import numpy as np
import pandas as pd
import pytest

from experiments.ekfac_influence import SYSTEM, comparisons
from experiments.ekfac_influence.claims import CLAIMS
from experiments.ekfac_influence.config import EARLY
from experiments.ekfac_influence.figures import COST, DECODERS
from experiments.ekfac_influence.study.comparisons import MISLABELLED
from experiments.ekfac_influence.study.cost import PEER
from experiments.lab import registry, runs
from experiments.lab.bindings import fault
from experiments.lab.ledger import ROOT
from experiments.lab.runner import execute
from experiments.lab.system import ShownByTest
from tests.experiments.ekfac_influence import TINY

JUDGE = {claim.number: claim.evidence for claim in CLAIMS}
SPREAD = 0.004 * np.linspace(-1, 1, 5)


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
    assert {name for name, draw in SYSTEM.figures.items() if draw(frame) is not None} == {*SYSTEM.figures}
    tables = {title: table(frame) for title, table in SYSTEM.tables.items()}
    assert [len(table) > 0 for table in tables.values()] == [True, True, False, False]


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


@pytest.mark.slow
def test_wrong_labels_are_sought_early_and_at_the_end(tmp_path):
    tiny = (*TINY, "tasks=image", "image_train=30", "image_steps=12", "mislabelled=100", "widths=4", "depths=1",
            "lissa_batch=4")  # fmt: skip
    folder = execute(registry.load("ekfac_influence"), preset="smoke", seeds=(5,), assignments=tiny, workdir=tmp_path)
    frame = runs.read(folder).frame
    assert set(frame["dataset"]) == {MISLABELLED, EARLY}
    assert set(frame["method"]) == {comparisons.EKFAC, "gradient norm", "loss"}
    assert len(frame) == 6


def rows(metric, dataset, seeds=5, coords=None, spread=0.004, salt=1, **values):
    """A row per method and seed; the value with a little of the seed in it, which differs by method."""
    names = {"EKFAC": "EK-FAC", "dot": "dot product", "block": "block-exact", "norm": "gradient norm"}
    return [
        {"dataset": dataset, "metric": metric, "method": names.get(method, method), "seed": seed,
         "value": value + spread * np.sin(2.3 * seed * (place + salt) + place), **(coords or {}).get(method, {})}
        for place, (method, value) in enumerate(values.items()) for seed in range(seeds)
    ]  # fmt: skip


def verdict(number, *found):
    return JUDGE[number](pd.DataFrame([row for part in found for row in part]))


def test_claims_by_tests_name_tests_that_are_there():
    for claim in CLAIMS:
        if isinstance(claim.evidence, ShownByTest):
            assert fault(claim.evidence.nodeid, ROOT) is None, claim.number


@pytest.mark.parametrize("number", [number for number, judge in JUDGE.items() if not isinstance(judge, ShownByTest)])
def test_nothing_is_judged_before_it_is_measured(number):
    found = verdict(number, rows("another", "regression", method=1.0))
    assert (found.met, found.value) == (None, "")


@pytest.mark.parametrize(("r", "met"), [(0.99, True), (0.95, False), (0.98, None)])
def test_exact_influence_must_agree_with_the_response(r, met):
    assert verdict("9a", rows("correlation with PBRF", "regression", exact=r)).met is met
    assert verdict("9a", rows("correlation with PBRF", "regression", 4, exact=r)).met is None


@pytest.mark.parametrize(("block", "dot", "met"), [(0.9, 0.3, True), (0.9, 0.65, False), (0.7, 0.3, False),
                                                   (0.9, 0.552, None)])  # fmt: skip
def test_the_order_of_methods_needs_a_margin_over_the_dot_product(block, dot, met):
    assert verdict("9b", rows("correlation with exact", "regression", block=block, EKFAC=0.75, dot=dot)).met is met


@pytest.mark.parametrize(("cosine", "met"), [(0.3, True), (0.9, False), (0.75, None)])
def test_other_tasks_are_compared_with_both_rivals(cosine, met):
    places = (("PBRF", "image"), ("PBRF", "language"), ("exact", "image"))
    tasks = [rows(f"correlation with {what}", task, EKFAC=0.75, dot=0.4, cosine=cosine) for what, task in places]
    assert verdict("10a", *tasks).met is met
    assert verdict("10a", *tasks[:2]).met is None


@pytest.mark.parametrize(("lissa", "spent", "met"), [(0.8, 5000, True), (0.95, 5000, False), (0.8, 500, False)])
def test_lissa_is_compared_in_agreement_and_cost(lissa, spent, met):
    parts = [
        found
        for task in ("regression", "image", "language")
        for found in (
            rows("correlation with PBRF", task, EKFAC=0.75, LiSSA=lissa),
            rows("correlation with exact", task, EKFAC=0.75, LiSSA=lissa),
            rows("gradient evaluations per query", task, spread=0, EKFAC=100.0, LiSSA=spent),
        )
    ]
    assert verdict("10b", *parts).met is met


@pytest.mark.parametrize(("tracin", "met"), [(0.1, True), (0.5, False), (0.3, None)])
def test_retraining_is_predicted_better_than_by_both_rivals(tracin, met):
    assert verdict("11", rows("LDS", "regression", EKFAC=0.3, TracIn=tracin, dot=0.1)).met is met


@pytest.mark.parametrize(
    ("ours", "loss", "norm", "met"),
    [(0.95, 0.9, 0.96, True), (0.95, 0.99, 0.9, False), (0.95, 0.9, 0.99, False), (0.5, 0.4, 0.4, False),
     (0.95, 0.97, 0.9, None)],
)  # fmt: skip
def test_wrong_labels_are_found_as_well_as_by_the_better_rival_at_both_lengths(ours, loss, norm, met):
    early, late = (rows("AUC", data, EKFAC=ours, loss=loss, norm=norm) for data in (EARLY, MISLABELLED))
    assert verdict("12", early, late).met is met
    assert verdict("12", late).met is None


def of_sizes(metric, small, large, seeds=3, salt=1):
    width = {"small": {"width": 16}, "middle": {"width": 32}, "large": {"width": 64}}
    return rows(metric, DECODERS, seeds, width, salt=salt, small=small, middle=small, large=large)


@pytest.mark.parametrize(("recall", "dot", "met"), [(0.99, 0.1, True), (0.1, 0.01, False), (0.95, 0.5, False),
                                                    (0.701, 0.1, None)])  # fmt: skip
def test_recall_is_judged_by_the_largest_decoder_beside_the_dot_product(recall, dot, met):
    found = of_sizes("recall of same-order statements", 0.1, recall)
    beside = of_sizes("recall of same-order statements by dot product", 0.9, dot, salt=2)
    assert verdict("13a", found, beside).met is met
    assert verdict("13a", of_sizes("recall of same-order statements", 0.1, recall, 2), beside).met is None


@pytest.mark.parametrize(("flipped", "above", "met"), [(-1.0, 0.99, True), (1.0, 0.99, False), (-1.0, 0.5, False),
                                                       (0.0, 0.99, None)])  # fmt: skip
def test_word_order_is_judged_within_queries(flipped, above, met):
    parts = of_sizes("same-order influence", -1, 5.0), of_sizes("flipped influence", 9, flipped)
    assert verdict("13b", *parts, of_sizes("same order above flipped", 0.1, above)).met is met


@pytest.mark.parametrize(("number", "metric", "good", "bad"), [
    ("13d", "attribution on the object", 0.98, 0.6), ("13f", "flipped over same", 0.1, 0.4),
    ("13g", "power law over exponential", 2, -1), ("14b", "low rank's Spearman correlation", 0.9999, 0.9),
    ("14c", "filter's recall of the top 100", 0.9, 0.1),
])  # fmt: skip
def test_single_numbers_of_the_largest_decoder_are_judged_by_their_intervals(number, metric, good, bad):
    def at(value):
        found = [row | {"value": value + (row["value"] - value) / 100} for row in of_sizes(metric, bad, value)]
        return verdict(number, found)

    assert at(good).met is True
    assert at(bad).met is False


@pytest.mark.parametrize(("large", "met"), [(0.2, True), (0.5, False), (0.3, None)])
def test_overlap_takes_three_sizes(large, met):
    found = of_sizes("token overlap of the top", 0.3, large)
    assert verdict("13e", found).met is met
    assert verdict("13e", [row for row in found if row["method"] != "middle"]).met is None


@pytest.mark.parametrize(("recall", "met"), [(0.6, True), (0.05, False), (0.1, None)])
def test_the_filter_is_judged_beside_chance(recall, met):
    chance = of_sizes("filter's recall by chance", 0.1, 0.1, salt=2)
    assert verdict("14a", of_sizes("filter's recall of the top 10", 0, recall), chance).met is met


def repeats(metric, method, value, count=5):
    return [
        {"dataset": COST, "metric": metric, "method": method, "seed": 0, "repeat": i, "value": value + SPREAD[i]}
        for i in range(count)
    ]


@pytest.mark.parametrize(("eigen", "examples", "met"), [(2.6, 1.0, True), (1.5, 1.0, False), (2.6, 1.5, False),
                                                        (2.0, 1.0, None)])  # fmt: skip
def test_slopes_of_cost_are_judged_over_repeats(eigen, examples, met):
    passes = ("covariances", "eigenvalue correction", "scores")
    slopes = [repeats(f"slope of {stage}", "examples", examples) for stage in passes]
    assert verdict("15c", *slopes, repeats("slope of eigendecomposition", "width", eigen)).met is met
    assert verdict("15c", *slopes, repeats("slope of eigendecomposition", "width", eigen, 3)).met is None


@pytest.mark.parametrize(("whole", "stage", "met"), [(5.5, 2.5, True), (4.0, 2.5, False), (5.5, 1.1, False),
                                                     (5.0, 2.5, None)])  # fmt: skip
def test_speed_is_judged_at_every_stage(whole, stage, met):
    stages = ("covariances", "eigendecomposition", "eigenvalue correction", "pairwise scores", "self-influence")
    found = [repeats(f"ratio of times, {name}", PEER, stage) for name in stages]
    assert verdict("16", *found, repeats("ratio of times, end to end", PEER, whole)).met is met
    assert verdict("16", *found).met is None
