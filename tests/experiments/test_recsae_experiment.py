import collections
import html.parser

import numpy as np
import pandas as pd
import pytest

from core.errors import ConfigError, DataError
from experiments.lab import registry, runs
from experiments.lab.runner import execute
from experiments.lab.system import ShownByRecords
from experiments.recsae import SYSTEM
from experiments.recsae.claims import CLAIMS
from experiments.recsae.config import WALKS
from experiments.recsae.judges import (
    judge_accuracy,
    judge_coherence,
    judge_dose,
    judge_halves,
    judge_in_place,
    judge_interpretable,
    judge_order,
    judge_recovery,
    judge_reported_coherence,
    judge_shuffled,
    judge_signs,
    judge_smooth,
)
from experiments.recsae.study.pages import Browser, History, Latent
from experiments.recsae.study.pages import html as html_of
from experiments.recsae.study.steering import signs
from tests.experiments.noise import noise as little

TINY = (
    "methods=SASRec,Popularity",
    "walk_users=300",
    "walk_items=60",
    "walk_groups=6",
    "walk_dim=16",
    "walk_epochs=6",
    "walk_ks=8",
    "negatives=16",
    "batch_rows=16",
    "sae_epochs=4",
    "sae_batch=256",
    "sae_rate=0.005",
    "clusters=6",
    "steered=5",
    "top=4",
)
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
    assert set(SYSTEM.figures(frame)) == {"trade_off", "dose_response", "coherence"}
    titles = set(SYSTEM.tables(frame))
    assert {"With the reconstruction in place", "Concepts of units on new sequences", "Planted groups"} <= titles


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


def test_the_sign_test_leaves_ties_out():
    assert signs(np.array([-1.0] * 8 + [0.0] * 40)) == pytest.approx(0.5**8)
    assert signs(np.zeros(5)) == 1.0
    assert signs(np.ones(9)) == 1.0


def frame(*rows, seeds=3, spread=0.002):
    """Records: (dataset, method, metric, value, coordinates), with a little noise over seeds."""
    noise = spread * np.linspace(-1, 1, seeds)
    return pd.DataFrame([
        {"dataset": dataset, "method": method, "metric": metric, "seed": seed, **at,
         "value": value + noise[seed] + little(method, metric, seed)}
        for dataset, method, metric, value, at in rows
        for seed in range(seeds)
    ])  # fmt: skip


BEAUTY, CONCEPTS, STEERING = "amazon_beauty", {"part": "concepts"}, {"part": "steering"}


def beauty(metric, at, **methods):
    return frame(*[(BEAUTY, name.replace("_", " "), metric, value, at) for name, value in methods.items()])


def latents(metric, value, k=8, at=CONCEPTS, dataset=BEAUTY, **more):
    return frame((dataset, f"latents, k = {k}", metric, value, at), **more)


def test_orders_are_judged_by_the_interval_of_the_difference():
    better = judge_order("SASRec", "Popularity")
    assert better(frame((BEAUTY, "SASRec", "ndcg@10", 0.05, {}), (BEAUTY, "Popularity", "ndcg@10", 0.01, {}))).met
    worse = frame((BEAUTY, "SASRec", "ndcg@10", 0.01, {}), (BEAUTY, "Popularity", "ndcg@10", 0.05, {}))
    assert better(worse).met is False
    noisy = frame((BEAUTY, "SASRec", "ndcg@10", 0.01, {}))
    noisy = pd.concat([noisy, noisy.assign(method="Popularity", value=noisy["value"].to_numpy()[::-1])])
    assert better(noisy).met is None


@pytest.mark.parametrize(("value", "met"), [(0.075, True), (0.05, False), (0.0899, None)])
def test_accuracy_needs_the_whole_interval_in_the_range(value, met):
    assert judge_accuracy(frame((BEAUTY, "SASRec", "hr@10", value, {}))).met is met


def in_place(shares, dead=0.1):
    rows = [(BEAUTY, "SASRec, probed", metric, 0.08, {}) for metric in ("hr@10", "ndcg@10")]
    for k, share in shares.items():
        method = f"SASRec, k = {k} in place"
        rows += [(BEAUTY, method, metric, 0.08 * share, {}) for metric in ("hr@10", "ndcg@10")]
        rows.append((BEAUTY, method, "dead", dead, {}))
    return frame(*rows, spread=1e-5)


def test_reconstructions_are_judged_by_what_is_kept():
    assert judge_in_place(in_place({32: 0.97})).met is True
    assert judge_in_place(in_place({32: 0.94})).met is False
    assert judge_in_place(in_place({32: 0.97}, dead=0.3)).met is False
    assert judge_smooth(in_place({4: 0.8, 8: 0.9, 16: 0.95, 32: 0.98})).met is True
    assert judge_smooth(in_place({4: 0.3, 8: 0.9, 16: 0.95, 32: 0.98})).met is False
    assert judge_smooth(in_place({4: 0.99, 8: 0.9, 16: 0.95, 32: 0.98})).met is False


def test_coherence_must_exceed_both_baselines_by_the_margin():
    def judged(value, judge=judge_coherence, k=8):
        others = [(BEAUTY, name, "coherence", 0.4, CONCEPTS) for name in ("neurons", "random directions")]
        return judge(frame((BEAUTY, f"latents, k = {k}", "coherence", value, CONCEPTS), *others)).met

    assert judged(0.55) is True
    assert judged(0.46) is False
    assert judged(0.39, judge_reported_coherence, 32) is True


@pytest.mark.parametrize(("value", "met"), [(0.4, True), (0.1, False)])
def test_interpretable_shares_are_compared_with_neurons(value, met):
    rows = [(BEAUTY, "latents, k = 8", value), (BEAUTY, "neurons", 0.2)]
    assert judge_interpretable(frame(*[(d, m, "interpretable", v, CONCEPTS) for d, m, v in rows])).met is met


def test_shuffled_latents_and_halves_have_their_thresholds():
    shuffled = lambda v: frame((BEAUTY, "latents, shuffled", "interpretable", v, CONCEPTS))  # noqa: E731
    assert judge_shuffled(shuffled(0.01)).met is True
    assert judge_shuffled(shuffled(0.08)).met is False
    assert judge_halves(latents("halves agree", 0.8)).met is True
    assert judge_halves(latents("halves agree", 0.4)).met is False


def test_ablation_needs_a_small_p_in_every_seed():
    judge = judge_signs("sign test against nothing")

    def judged(p, spread=0.0):
        parts = [latents(m, v, at=STEERING, spread=s) for m, v, s in (
            ("sign test against nothing", p, spread), ("change by ablation", -0.1, 0.01),
            ("change by ablating another", -0.01, 0.001))]  # fmt: skip
        return judge(pd.concat(parts)).met

    assert judged(1e-4) is True
    assert judged(0.5) is False
    assert judged(0.04, 0.03) is False


def test_the_dose_must_raise_the_share_at_every_step():
    def doses(*shares):
        return pd.concat([latents("share of concept items", s, at={**STEERING, "dose": float(d)})
                          for d, s in enumerate(shares)])  # fmt: skip

    assert judge_dose(doses(0.2, 0.3, 0.5)).met is True
    assert judge_dose(doses(0.2, 0.3, 0.28)).met is False


def test_recovery_is_judged_by_the_lower_limit():
    assert judge_recovery(latents("groups recovered", 0.95, k=4, at={"part": "recovery"}, dataset=WALKS)).met is True
    assert judge_recovery(latents("groups recovered", 0.8, k=4, at={"part": "recovery"}, dataset=WALKS)).met is None


@pytest.mark.parametrize("claim", [c for c in CLAIMS if isinstance(c.evidence, ShownByRecords)], ids=lambda c: c.number)
def test_without_records_nothing_is_judged(claim):
    empty = pd.DataFrame({"dataset": [], "method": [], "metric": [], "seed": [], "value": []})
    assert claim.evidence.judge(empty).met is None
