"""Intervals are made in one place, and every system's tables show them as what they are."""

import ast
import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest

from core.records import Record
from core.stats import cross_validated, summary
from experiments.lab import grids, registry, tables
from experiments.lab.statistics import Statistic, rule_of
from tests.test_house import ROOT, SOURCES

QUANTILES = (1.2815516, 1.6448536, 1.9599640, 2.5758293)
"""Of the normal distribution, as they are typed where an interval is made by hand."""
SPREADS = {"std", "var", "nanstd", "nanvar", "sem"}
PERCENTILES = {"quantile", "percentile", "nanquantile", "nanpercentile"}
INVERSES = {"ppf", "isf", "ndtri", "norminv", "proportion_ci", "confidence_interval", "bootstrap_interval"}
EXCEPTIONS = {
    "causal/counterfactual_metrics.py percentile": "edges of bins of an attribute",
    "causal/image_cate/posterior.py inverse": "a quantile of a mixture, which is the result",
    "causal/image_cate/posterior.py percentile": "the same",
    "causal/pac_invariance/bounds.py inverse": "a term of the theorem's bound",
    "causal/rep4ex/diagnostics.py percentile": "the farthest usual distance between codes",
    "causal/treatment_effects/ranking.py percentile": "the critical value of a uniform band, from half-samples",
    "experiments/ekfac_influence/study/planted.py percentile": "a threshold on scores",
    "experiments/pac_invariance/study.py percentile": "the 95th percentile that the paper reports",
    "experiments/recsae/study/steering.py percentile": "which items are in the tail",
    "interp/recsae/units.py percentile": "a threshold of activity",
    "latent/diffusion/guidance.py percentile": "a threshold on pixels",
    "latent/moe_trajectories/inference.py percentile": "where most times lie, for a warning",
    "rec/diagnostics.py percentile": "edges of buckets of users",
    "interp/attribution/iterative.py standard error": "the error of a Monte Carlo estimate, returned as such",
}
"""What looks like an interval and is none."""


def called(node: ast.AST) -> str:
    """The last name of what is called."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def has_root_of_a_count(node: ast.AST) -> bool:
    return any(
        called(each) == "sqrt"
        or (isinstance(each, ast.BinOp) and isinstance(each.op, ast.Pow) and isinstance(each.right, ast.Constant)
            and each.right.value == 0.5)
        for each in ast.walk(node)
    )  # fmt: skip


def by_hand(node: ast.AST) -> str | None:
    """What of an interval is made at a node of the syntax tree."""
    match node:
        case ast.Constant(value=float(x)) if any(abs(abs(x) - q) < 6e-4 for q in QUANTILES):
            return "quantile"
        case ast.Attribute(attr=name) | ast.Name(id=name) if name in INVERSES:
            return "inverse"
        case ast.Attribute(value=ast.Name(id="t" | "norm") | ast.Attribute(attr="t" | "norm"), attr="interval"):
            return "inverse"
        case ast.Call() if called(node) in PERCENTILES:
            return "percentile"
        case ast.BinOp(op=ast.Div(), left=left, right=right):
            spread = any(called(each) in SPREADS for each in ast.walk(left))
            return "standard error" if spread and has_root_of_a_count(right) else None
    return None


def found_by_hand(path: Path) -> set[str]:
    where = path.relative_to(ROOT).as_posix()
    return {f"{where} {what}" for node in ast.walk(ast.parse(path.read_text())) if (what := by_hand(node))}


def test_no_interval_is_made_outside_of_the_vocabulary():
    outside = [path for path in SOURCES if path.parent != ROOT / "core" / "stats"]
    found = set().union(*map(found_by_hand, outside))
    assert found - set(EXCEPTIONS) == set()
    assert set(EXCEPTIONS) - found == set(), "no longer there"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("half = 1.96 * se", "quantile"),
        ("z = 1.959963984540054", "quantile"),
        ("scipy.stats.norm.ppf(0.975)", "inverse"),
        ("stats.t.interval(0.95, 2)", "inverse"),
        ("np.percentile(draws, [2.5, 97.5])", "percentile"),
        ("se = x.std(ddof=1) / np.sqrt(len(x))", "standard error"),
        ("1.96 * values.std(ddof=0) / len(values) ** 0.5", "standard error"),
    ],
)
def test_the_law_sees_intervals_made_by_hand(line, what):
    assert what in {by_hand(node) for node in ast.walk(ast.parse(line))}


SYSTEMS = list(registry.available())
LIKE_A_SHARE = re.compile(
    r"^(recall|ndcg|hr|hit|precision|map|mrr|coverage|share|dead|interpretable)\b|\b(share of|auc|accuracy|agree)\b",
    re.IGNORECASE,
)  # fmt: skip


def two_seeds(system, dataset: str, method: str, metric: str, values=(0.02, 0.97)) -> list[Record]:
    """Records of one number, equal but for what is repeated."""
    rule = rule_of(system.statistics, dataset, method, metric)
    records = []
    for i, value in enumerate(values):
        coords = {"person": i, "class": i % 2, "repetition": 0, "fold": i}
        kept = {name: coords[name] for name in rule.coordinates}
        seed = i if rule.over == "seed" else 0
        records.append(Record(system.slug, "small", dataset, method, metric, seed, value, kept))
    return records


def shown_limits(text: str) -> list[float]:
    """Limits that a cell shows, by ± or in brackets."""
    numbers = [float(x.replace("−", "-")) for x in re.findall(r"[−-]?\d+\.?\d*(?:e-?\d+)?", text)]
    if "±" in text:
        return [numbers[0] - numbers[1], numbers[0] + numbers[1]]
    return numbers[1:3] if "[" in text else []


@pytest.mark.parametrize("slug", SYSTEMS)
def test_shares_never_show_limits_outside_of_0_and_1(slug):
    system = registry.load(slug).system
    shares = [metric for metric in system.metrics if LIKE_A_SHARE.search(metric)]
    places = {(p.dataset, p.method) for p in system.published} or {("any data", "a method")}
    for metric in shares:
        for dataset, method in sorted(places):
            for values in ((0.02, 0.97), (0.0, 1.0), (0.99, 1.0), (1.0, 1.0)):
                found = tables.repeated(system, two_seeds(system, dataset, method, metric, values))
                (entry,) = (e for e in tables.entries(system, found) if e.reproduced)
                summary = entry.reproduced
                assert not summary.low < 0
                assert not summary.high > 1
                limits = shown_limits(grids.with_interval(summary))
                assert all(-5e-4 <= limit <= 1 + 5e-4 for limit in limits), (metric, grids.with_interval(summary))


@pytest.mark.parametrize("slug", SYSTEMS)
def test_methods_without_randomness_show_no_interval(slug):
    system = registry.load(slug).system
    metric = (system.metrics or ["error"])[0]
    rules = [rule for rule in system.statistics if rule.kind == "deterministic"]
    named = [(rule.dataset, rule.method, metric if rule.metric == "*" else rule.metric) for rule in rules]
    for place in [*named, ("any data", "a method that computes the same whatever the seed", metric)]:
        if any("*" in name or "?" in name for name in place):
            place = tuple(name.replace("*", "x") for name in place)
        for seeds in (2, 8):
            found = tables.repeated(system, two_seeds(system, *place, values=(0.25,) * seeds))
            (number,) = found.values()
            assert math.isnan(number.summary.half_width)
            assert "±" not in grids.with_interval(number.summary)


def test_splits_of_the_same_people_show_no_interval_and_are_not_tested():
    system = registry.load("image_cate").system
    records = [
        record
        for method, values in (("TARNet", (0.2, 0.25, 0.3)), ("effect clusters", (0.1, 0.2, 0.35)))
        for record in two_seeds(system, "Uganda YOP", method, "AUTOC", values)
    ]
    for entry in tables.entries(system, tables.repeated(system, records)):
        if entry.reproduced:
            assert "±" not in grids.with_interval(entry.reproduced)
            assert entry.against is None
            assert math.isnan(entry.p_holm)


def test_a_record_that_is_no_share_gets_no_interval_and_does_not_end_the_table():
    system = registry.load("dccf").system
    found = tables.repeated(system, two_seeds(system, "any data", "a method", "recall@20", (0.5, 1.3)))
    (entry,) = (e for e in tables.entries(system, found) if e.reproduced)
    assert grids.with_interval(entry.reproduced) == "0.9000"


def test_cross_validated_recordings_have_people_as_their_unit():
    system = registry.load("scan_eeg").system
    people = [(0.5, 0.9, 1.0, 0.7, 0.6, 0.8)[i % 6] for i in range(60)]
    found = tables.repeated(system, two_seeds(system, "UCI ERPs", "LR", "balanced accuracy", people))
    ((place, number),) = found.items()
    assert (number.summary.n, place[2]) == (60, "balanced accuracy")
    assert "people" in number.summary.kind
    assert not tables.repeated(system, [Record("scan_eeg", "small", "UCI ERPs", "LR", "balanced accuracy", 3, 0.7)])


def test_folds_give_the_corrected_interval():
    rule = Statistic("mean", over="fold")
    system = dataclasses.replace(registry.load("scan_eeg").system, statistics=(rule,), metrics=("score",))
    values = [0.6, 0.7, 0.65, 0.8, 0.75, 0.7]
    records = [
        Record("scan_eeg", "small", "d", "m", "score", 0, v, {"repetition": i // 3, "fold": i % 3})
        for i, v in enumerate(values)
    ]
    (entry,) = tables.entries(system, tables.repeated(system, records[::-1]))
    assert entry.reproduced == cross_validated(np.reshape(values, (2, 3)))
    assert entry.reproduced.half_width > summary(values).half_width
