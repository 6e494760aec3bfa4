"""The demonstration shows its figure first, then the table, and ends with what a reader may conclude."""

import dataclasses
import html
from pathlib import Path

import pytest

from core.errors import CheckpointError, ConfigError, Preempted
from experiments.dccf.config import BEST_STEP, DEMO, STOPPED, VALIDATED
from experiments.lab import cli, registry, reproduce
from experiments.lab.registry import Found
from experiments.lab.runner import execute
from experiments.lab.system import Part
from tests.experiments.noise import noise
from tests.experiments.toy import SYSTEM

TOY = "tests.experiments.toy"
TOY_SYSTEM = Found(SYSTEM, TOY)

FOUND = {"EASE": 0.18, "LightGCN": 0.20, "DCCF": 0.15}


def numbers(config, context):
    """Records of the demonstration's shape, without training."""
    for method, level in FOUND.items():
        for seed in context.seeds:
            cell = {"dataset": "intents", "method": method, "seed": seed}
            spread = (0.001 * seed + noise(method, seed)) * (method != "EASE")
            for metric in ("recall@20", VALIDATED):
                context.record(**cell, metric=metric, value=level + spread)
            if method != "EASE":
                for step, below in ((20, 0.02), (40, 0.0), (60, 0.01)):
                    context.record(**cell, metric=f"validation {VALIDATED}", value=level - below, step=step)
                context.record(**cell, metric=BEST_STEP, value=40)
                context.record(**cell, metric=STOPPED, value=1)


def plan(config, context):
    cells = [{"dataset": "intents", "method": method, "seed": seed} for method in FOUND for seed in context.seeds]
    return [Part(numbers, cells)]


@pytest.fixture
def untrained(monkeypatch):
    def instead(found, **options):
        return execute(Found(dataclasses.replace(found.system, plan=plan), found.module), **options)

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


def attempted(monkeypatch, tmp_path, errors):
    """The failures of a reproduction whose systems raise these errors, and the systems that were run."""
    done = []

    def instead(found, **options):
        done.append(found)
        if found in errors:
            raise errors[found]
        return execute(Found(dataclasses.replace(SYSTEM, plan=lambda config, context: []), TOY), **options)

    monkeypatch.setattr(reproduce.registry, "available", lambda: ["one", "two", "three"])
    monkeypatch.setattr(reproduce.registry, "load", lambda slug: TOY_SYSTEM if slug == TOY else slug)
    monkeypatch.setattr(reproduce, "execute", instead)
    failures = reproduce.reproduce_all("small", "1", tmp_path / "runs", None, lambda message: None, tmp_path)
    return failures, done


def test_an_error_of_one_system_does_not_end_the_others(monkeypatch, tmp_path):
    failures, done = attempted(monkeypatch, tmp_path, {"one": CheckpointError("no room"), "two": ConfigError("wrong")})
    assert done == ["one", "two", "three"]
    assert {slug: failures[slug] for slug in ("one", "two")} == {"one": "no room", "two": "wrong"}
    assert "three" not in failures


def test_a_stop_request_ends_a_reproduction(monkeypatch, tmp_path):
    with pytest.raises(Preempted):
        attempted(monkeypatch, tmp_path, {"two": Preempted("stopped")})
