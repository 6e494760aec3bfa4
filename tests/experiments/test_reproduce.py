"""The demonstration shows its figure first, then the table, and ends with what a reader may conclude."""

import dataclasses
import html
from pathlib import Path

import pytest

from experiments import cli, registry, reproduce
from experiments.graph_recommenders.config import BEST_STEP, DEMO, STOPPED, VALIDATED
from experiments.registry import Found
from experiments.runner import execute

FOUND = {"EASE": 0.18, "LightGCN": 0.20, "DCCF": 0.15}


def numbers(config, context):
    """Records of the demonstration's shape, without training."""
    for method, level in FOUND.items():
        for seed in context.seeds:
            cell = {"dataset": "intents", "method": method, "seed": seed}
            for metric in ("recall@20", VALIDATED):
                context.record(**cell, metric=metric, value=level + 0.001 * seed * (method != "EASE"))
            if method != "EASE":
                for step, below in ((20, 0.02), (40, 0.0), (60, 0.01)):
                    context.record(**cell, metric=f"validation {VALIDATED}", value=level - below, step=step)
                context.record(**cell, metric=BEST_STEP, value=40)
                context.record(**cell, metric=STOPPED, value=1)
            context.finish(**cell)


@pytest.fixture
def untrained(monkeypatch):
    def instead(found, **options):
        return execute(Found(dataclasses.replace(found.system, run=numbers), found.module), **options)

    monkeypatch.setattr(reproduce, "execute", instead)
    monkeypatch.setattr(reproduce, "_demo_data", lambda data_dir, tell: ("dataset=intents",))


def test_the_demo_shows_the_figure_first_and_ends_with_a_conclusion(untrained, tmp_path, capsys):
    assert cli.main(["demo", "--workdir", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    figure, report = (next(line for line in shown.err.splitlines() if line.startswith(what)) for what in ("fig", "rep"))
    assert Path(figure.split(": ", 1)[1]).read_bytes().startswith(b"\x89PNG")
    assert Path(figure).name.startswith("validated_")
    page = html.unescape(Path(report.split(": ", 1)[1]).read_text())
    told = " ".join(shown.out.split())
    assert told.endswith("each at its best step on held-out training items: LightGCN ranks better here.")
    assert f"paired over {reproduce.DEMO_SEEDS} seeds" in told
    assert told.rsplit("On intents", 1)[1] in page
    assert page.index("<figure") < page.index('class="lead"') < page.index("<table") < page.index("<h3>Claims")


def test_the_demo_stops_every_method_by_validation_and_has_seeds_for_an_interval():
    assert DEMO.validation > 0
    assert reproduce.DEMO_SEEDS >= 3
    trained = [name for name in DEMO.methods if name != "EASE"]
    assert set(trained) == {"LightGCN", "DCCF"}
    assert DEMO.evaluations > 2 * DEMO.patience
    assert registry.load("dccf").system.presets["demo"] is DEMO
