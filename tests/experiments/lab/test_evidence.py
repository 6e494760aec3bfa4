"""The runs that ship as evidence, and the pages that are written from them."""

import dataclasses
import lzma
import re
import shutil
from pathlib import Path

import pytest

from core.errors import ConfigError, DataError
from experiments.lab import cli, docs, evidence, registry, runs
from experiments.lab.registry import Found
from tests.experiments.toy import SYSTEM, quick_run

ROOT = Path(__file__).resolve().parents[3]
TOY = Found(SYSTEM, "tests.experiments.toy")
KEPT = [path.parent.name for path in sorted((ROOT / evidence.FOLDER).glob("*/run.json"))]
LARGEST = 5_000_000
"""Bytes of all evidence."""


@pytest.mark.parametrize("slug", KEPT)
def test_what_ships_is_a_finished_run_without_faults(slug, capsys):
    run = evidence.reference(registry.load(slug))
    assert run is not None
    assert run.records
    assert (run.unfinished, run.changes) == ([], {})
    assert run.preset in ("small", "paper")
    assert not capsys.readouterr().err
    assert {r.provenance["config"] == run.records[0].provenance["config"] for r in run.records} == {True}


@pytest.mark.parametrize("slug", KEPT)
def test_what_ships_names_no_folder_of_a_machine(slug):
    run = evidence.reference(registry.load(slug))
    assert run is not None
    texts = {run.info["command"], *(r.provenance.get("command", "") for r in run.records)}
    assert not [text for text in texts if re.search(r"(^|[ =])(/|~|\.\.)", text)]


def test_evidence_is_small_and_of_systems_that_there_are():
    files = [path for path in (ROOT / evidence.FOLDER).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LARGEST
    assert set(KEPT) <= set(registry.available())


def test_pages_and_results_are_those_of_the_evidence(tmp_path):
    """`relic docs` writes them; what it would change is out of date."""
    for name in ("README.md", docs.RESULTS):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("docs", evidence.FOLDER, "tests"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    assert [path.name for path in docs.regenerate(tmp_path)] == []


def test_outcomes_of_tests_are_kept_beside_a_reference_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "unfit", lambda run: "")
    with pytest.raises(ConfigError, match="toy has no reference yet"):
        evidence.keep_outcomes(TOY, tmp_path)
    place = evidence.keep(TOY, quick_run(tmp_path / "runs"), root=tmp_path)
    (place / evidence.OUTCOMES).unlink()
    assert evidence.keep_outcomes(TOY, tmp_path) == place
    assert (place / evidence.OUTCOMES).is_file()


@pytest.mark.parametrize(
    ("change", "fault"),
    [({"steps": 9}, "its settings are not those of preset small"), ({}, "computed by other code than the present")],
)
def test_runs_of_other_settings_or_other_code_are_no_evidence(change, fault, tmp_path):
    run = quick_run(tmp_path / "runs")
    run = dataclasses.replace(run, info={**run.info, "changes": change, "entries": ["core.errors:RelicError"]})
    assert fault in evidence.unfit(run)


def test_a_reference_is_shown_where_the_system_has_not_run(tmp_path, monkeypatch, capsys):
    if not KEPT:
        pytest.skip("no reference run ships")
    assert cli.main(["table", KEPT[0], "--workdir", str(tmp_path)]) == 0
    assert "the reference run that ships" in capsys.readouterr().err
    assert cli.main(["table", KEPT[0], "--workdir", str(tmp_path), "--format", "csv"]) == 0
    header, *lines = capsys.readouterr().out.strip().splitlines()
    assert header.endswith(",shown")
    assert all(line.endswith(",reference") for line in lines)
    with pytest.raises(ConfigError, match="there is no run"):
        runs.find(KEPT[0], tmp_path)


def test_a_report_where_nothing_has_run_is_of_the_references_and_leaves_them_alone(tmp_path, monkeypatch, capsys):
    if not KEPT:
        pytest.skip("no reference run ships")
    monkeypatch.setattr(registry, "available", lambda: KEPT[:1])
    before = sorted((ROOT / evidence.FOLDER).rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report"]) == 0
    page = (tmp_path / "runs" / "report.html").read_text()
    assert "reference run, preset" in page
    assert sorted((ROOT / evidence.FOLDER).rglob("*")) == before
    assert list((tmp_path / "runs" / KEPT[0] / "reference" / "figures").glob("*.png"))


def test_evidence_that_was_changed_or_is_of_another_system_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "unfit", lambda run: "")
    place = evidence.keep(TOY, quick_run(tmp_path / "runs"), root=tmp_path)
    assert evidence.reference(TOY, tmp_path) is not None
    path = runs.records_of(place)
    text = lzma.decompress(path.read_bytes()).decode()
    value = re.search(r'"value": ([0-9.]+)', text)
    assert value
    path.write_bytes(lzma.compress(text.replace(value[0], '"value": 0.123', 1).encode()))
    with pytest.raises(DataError, match="damaged"):
        evidence.reference(TOY, tmp_path)
    path.write_bytes(lzma.compress(text.encode()))
    place.rename(place.with_name("other"))
    other = Found(dataclasses.replace(SYSTEM, slug="other"), TOY.module)
    with pytest.raises(DataError, match="is of toy"):
        evidence.reference(other, tmp_path)
