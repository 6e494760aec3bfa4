"""What ``relic bench`` keeps of a comparison, and what of it is published."""

import json
import math
import sys
import types

import pytest

from core.bench import BenchResult, Load
from experiments.lab import benches, docs
from experiments.lab.cli import main

RESULTS = [
    BenchResult("toy step", 0.01, "a peer", 0.02, 1.0, "cpu", "a note", ours_spread=0.04, peer_spread=math.nan),
]


@pytest.fixture
def machine(monkeypatch):
    """A comparison with known results on a machine whose load is set by the test."""
    seen = types.SimpleNamespace(load=Load(0.0, 0.0, 4))

    class Meter:
        @property
        def before(self):
            return Load(seen.load.before, math.nan, 4)

        def load(self):
            return seen.load

    monkeypatch.setattr(benches, "LoadMeter", Meter)
    monkeypatch.setattr(benches, "names", lambda: ["toy"])
    module = types.ModuleType("experiments.bench.toy")
    monkeypatch.setattr(module, "run", lambda: RESULTS, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return seen


def test_a_comparison_keeps_spread_and_load(machine, tmp_path):
    said = []
    assert not benches.run("toy", tmp_path, said.append)[0].busy
    kept = json.loads((tmp_path / "bench" / "toy.json").read_text())
    assert kept["load"] == {"before": 0.0, "during": 0.0, "cores": 4}
    assert kept["results"][0]["ours_spread"] == 0.04
    assert kept["results"][0]["peer_spread"] is None
    assert said == []


@pytest.mark.parametrize(("before", "during", "sentences"), [(2.0, 2.0, 2), (0.0, 2.0, 1), (2.0, 0.0, 2)])
def test_a_busy_machine_is_spoken_of_and_its_results_are_marked(machine, tmp_path, before, during, sentences):
    machine.load = Load(before, during, 4)
    said = []
    assert all(result.busy for result in benches.run("toy", tmp_path, said.append))
    assert len(said) == sentences
    assert all("busy" in line for line in said)


def test_marked_results_are_not_published_and_leave_the_earlier_row(machine, tmp_path):
    old = "| 9.9x | toy step | 1 ms | a peer | 9.9 ms | cpu | `relic bench toy` |"
    page = "# relic\n<!-- benches -->\n| head |\n| --- |\n{}\n<!-- /benches -->\n"
    readme = tmp_path / "README.md"
    readme.write_text(page.format(old))
    machine.load = Load(1.0, 1.0, 4)
    benches.run("toy", tmp_path, evidence=tmp_path / "evidence")
    docs.regenerate(tmp_path)
    assert old in readme.read_text()
    machine.load = Load(0.0, 0.0, 4)
    benches.run("toy", tmp_path, evidence=tmp_path / "evidence")
    docs.regenerate(tmp_path)
    assert "| 2.0x | toy step | 10 ms (4 %) | a peer | 20 ms | cpu | `relic bench toy` |" in readme.read_text()
    assert old not in readme.read_text()


def test_the_command_line_shows_the_mark_and_ends_well(machine, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    machine.load = Load(1.0, 1.0, 4)
    assert main(["bench", "toy", "--workdir", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "busy machine; a note" in out
    assert "10 ms (4 %)" in out
    assert "busy" in err
    assert main(["bench", "toy", "--format", "json", "--workdir", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["busy"] is True
