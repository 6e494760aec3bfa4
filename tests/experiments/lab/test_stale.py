"""Nothing stale: what other data or other code computed is computed again or named, and runs do not hide each other."""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import pytest

from core import documents, records
from core.datasets import raw
from core.errors import ConfigError, DataError, Preempted
from experiments.lab import inputs, ledger, outcomes, registry, runs, settings, sources, standing
from experiments.lab.cli import main
from experiments.lab.inputs import Inputs
from experiments.lab.registry import Found
from experiments.lab.report import most_telling
from experiments.lab.runner import ChangedCodeError, RunContext, execute
from experiments.lab.system import ShownByTest, part
from tests.experiments.toy import SYSTEM, Config, measuring, quick_run

TOY = "tests.experiments.toy"


# Data.


def reading(config, context):
    """A cell per seed, from a raw file if it is there."""
    path = raw.one("points", "x.txt", context.data_dir)
    value = 0.0 if path is None else float(read(path))

    def noted(config, at):
        at.context.say(f"computing seed {at.place['seed']}")
        at.record("error", value + at.place["seed"])

    return measuring(noted, {"dataset": "line", "method": "sgd"})(config, context)


def read(path: Path) -> str:
    with raw.reading(path, "a number"):
        return path.read_text()


READING = Found(dataclasses.replace(SYSTEM, plan=reading), TOY)


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the system that reads; returns values by seed, and what was said."""

    def made(base: Path, seeds=(0, 1), **options) -> tuple[dict[int, float], str]:
        folder = execute(READING, seeds=seeds, workdir=tmp_path / "runs", data_dir=base, **options)
        return {r.seed: r.value for r in runs.read(folder).records}, capsys.readouterr().err

    return made


def data(folder: Path, text: str | None) -> Path:
    (folder / "points").mkdir(parents=True, exist_ok=True)
    if text is not None:
        (folder / "points" / "x.txt").write_text(text)
    return folder


def test_changed_data_are_computed_again_and_the_same_are_not(run, tmp_path):
    base = data(tmp_path / "a", "1")
    assert run(base) == (
        {0: 1.0, 1: 2.0},
        "toy: line, sgd, seed 0\ncomputing seed 0\ntoy: line, sgd, seed 1\ncomputing seed 1\n",
    )
    assert run(base)[1] == ""
    assert run(data(tmp_path / "copy", "1"))[1] == ""
    values, said = run(data(base, "5"))
    assert values == {0: 5.0, 1: 6.0}
    assert "the data of 2 finished cells changed (points/x.txt)" in said
    assert run(data(tmp_path / "b", "7"))[0] == {0: 7.0, 1: 8.0}
    assert run(base)[0] == {0: 5.0, 1: 6.0}  # not the newest numbers, which are of other data


def test_what_was_simulated_for_want_of_data_is_computed_again_when_they_are_there(run, tmp_path):
    base = data(tmp_path / "a", None)
    assert run(base)[0] == {0: 0.0, 1: 1.0}
    assert run(base)[1] == ""
    assert run(data(base, "3"))[0] == {0: 3.0, 1: 4.0}


def test_numbers_of_other_data_are_not_shown_beside_those_of_the_present(run, tmp_path):
    base = data(tmp_path / "a", "1")
    run(base, seeds=range(4))
    assert run(data(base, "2"), seeds=(0,))[0] == {0: 2.0}
    shown = runs.read(tmp_path / "runs" / "toy" / "small")
    assert shown.unfinished == [1, 2, 3]
    assert "1 of 4 seeds (seeds 1, 2, 3 missing)" in standing.incomplete(shown)


def test_training_is_not_taken_up_from_other_data_or_code(tmp_path):
    base = data(tmp_path / "data", "1")

    def folder(code: str) -> Path:
        inputs = Inputs({"m": code}, base)
        inputs.files["points/x.txt"] = "noted"  # as the run's observer does
        inputs.files |= {name: raw.observed.state(name, base) for name in inputs.files}
        return RunContext("toy", "small", Config(), (0,), tmp_path, base, inputs).workdir

    first = folder("1")
    assert folder("1") == first
    other_code = folder("2")
    data(base, "2")
    other_data = folder("1")
    assert len({first, other_code, other_data}) == 3
    assert folder("1") == other_data
    data(base, "1")
    assert folder("1") == first
    assert folder("2") == other_code


def test_training_is_not_taken_up_in_another_environment(tmp_path, monkeypatch):
    def folder() -> Path:
        return RunContext("toy", "small", Config(), (0,), tmp_path, None, Inputs({"m": "1"})).workdir

    first = folder()
    assert folder() == first
    with monkeypatch.context() as patch:
        patch.setenv("RELIC_SPARSE", "xla")
        sparse = folder()
    with jax.enable_x64(True):
        double = folder()
    with monkeypatch.context() as patch:
        patch.setattr(inputs.importlib.metadata, "version", lambda name: "0")
        versions = folder()
    with monkeypatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "tpu")
        backend = folder()
    was_quick = jax.config.read(inputs.QUICK)
    jax.config.update(inputs.QUICK, not was_quick)
    try:
        quick = folder()
    finally:
        jax.config.update(inputs.QUICK, was_quick)
    assert len({first, sparse, double, versions, backend, quick}) == 6
    assert folder() == first


def test_training_that_tells_nothing_of_its_code_is_not_taken_up(tmp_path):
    (tmp_path / "work" / runs.fingerprint(Config(), (0,))).mkdir(parents=True)
    assert RunContext("toy", "small", Config(), (0,), tmp_path, None).workdir.name.endswith("-2")


# Code.

PAPER = """
import dataclasses
from mypapers.{name} import method
from experiments.lab import System, part

@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 3

def plan(config, context):
    return [part(measure, dataset="line", method="ours", seed=seed) for seed in context.seeds]

def measure(config, context):
    [cell] = context.missing
    context.say(f"computing seed {{cell['seed']}}")
    context.at(**cell).record("error", method.value(cell["seed"]))

SYSTEM = System("{name}", "Mine", "latent", "me", {{"small": Config(), "smoke": Config(1)}}, plan, metrics=("error",))
"""
METHOD = 'def value(seed):\n    """Of a seed."""\n    return 1.0 + seed\n'


@pytest.fixture
def paper(tmp_path, monkeypatch, capsys, request):
    """A package of one's own: ``paper(text)`` writes its method; ``paper.relic(*arguments)`` runs the command line."""
    name = "".join(filter(str.isalnum, request.node.name))[-40:].lower()
    folder = tmp_path / "mypapers" / f"p{name}"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "paper.py").write_text(PAPER.format(name=f"p{name}"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mypapers", raising=False)
    sources._root.cache_clear()

    class Paper:
        module, folder_of_runs = f"mypapers.p{name}.paper", tmp_path / "runs" / f"p{name}"

        def __call__(self, text: str = METHOD) -> None:
            (folder / "method.py").write_text(text)

        def relic(self, command: str, *arguments: str) -> tuple[int, str, str]:
            status = main([command, self.module, "--workdir", str(tmp_path / "runs"), *arguments])
            said = capsys.readouterr()
            return status, said.out, said.err

    made = Paper()
    made()
    return made


def test_changed_code_is_named_and_the_choice_is_the_persons(paper):
    assert paper.relic("run", "--seeds", "2")[0] == 0
    paper("# a remark\n" + METHOD.replace("Of a seed", "What a seed gives"))
    status, _, said = paper.relic("run", "--seeds", "2")
    assert status == 0
    assert "computing" not in said
    assert "other code" not in said

    paper(METHOD.replace("1.0", "2.0"))
    status, out, said = paper.relic("run", "--seeds", "3")
    assert (status, out) == (2, "")
    assert len(said.strip().splitlines()) == 1
    assert paper.module.removesuffix("paper") + "method" in said
    assert "--keep" in said
    assert "--again" in said

    for command in ("table", "report"):
        assert "computed by other code than the present" in paper.relic(command)[2]
    status, _, said = paper.relic("run", "--seeds", "3", "--keep")
    assert status == 0
    assert "computing seed 2" in said
    assert "computing seed 1" not in said
    assert "2 of 3 cells were computed by other code" in said

    status, _, said = paper.relic("run", "--seeds", "3", "--again")
    assert status == 0
    assert "computing seed 1" in said
    assert "computing seed 2" not in said
    assert "other code" not in said
    assert paper.relic("run", "--seeds", "3")[2].count("computing") == 0


def test_only_cells_that_are_asked_for_raise_the_question(paper):
    paper.relic("run", "--seeds", "2")
    paper(METHOD.replace("1.0", "2.0"))
    assert paper.relic("run", "--seeds", "5,")[0] == 0
    assert paper.relic("run", "--seeds", "0,5")[0] == 2


def test_records_that_do_not_tell_their_code_are_of_unknown_code(paper):
    paper.relic("run", "--seeds", "1")
    path = paper.folder_of_runs / "small" / runs.RECORDS
    [record] = [documents.parsed(line) for line in path.read_bytes().splitlines()]
    for name in ("code", "data", "command"):
        del record["provenance"][name]
    path.write_text(json.dumps(record) + "\n")
    before = {name: value for name, value in info(path.parent).items() if name not in ("entries", "finished")}
    (path.parent / runs.INFO).write_text(json.dumps(before))
    assert "do not say which code computed them" in paper.relic("table")[2]
    status, _, said = paper.relic("run", "--seeds", "1")
    assert status == 2
    assert "do not say which code computed them" in said
    assert "computing" not in paper.relic("run", "--seeds", "1", "--keep")[2]


# Commands and runs side by side.


def info(folder: Path) -> dict:
    return documents.read(folder / runs.INFO)


def test_the_command_is_the_one_that_made_the_numbers(paper):
    paper.relic("run", "--seeds", "2")
    folder = paper.folder_of_runs / "small"
    before = (folder / runs.INFO).read_text()
    for arguments in (["--seeds", "1"], ["--seeds", "0,1", "--keep"]):
        paper.relic("run", *arguments)
        assert (folder / runs.INFO).read_text() == before
    paper.relic("run", "--seeds", "3")
    made = standing.commands(runs.read(folder))
    assert [("--seeds 2" in one, "--seeds 3" in one) for one in made] == [(True, False), (False, True)]
    assert "--seeds 3" in info(folder)["command"]
    said = paper.relic("table")[2]
    assert all(f"made by: {command}" in said for command in made)


def test_a_trial_with_other_settings_leaves_the_main_run_alone(paper):
    paper.relic("run", "--seeds", "3")
    paper.relic("run", "--seeds", "1", "--set", "steps=9")
    assert sorted(path.name for path in paper.folder_of_runs.iterdir()) == ["small", "small,steps=9"]
    _, out, said = paper.relic("table", "--format", "csv")
    assert "shown: small, " in said
    assert "other runs: small,steps=9" in said
    assert ",3,2.0," in out
    out, said = paper.relic("table", "--set", "steps=9", "--format", "csv")[1:]
    assert ",1,1.0," in out
    assert "shown: small,steps=9" in said
    status, _, said = paper.relic("table", "--set", "step=9")
    assert status == 2
    assert "did you mean steps?" in said
    with pytest.raises(ConfigError, match=r"no run with steps=8 under .*there are small; small,steps=9"):
        runs.find(str(paper.folder_of_runs), paper.folder_of_runs.parent, assignments=["steps=8"])
    [changed] = runs.find(str(paper.folder_of_runs / "small,steps=9"), paper.folder_of_runs.parent)
    assert changed.changes == {"steps": 9}


def test_a_preset_that_has_other_settings_now_is_named(paper):
    paper.relic("run", "--seeds", "1")
    path = paper.folder_of_runs / "small" / runs.RECORDS
    lines = [json.dumps(documents.parsed(line)) + "\n" for line in path.read_bytes().splitlines()]
    path.write_text("".join(lines).replace('"steps": 3', '"steps": 2'))
    assert "preset small has other settings now: steps was 2, is 3" in paper.relic("table")[2]


def test_runs_of_other_seeds_add_up(tmp_path):
    quick_run(tmp_path, seeds=(0, 1))
    assert {r.seed for r in quick_run(tmp_path, seeds=(5,)).records} == {0, 1, 5}


def test_an_interrupted_longer_run_shows_what_is_there_and_says_what_is_missing(tmp_path):
    def stops(config, at):
        if at.place["seed"] == 2:
            raise Preempted("stopped")
        at.record("error", at.place["seed"])

    found = Found(dataclasses.replace(SYSTEM, plan=measuring(stops, {"dataset": "line", "method": "sgd"})), TOY)
    folder = execute(found, seeds=(0,), workdir=tmp_path)
    assert runs.read(folder).unfinished == []
    with pytest.raises(Preempted):
        execute(found, seeds=range(5), workdir=tmp_path)
    run = runs.read(folder)
    assert [r.seed for r in run.records] == [0, 1]
    assert run.unfinished == [1, 2, 3, 4]
    assert "2 of 5 seeds (seeds 2, 3, 4 missing)" in standing.incomplete(run)
    execute(found, seeds=(0,), workdir=tmp_path)
    run = runs.read(folder)
    assert (run.info["seeds"], run.unfinished) == ([0], [])
    assert standing.leftover(run) == "numbers of seed 1 come from an interrupted run, of which cells may be missing"


def test_an_interrupted_run_of_a_larger_preset_does_not_hide_a_finished_one(tmp_path):
    finished, begun = quick_run(tmp_path), quick_run(tmp_path, preset="smoke")
    document = info(begun.folder) | {"preset": "paper", "finished": []}
    (begun.folder / runs.INFO).write_text(json.dumps(document))
    found = runs.find(str(tmp_path), tmp_path)
    assert standing.chosen(found).folder == finished.folder
    assert [run.folder for run in most_telling(found)] == [finished.folder]
    assert ledger.judged(found)[0].folder == finished.folder
    assert "not finished" in standing.incomplete(runs.read(begun.folder))


def test_a_finished_smoke_run_does_not_hide_an_interrupted_larger_one(tmp_path):
    smoke, begun = quick_run(tmp_path, preset="smoke"), quick_run(tmp_path)
    (begun.folder / runs.INFO).write_text(json.dumps(info(begun.folder) | {"finished": [0]}))
    assert runs.read(begun.folder).unfinished == [1, 2]
    assert not smoke.unfinished
    assert [run.folder for run in most_telling(runs.find(str(tmp_path), tmp_path))] == [begun.folder]


def test_table_claims_and_report_say_that_other_runs_exist(paper, tmp_path):
    paper.relic("run", "--seeds", "1")
    paper.relic("run", "--seeds", "1", "--set", "steps=9")
    for command in ("table", "claims", "report"):
        assert "other runs: small,steps=9" in paper.relic(command)[2]
        assert "other runs: small (" in paper.relic(command, "--set", "steps=9")[2]
    assert "other runs: small (" in (paper.folder_of_runs / "report.html").read_text()
    assert "runs that are not judged: small; small,steps=9" in paper.relic("claims", "--preset", "smoke")[2]


def test_a_run_whose_system_is_not_known_is_skipped_with_a_line(paper, tmp_path, capsys, monkeypatch):
    good = quick_run(tmp_path / "runs")
    paper.relic("run", "--seeds", "1")
    monkeypatch.delitem(registry._own, paper.module)  # as a process that was not asked for it
    found = runs.find(str(tmp_path / "runs"), tmp_path / "runs")
    runs.find(str(tmp_path / "runs"), tmp_path / "runs")
    assert [run.folder for run in found] == [good.folder]
    [line] = capsys.readouterr().err.strip().splitlines()
    assert str(paper.folder_of_runs / "small") in line
    assert f"does not know module '{paper.module}'" in line
    with pytest.raises(ConfigError, match="is no reason to import it"):
        runs.find(str(paper.folder_of_runs), tmp_path / "runs")


def test_a_run_with_changes_is_found_although_its_preset_changed(paper, tmp_path):
    paper.relic("run", "--seeds", "1", "--set", "steps=9")
    paper.relic("run", "--seeds", "1")
    place = paper.folder_of_runs / "small,steps=9" / runs.INFO
    place.write_text(json.dumps(info(place.parent) | {"fingerprint": "of the former preset"}))
    find = lambda *assignments: [  # noqa: E731
        run.name for run in runs.find(str(paper.folder_of_runs), tmp_path, assignments=assignments)
    ]
    assert find("steps=9") == ["small,steps=9"]
    assert find("steps=3") == ["small"]
    with pytest.raises(ConfigError, match=rf"start one with `relic run {paper.module} --preset small --set steps=8`"):
        find("steps=8")


def test_claims_and_docs_judge_unchanged_presets_unless_asked(tmp_path):
    changed = execute(
        Found(dataclasses.replace(SYSTEM, plan=constant), TOY), seeds=(0, 1), assignments=["steps=9"], workdir=tmp_path
    )
    found = runs.find(str(tmp_path), tmp_path)
    assert ledger.judged(found) == []
    assert ledger.judged(found, changed=True) == found
    assert [run.folder for run in runs.find(TOY, tmp_path, assignments=["steps=9"])] == [changed]
    assert "small,steps=9" in ledger.of(TOY, tmp_path, assignments=["steps=9"])[1][0].source
    assert "no run of preset paper or small yet" in ledger.of(TOY, tmp_path)[1][0].source


def constant(config, context):
    def noted(config, context):
        for seed in context.seeds:
            context.record(dataset="line", method="adam", metric="error", seed=seed, value=config.steps)

    return [part(noted, dataset="line")]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "small"),
        ({"layers": 3, "rate": 0.01}, "small,layers=3,rate=0.01"),
        ({"methods": ["sgd", "adam"], "whiten": True}, "small,methods=sgd+adam,whiten=true"),
        ({"source": None}, "small,source=null"),
    ],
)
def test_folders_are_named_after_what_was_changed(changes, name):
    assert runs.folder_name("small", changes) == name


def test_names_of_folders_are_safe_and_differ_where_settings_do():
    values = ["a/b", "a_b", "a b", "a,b", "..", "x" * 300, "x" * 301, ["a", "b"], ["a+b"], "é", 1e-30, "1e-30 ", ""]
    names = [runs.folder_name("small", {"source": value}) for value in values]
    assert len(set(names)) == len(names)
    assert all(len(name) <= runs.LONGEST_NAME and not set(name) & set("/ \\:*?\"'<>|$") for name in names)


# Names of data sets and of what else there is.


def named_settings() -> list[tuple[str, str, str]]:
    """(system, setting, one of the names that it takes) of all systems."""
    found = []
    for slug in registry.available():
        system = registry.load(slug).system
        for field in dataclasses.fields(system.config_type):
            values = {getattr(preset, field.name) for preset in system.presets.values()}
            names = {name for value in values for name in (value if isinstance(value, tuple) else (value,))}
            names = {name for name in names if isinstance(name, str) and name}
            found += [(slug, field.name, max(sorted(names), key=len))] if names else []
    return found


@pytest.mark.parametrize(("slug", "setting", "name"), named_settings())
def test_a_wrong_name_is_refused_with_the_near_ones_before_anything_is_trained(slug, setting, name):
    wrong = name[:-2] + name[-1] if len(name) > 2 else name + "x"
    with pytest.raises(ConfigError, match="did you mean") as caught:
        settings.apply(next(iter(registry.load(slug).system.presets.values())), [f"{setting}={wrong}"])
    assert name in str(caught.value)


def test_every_data_set_of_a_system_may_be_named():
    for slug, setting in (("dccf", "dataset"), ("recsae", "dataset")):
        system = registry.load(slug).system
        for name in system.data:
            assert getattr(settings.apply(system.presets["small"], [f"{setting}={name}"]), setting) == name


# Outcomes of tests.


def test_an_outcome_older_than_the_code_it_tests_is_no_evidence(tmp_path, monkeypatch):
    (tmp_path / "lib.py").write_text("def f():\n    return 1\n")
    test = "import lib\n\ndef test_it():\n    assert lib.f() == 1\n"
    (tmp_path / "test_it.py").write_text(test)
    code = sources.total(sources.of_test("test_it.py", tmp_path))
    claim = dataclasses.replace(SYSTEM.claims[0], evidence=ShownByTest("test_it.py::test_it"))
    system = dataclasses.replace(SYSTEM, claims=[claim])

    def state(code: str) -> tuple[str, str]:
        [line] = ledger.ledger(system, [], {"test_it.py::test_it": outcomes.Outcome(True, code=code)}, root=tmp_path)
        return line.state, line.source

    assert state(code)[0] == "met"
    (tmp_path / "lib.py").write_text("def f():\n    '''One.'''\n    return 1  # one\n")
    assert state(code)[0] == "met"
    (tmp_path / "lib.py").write_text("def f():\n    return 2\n")
    assert state(code)[0] == "not measured"
    assert "older than the code it tests" in state(code)[1]
    assert state("")[0] == "not measured"


# The data directory.


def test_a_data_directory_that_is_not_there_is_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"--data-dir names .*nowhere, which is not a folder"):
        execute(READING, workdir=tmp_path, data_dir=tmp_path / "nowhere")
    monkeypatch.setenv("RELIC_DATA", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"RELIC_DATA names .*gone, which is not a folder"):
        execute(READING, workdir=tmp_path)
    assert not (tmp_path / "toy").exists()


def test_other_code_stops_execute_before_anything_is_written(tmp_path):
    quick_run(tmp_path, seeds=(0, 1))
    before = {path.name: path.read_bytes() for path in (tmp_path / "toy" / "small").iterdir() if path.is_file()}
    with pytest.raises(ChangedCodeError, match="finished cells"):
        execute(Found(dataclasses.replace(SYSTEM, plan=constant), TOY), seeds=(0, 1), workdir=tmp_path)
    after = {path.name: path.read_bytes() for path in (tmp_path / "toy" / "small").iterdir() if path.is_file()}
    assert before == after
    assert records.read(tmp_path / "toy" / "small" / runs.RECORDS)
