import collections
import html.parser

import numpy as np
import pandas as pd
import pytest

from core.errors import ConfigError, DataError
from experiments.lab import registry, runs
from experiments.lab.plots import drawn
from experiments.lab.runner import execute
from experiments.lab.system import NotShown, ShownByBench, ShownByTest
from experiments.recsae import SYSTEM
from experiments.recsae.config import WALKS
from experiments.recsae.study.pages import Browser, History, Latent
from experiments.recsae.study.pages import html as html_of
from tests.experiments.noise import noise as little
from tests.experiments.recsae import TINY

JUDGES = {
    c.number: c.evidence for c in SYSTEM.claims if not isinstance(c.evidence, ShownByTest | ShownByBench | NotShown)
}
PARTS = {"concepts", "steering", "debiasing", "recovery"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs")
    folder = execute(registry.load("recsae"), preset="smoke", seeds=(0,), assignments=TINY, workdir=workdir)
    return runs.read(folder)


@pytest.mark.slow
def test_every_part_is_recorded_tabulated_and_drawn(run):
    frame = run.frame
    assert set(frame["part"].dropna()) == PARTS
    assert {"SASRec", "Popularity", "SASRec, k = 8 in place", "neurons", "latents, shuffled"} <= set(frame["method"])
    assert {name for name, _ in drawn(SYSTEM.figures, frame)} == {"trade_off", "dose_response", "coherence"}
    assert not any(table(frame).empty for table in SYSTEM.tables.values())


@pytest.mark.slow
def test_a_probe_that_changes_nothing_gives_the_metrics_of_the_recommender(run):
    values = run.frame[run.frame["metric"] == "ndcg@20"].set_index("method")["value"]
    assert values["SASRec, probed"] == pytest.approx(values["SASRec"], abs=1e-6)


class Page(html.parser.HTMLParser):
    """Elements that are left open, those with text, and what each article holds."""

    def __init__(self, text):
        super().__init__()
        self.open, self.articles, self.links, self.ids, self.empty = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if tag == "a" else []
        if tag == "article":
            self.articles.append(collections.Counter())
        if self.articles:
            self.articles[-1][tag] += 1
            self.articles[-1]["bar"] += tag == "rect" and float(found["height"]) > 0
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("span", "h1", "h2", "a", "b", "dt", "dd", "title") and not data.strip():
            self.empty.append(self.getpos())


@pytest.mark.slow
def test_latents_can_be_browsed(run):
    (path,) = run.folder.rglob("latents-*.html")
    text = path.read_text()
    assert "<script" not in text
    assert "http" not in text
    page = Page(text)
    assert not page.open
    assert not page.empty
    assert [f"#{name}" for name in page.ids] == page.links
    assert len(page.articles) == len(set(page.ids)) > 0
    for article in page.articles:
        assert article["h2"] == 1
        assert article["li"] > 0
        assert article["rect"] == 16
        assert article["bar"] > 0
        assert article["dt"] in (3, 5)


@pytest.mark.slow
def test_a_second_run_has_nothing_to_do(run):
    before = (run.folder / runs.RECORDS).stat().st_size
    execute(registry.load("recsae"), preset="smoke", seeds=(0,), assignments=TINY, workdir=run.folder.parents[1])
    assert (run.folder / runs.RECORDS).stat().st_size == before


@pytest.mark.slow
def test_the_number_of_latents_that_concepts_are_judged_at_cannot_be_left_out(tmp_path):
    few = ("walk_users=60", "walk_items=12", "walk_groups=3", "walk_dim=8", "walk_epochs=1", "negatives=4",
           "batch_rows=2", "methods=Popularity", "walk_ks=4")  # fmt: skip
    with pytest.raises(ConfigError, match="must have 8 among them"):
        execute(registry.load("recsae"), preset="smoke", seeds=(0,), assignments=few, workdir=tmp_path)


def latent(**changes):
    fields = {"index": 7, "concept": "brand <b>OPI</b>", "q": 1e-9, "density": 0.01, "precision": 0.9, "recall": 0.8,
              "f1": 0.85, "low": 0.7, "interpretable": True, "histogram": [3, 1, 0], "largest": 2.5, "share": 0.4,
              "change": -0.1, "sequences": [History(2.5, ["soap", "red & shiny"], True)]}  # fmt: skip
    return Latent(**{**fields, **changes})


def test_pages_escape_what_they_show_and_need_latents():
    text = html_of(Browser("Latents", "a note", [latent(), latent(share=None, change=None)]))
    assert "brand &lt;b&gt;OPI&lt;/b&gt;" in text
    assert "red &amp; shiny" in text
    assert text.count("by ablation") == 1
    assert "−10" in text
    hostile = latent(concept='"><script>alert(1)</script>', sequences=[History(1.0, ["</li><b onclick='x'>"], False)])
    page = Page(html_of(Browser("</title><script>", "<i>", [hostile])))
    assert not page.open
    assert page.articles[0]["li"] == page.articles[0]["b"] == 1
    assert "script" not in page.articles[0]
    with pytest.raises(DataError, match="no latents to show"):
        Browser("Latents", "", [])


def frame(*rows, seeds=3, spread=0.002):
    """Records: (dataset, method, metric, value, coordinates), with a little noise over seeds."""
    noise = spread * np.linspace(-1, 1, seeds)
    return pd.DataFrame([
        {"dataset": dataset, "method": method, "metric": metric, "seed": seed, **at,
         "value": value + noise[(seed + row) % seeds] + little(method, metric, seed)}
        for row, (dataset, method, metric, value, at) in enumerate(rows)
        for seed in range(seeds)
    ])  # fmt: skip


BEAUTY, CONCEPTS, STEERING = "amazon_beauty", {"part": "concepts"}, {"part": "steering", "state": None}


def verdict(number, *rows, seeds=3, spread=0.002):
    return JUDGES[number](frame(*rows, seeds=seeds, spread=spread)).met


def ndcg(**methods):
    return [(BEAUTY, name.replace("_", "-"), "ndcg@10", value, {}) for name, value in methods.items()]


@pytest.mark.parametrize(
    ("number", "better", "worse"),
    [("7a", "SASRec", "GRU4Rec"), ("7b", "SASRec", "Item_kNN"), ("7c", "GRU4Rec", "Item_kNN"),
     ("7d", "SASRec", "Popularity"), ("7e", "GRU4Rec", "Popularity")],
)  # fmt: skip
def test_orders_are_judged_by_the_interval_of_the_difference(number, better, worse):
    assert verdict(number, *ndcg(**{better: 0.05, worse: 0.01})) is True
    assert verdict(number, *ndcg(**{better: 0.01, worse: 0.05})) is False
    assert verdict(number, *ndcg(**{better: 0.03, worse: 0.03})) is None
    assert verdict(number, *ndcg(**{better: 0.05, worse: 0.01}), seeds=2) is None


def test_a_seed_that_one_method_lacks_leaves_an_order_open():
    both = frame(*ndcg(SASRec=0.05, Popularity=0.01), seeds=4)
    assert JUDGES["7d"](both).met is True
    assert JUDGES["7d"](both.iloc[:-1]).met is None


@pytest.mark.parametrize(("value", "met"), [(0.075, True), (0.05, False), (0.0899, None)])
def test_accuracy_needs_the_whole_interval_in_the_range(value, met):
    assert verdict("7f", (BEAUTY, "SASRec", "hr@10", value, {})) is met


def in_place(shares, dead=0.1):
    rows = [(BEAUTY, "SASRec, probed", metric, 0.08, {}) for metric in ("hr@10", "ndcg@10")]
    for k, share in shares.items():
        method = f"SASRec, k = {k} in place"
        rows += [(BEAUTY, method, metric, 0.08 * share, {}) for metric in ("hr@10", "ndcg@10")]
        rows.append((BEAUTY, method, "dead", dead, {}))
    return rows


@pytest.mark.parametrize(("share", "dead", "met"), [(0.97, 0.1, True), (0.94, 0.1, False), (0.97, 0.3, False),
                                                   (0.95, 0.1, None)])  # fmt: skip
def test_reconstructions_are_judged_by_what_is_kept(share, dead, met):
    assert verdict("8a", *in_place({32: share}, dead), spread=1e-5) is met


@pytest.mark.parametrize(
    ("shares", "met"), [((0.8, 0.9, 0.95, 0.98), True), ((0.3, 0.9, 0.95, 0.98), False),
                        ((0.99, 0.9, 0.95, 0.98), False), ((0.7, 0.9, 0.95, 0.98), None)],
)  # fmt: skip
def test_losses_must_grow_smoothly(shares, met):
    assert verdict("8b", *in_place(dict(zip((4, 8, 16, 32), shares, strict=True))), spread=1e-5) is met


@pytest.mark.parametrize(("value", "met"), [(0.55, True), (0.46, False), (0.48, None)])
def test_coherence_must_exceed_both_baselines_by_the_margin(value, met):
    others = [(BEAUTY, name, "coherence", 0.4, CONCEPTS) for name in ("neurons", "random directions")]
    assert verdict("9a", (BEAUTY, "latents, k = 8", "coherence", value, CONCEPTS), *others) is met
    assert verdict("9b", (BEAUTY, "latents, k = 32", "coherence", value, CONCEPTS), *others) is True


@pytest.mark.parametrize(("value", "met"), [(0.4, True), (0.1, False), (0.2, None)])
def test_interpretable_shares_are_compared_with_neurons(value, met):
    rows = [(BEAUTY, "latents, k = 8", value), (BEAUTY, "neurons", 0.2)]
    assert verdict("10a", *[(d, m, "interpretable", v, CONCEPTS) for d, m, v in rows]) is met


@pytest.mark.parametrize(("number", "dataset"), [("10b", BEAUTY), ("10c", WALKS)])
@pytest.mark.parametrize(
    ("shuffled", "own", "met"), [(0.01, 0.3, True), (0.3, 0.3, False), (0.05, 0.3, None), (0.01, 0.01, False)]
)
def test_shuffled_latents_say_something_only_where_others_are_interpretable(number, dataset, shuffled, own, met):
    rows = ("latents, shuffled", shuffled), ("latents, k = 8", own)
    assert verdict(number, *[(dataset, m, "interpretable", v, CONCEPTS) for m, v in rows]) is met
    assert verdict(number, *[(dataset, m, "interpretable", v, CONCEPTS) for m, v in rows[:1]]) is None


@pytest.mark.parametrize(("value", "met"), [(0.8, True), (0.4, False), (0.5, None)])
def test_halves_must_agree(value, met):
    assert verdict("11", (BEAUTY, "latents, k = 8", "halves agree", value, CONCEPTS)) is met


@pytest.mark.parametrize("number", ["12a", "12b"])
def test_ablation_needs_a_p_below_a_hundredth_in_every_seed(number):
    metric = {"12a": "sign test against nothing", "12b": "sign test against another"}[number]
    row = (BEAUTY, "latents, k = 8", metric, 1e-4, STEERING)
    made = frame(row, spread=0.0)
    assert JUDGES[number](made.assign(value=[1e-6, 1e-4, 9e-3])).met is True
    assert JUDGES[number](made.assign(value=[1e-6, 1e-4, 0.02])).met is False
    assert JUDGES[number](made.assign(value=[1e-6, 1e-4, np.nan])).met is None
    assert JUDGES[number](made.iloc[:2]).met is None


@pytest.mark.parametrize(("shares", "met"), [((0.2, 0.3, 0.4, 0.5, 0.6), True), ((0.2, 0.3, 0.28, 0.5, 0.6), False),
                                            ((0.2, 0.3, 0.3, 0.5, 0.6), None)])  # fmt: skip
def test_the_dose_must_raise_the_share_at_every_step(shares, met):
    doses = zip((0.0, 0.5, 1.0, 2.0, 4.0), shares, strict=True)
    rows = [(BEAUTY, "latents, k = 8", "share of concept items", share, {**STEERING, "dose": dose})
            for dose, share in doses]  # fmt: skip
    assert verdict("12c", *rows) is met
    assert verdict("12c", *rows[:-1]) is None


@pytest.mark.parametrize(("value", "seeds", "met"), [(0.97, 40, True), (0.8, 40, None), (0.5, 40, False)])
def test_recovery_is_judged_by_the_interval_of_the_share(value, seeds, met):
    row = (WALKS, "latents, k = 4", "groups recovered", value, {"part": "recovery"})
    assert verdict("13", row, seeds=seeds) is met
    assert JUDGES["13"](frame(row, seeds=3).assign(value=1.0)).met is None


def test_without_records_nothing_is_judged():
    empty = pd.DataFrame({"dataset": [], "method": [], "metric": [], "seed": [], "value": []})
    assert all(judge(empty).met is None for judge in JUDGES.values())
