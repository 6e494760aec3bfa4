"""``relic new``: what it writes runs, is judged, ships its evidence and is documented, outside of relic and inside."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import ConfigError
from experiments.lab import new, registry
from experiments.lab.cli import main

WORD = "mypaper"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(new.ROOT)}


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """The folder of a paper of one's own, committed, which has run and ships its evidence."""
    folder = tmp_path_factory.mktemp("home") / WORD
    new.write(WORD, outside=folder)
    me = ["-c", "user.email=me@here", "-c", "user.name=me"]
    for arguments in (["init", "-q", "."], ["add", "-A"], [*me, "commit", "-qm", "a paper"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    command = [sys.executable, "-m", "experiments.lab.cli"]
    for arguments in (["run", WORD, "--preset", "smoke", "--seeds", "5"], ["keep", WORD, "--preset", "smoke"]):
        subprocess.run([*command, *arguments], cwd=folder, env=ENVIRONMENT, check=True, capture_output=True)
    return folder


@pytest.fixture
def relic(paper, capsys, monkeypatch):
    """Runs the command line in the paper's folder: ``relic(*arguments)`` gives the status and what was printed."""
    monkeypatch.chdir(paper)
    monkeypatch.syspath_prepend(str(paper))

    def run(*arguments):
        status = main(list(arguments))
        out = capsys.readouterr()
        return status, out.out + out.err

    yield run
    for name in [name for name in sys.modules if name == WORD or name.startswith(f"{WORD}.")]:
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_records_carry_the_papers_own_commit(paper):
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=paper, capture_output=True, text=True)
    records = (paper / "runs" / WORD / "smoke" / "records.jsonl").read_text()
    assert f'"commit": "{commit.stdout.strip()}' in records


def test_its_page_and_results_are_written_from_its_evidence(paper, relic):
    said = relic("docs", WORD)[1]
    assert "docs/mypaper.md" in said
    assert "RESULTS.md" in said
    assert "gradient descent" in (paper / "RESULTS.md").read_text()
    assert "4 claims" in (paper / "docs" / "mypaper.md").read_text()
    assert relic("docs", WORD) == (0, "")  # nothing is new


def test_a_fresh_clone_shows_the_reference_and_names_it(paper, relic, tmp_path):
    status, said = relic("table", WORD, "--workdir", str(tmp_path))
    assert status == 0
    assert "the reference run that ships" in said
    status, said = relic("claims", WORD, "--workdir", str(tmp_path))
    assert "reference: 4 claims" in said
    assert "not measured" in said
    status, said = relic("report", WORD, "--workdir", str(tmp_path), "--output", str(tmp_path / "page.html"))
    assert status == 0
    assert "gradient descent" in (tmp_path / "page.html").read_text()


def test_a_run_is_compared_with_the_reference(relic, tmp_path):
    arguments = ("reproduce", WORD, "--preset", "smoke", "--compare", "--workdir", str(tmp_path))
    status, said = relic(*arguments)
    assert status == 0
    assert "0 of 12 numbers lie outside" in said
    assert "reference" in said
    status, said = relic(*arguments[:-1], str(tmp_path / "b"), "--seeds", "7,8,9")
    assert status == 0
    assert "numbers lie outside of the reference's intervals" in said


def test_what_is_no_evidence_is_refused(relic):
    relic("run", WORD, "--seeds", "2", "--preset", "smoke", "--workdir", "few")
    status, said = relic("keep", WORD, "--preset", "smoke", "--workdir", "few")
    assert status == 2
    assert "the reference of mypaper has 5 seeds, this run 2: --again replaces it all the same" in said


def test_its_own_tests_pass(paper, relic):
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", "pyproject.toml", "-k", "every_cell"], cwd=paper,
        capture_output=True, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout
    assert (paper / ".relic" / "outcomes.jsonl").exists()


def test_a_paper_inside_has_the_rooms_of_every_paper(tmp_path):
    made = {str(path.relative_to(tmp_path)) for path in new.write(WORD, "causal", root=tmp_path)}
    assert {"causal/mypaper.py", "docs/systems/mypaper.md", "tests/experiments/mypaper/test_mypaper.py"} <= made
    rooms = {Path(path).name for path in made if path.startswith("experiments/mypaper/")}
    assert rooms == {"__init__.py", "config.py", "study.py", "claims.py", "figures.py"}


def test_it_is_short():
    lines = sum(len(path.read_text().splitlines()) for path in new.TEMPLATES.glob("*.py.txt"))
    assert lines <= 190


@pytest.mark.parametrize(
    ("name", "family", "message"),
    [
        ("My-Paper", "rec", "small letters"),
        ("../evil", "rec", "small letters"),
        ("class", "rec", "small letters"),
        ("dccf", "rec", "is a system already"),
        ("fine", "recs", "no family"),
    ],
)
def test_names_that_cannot_be_are_refused(tmp_path, name, family, message):
    with pytest.raises(ConfigError, match=message):
        new.write(name, family, tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(tmp_path):
    new.write(WORD, outside=tmp_path)
    (tmp_path / WORD / "study.py").write_text("mine")
    with pytest.raises(ConfigError, match="there already, and nothing was written"):
        new.write(WORD, outside=tmp_path)
    assert (tmp_path / WORD / "study.py").read_text() == "mine"


def test_folders_say_what_a_system_is_without_being_imported():
    entries = {entry.slug: entry for entry in registry.entries()}
    for slug in registry.available():
        system = registry.load(slug).system
        assert entries[slug][:4] == (system.slug, system.title, system.family, system.line)
        assert entries[slug].is_layer == system.is_layer
