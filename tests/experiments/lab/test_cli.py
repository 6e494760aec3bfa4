"""The command line: resumes, skips what is done, speaks JSON, and explains errors in one line."""

import dataclasses
import json
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core import records
from core.errors import ConfigError, DataError
from core.fit import EXIT_PREEMPTED
from experiments.lab import ledger, registry, runs, settings
from experiments.lab.cli import main
from experiments.lab.registry import Found
from experiments.lab.reproduce import reproduce_all
from tests.experiments.toy import SYSTEM, Config, quick_run

TOY = "tests.experiments.toy"
RELIC = [sys.executable, "-m", "experiments.lab.cli"]


def relic(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*RELIC, *arguments], cwd=ledger.ROOT, capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Runs of the toy, made without training."""
    folder = tmp_path_factory.mktemp("runs")
    quick_run(folder)
    return folder


@pytest.mark.parametrize("command", [["--help"], ["list"], ["run", "--help"]])
def test_help_and_list_need_no_jax_and_little_time(command):
    then = "assert 'jax' not in sys.modules"
    code = f"import sys; from experiments.lab.cli import main\ntry:\n main({command})\nfinally:\n {then}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([sys.executable, "-c", code], cwd=ledger.ROOT, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stderr
    assert after.ru_utime - before.ru_utime < 1.5


def test_list_has_the_26_systems_as_one_json_document(capsys):
    assert main(["list", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == len({row["slug"] for row in rows}) == 26
    assert all({"slug", "title", "family", "status"} <= row.keys() for row in rows)
    assert {row["family"] for row in rows} == {"rec", "latent", "causal", "interp"}


def test_a_system_is_available_exactly_when_it_can_be_loaded():
    for entry in registry.papers():
        if entry.status == "available":
            system = registry.load(entry.slug).system
            assert (system.slug, system.family) == (entry.slug, entry.family)


def test_table_and_claims_print_one_json_document(workdir, capsys):
    assert main(["table", str(workdir / "toy"), "--format", "json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert {"system", "preset", "rows", "tables", "run", "shown", "remarks"} == table.keys()
    assert table["shown"] == "own"
    assert main(["claims", TOY, "--format", "json", "--workdir", str(workdir)]) == 0
    claims = json.loads(capsys.readouterr().out)
    assert [claim["claim"] for claim in claims] == ["2", "8", "8a", "10"]
    assert all({"claim", "statement", "shown_by", "met", "value", "interval"} <= claim.keys() for claim in claims)


@pytest.mark.parametrize("form", ["terminal", "md", "latex", "csv"])
def test_a_table_is_found_by_folder_and_by_name(workdir, form, capsys):
    outputs = []
    for target in (str(workdir / "toy"), str(workdir / "toy" / "small"), TOY):
        assert main(["table", target, "--format", form, "--workdir", str(workdir)]) == 0
        outputs.append(capsys.readouterr().out)
    assert len(set(outputs)) == 1
    assert "0.0500" in outputs[0] or form == "csv"


ERRORS = {
    "unknown system": (["run", "jepa_liner"], ["no system 'jepa_liner'", "did you mean jepa_linear"]),
    "planned system": (["run", "diffews"], ["planned", "available now"]),
    "unknown preset": (["run", TOY, "--preset", "huge"], ["no preset 'huge'", "smoke, small"]),
    "unknown setting": (["run", TOY, "--set", "step=3"], ["did you mean steps?", "steps: int = 60", "noise: one of"]),
    "no value": (["run", TOY, "--set", "steps"], ["key=value"]),
    "wrong type": (["run", TOY, "--set", "steps=many"], ["steps takes int", "'many'"]),
    "wrong choice": (["run", TOY, "--set", "noise=odd"], ["one of low, high", "'odd'"]),
    "no such data directory": (["run", TOY, "--data-dir", "nowhere"], ["--data-dir names nowhere", "not a folder"]),
    "two answers": (["run", TOY, "--keep", "--again"], ["exclude each other"]),
    "unknown data": (["run", "dccf", "--set", "dataset=gowala"], ["did you mean gowalla?", "lastfm_cf"]),
    "no run with settings": (["table", TOY, "--set", "steps=3"], ["no run with steps=3", "--set steps=3"]),
    "bad seeds": (["run", TOY, "--seeds", "few"], ["--seeds takes a count"]),
    "missing data": (["run", TOY, "--set", "source=moon"], ["'moon'", "download it"]),
    "no run": (["table", TOY], ["no run", "relic run"]),
    "unknown benchmark": (["bench", "nothing"], ["no benchmark 'nothing'", "spmm"]),
    "unknown data set": (["data", "prepare", "moon"], ["no data set 'moon'", "lastfm_cf"]),
    "tpu without type": (["launch", TOY, "--on", "tpu-vm", "--preset", "small"], ["--accelerator"]),
}


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_is_one_line_that_names_what_is_possible(case, tmp_path, capsys, monkeypatch):
    command, expected = ERRORS[case]
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    assert said.err.startswith("relic: ")
    assert not [part for part in expected if part not in said.err]


def test_a_workdir_that_cannot_be_written_is_an_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["run", TOY, "--workdir", str(tmp_path / "file" / "runs")]) == 2
    assert "name another" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["fly"], ["run"], ["list", "--format", "xml"], ["run", TOY, "--sead", "3"]])
def test_a_command_that_is_not_understood_exits_with_2_and_prints_nothing_to_stdout(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(command)
    assert exit_.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of the toy."""
    folder = tmp_path_factory.mktemp("trained")
    assert main(["run", TOY, "--preset", "smoke", "--seeds", "2", "--workdir", str(folder)]) == 0
    return folder


def cells(folder: Path) -> list[str]:
    return [f"{r.method} {r.seed}" for r in records.read(folder / runs.RECORDS) if r.metric == "error"]


def test_a_rerun_does_only_what_is_missing(trained, capsys):
    folder = trained / "toy" / "smoke"
    main(["run", TOY, "--preset", "smoke", "--seeds", "2", "--workdir", str(trained)])
    assert "training" not in capsys.readouterr().err
    main(["run", TOY, "--preset", "smoke", "--seeds", "1,2", "--workdir", str(trained)])
    said = capsys.readouterr().err
    assert "training sgd, seed 2" in said
    assert "training sgd, seed 1" not in said
    assert sorted(cells(folder)) == ["adam 0", "adam 1", "adam 2", "sgd 0", "sgd 1", "sgd 2"]
    assert {r.seed for r in runs.read(folder).records} == {0, 1, 2}


def test_a_cell_that_was_written_by_half_is_done_again(trained, capsys):
    path = trained / "toy" / "smoke" / runs.RECORDS
    lines = path.read_text().splitlines(keepends=True)
    last = json.loads(lines[-1])
    path.write_text("".join(lines[:-1]) + lines[-1][:40])
    kept = runs.whole(records.read(path))
    assert not [r for r in kept if r.provenance["cell"]["write"] == last["provenance"]["cell"]["write"]]
    main(["run", TOY, "--preset", "smoke", "--seeds", f"{last['seed']},", "--workdir", str(trained)])
    assert f"training {last['method']}, seed {last['seed']}" in capsys.readouterr().err
    again = [r for r in runs.whole(records.read(path)) if (r.method, r.seed) == (last["method"], last["seed"])]
    assert again[-1].value == last["value"]


def test_reproducing_all_goes_on_after_a_failure_and_writes_the_report(tmp_path, monkeypatch):
    def without_data(config, context):
        raise DataError("no data")

    systems = {"toy": SYSTEM, "poor": dataclasses.replace(SYSTEM, slug="poor", plan=without_data)}
    monkeypatch.setattr(registry, "available", lambda: ["poor", "toy"])
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda name: Found(systems[name], TOY) if name in systems else load(name))
    quick_run(tmp_path, preset="small", seeds=(0, 1))
    failures = reproduce_all("small", "2", tmp_path, None, lambda line: None)
    assert failures.keys() == {"poor", "toy"}  # the numbers of quick_run are not those of the toy's own code
    assert "--keep" in failures["toy"]
    again = reproduce_all("small", "2", tmp_path, None, lambda line: None, changed_code="keep")
    assert again == {"poor": "no data"}
    assert "A line through points" in (tmp_path / "report.html").read_text()


def test_each_record_tells_how_to_get_it_again(trained):
    record = runs.read(trained / "toy" / "smoke").records[0]
    assert record.provenance["config"]["steps"] == 20
    assert {"versions", "device", "commit", "time", "seeds"} <= record.provenance.keys()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_stopped_run_names_the_command_that_finishes_it(number, tmp_path):
    arguments = ["run", TOY, "--seeds", "1", "--set", "pause=0.3", "--set", "methods=sgd", "--workdir", str(tmp_path)]
    process = subprocess.Popen([*RELIC, *arguments], cwd=ledger.ROOT, stderr=subprocess.PIPE, text=True)
    await_checkpoint(tmp_path)
    process.send_signal(number)
    said = process.communicate()[1]
    assert process.returncode == EXIT_PREEMPTED, said
    command = shlex.split(said.strip().splitlines()[-1])
    assert command == ["relic", *arguments]
    folder = tmp_path / "toy" / "small,methods=sgd,pause=0.3"
    assert cells(folder) == []
    result = relic(*command[1:])
    assert result.returncode == 0, result.stderr
    assert cells(folder) == ["sgd 0"]


def await_checkpoint(folder: Path) -> None:
    """Waits for the first checkpoint of a run."""
    deadline = time.monotonic() + 90
    while not list(folder.rglob("checkpoints/step_*.json")):
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.05)


def test_numbers_of_many_seeds_are_kept_by_the_cell_that_they_belong_to(tmp_path):
    from experiments.lab.runner import RunContext

    context = RunContext("toy", "small", Config(), (0, 1), tmp_path, None)
    for seed in (0, 1):
        context.record(dataset="line", method="sgd", metric="error", seed=seed, value=seed)
    context.finish(dataset="line", method="sgd", seed=0)
    assert [r.seed for r in records.read(tmp_path / runs.RECORDS)] == [0]
    again = RunContext("toy", "small", Config(), (0, 1), tmp_path, None)
    assert again.done(dataset="line", method="sgd", seed=0)
    assert not again.done(dataset="line", method="sgd", seed=1)
    assert not RunContext("toy", "small", Config(steps=61), (0, 1), tmp_path, None).done(
        dataset="line", method="sgd", seed=0
    )


def test_a_cell_of_all_seeds_is_done_for_those_seeds_only(tmp_path):
    from experiments.lab.runner import RunContext

    context = RunContext("toy", "small", Config(), (0, 1), tmp_path, None)
    context.record(dataset="line", method="sgd", metric="error", seed=0, value=1.0)
    context.finish(figure="curve")
    context.finish(figure="nothing was measured")
    assert context.done(figure="curve")
    assert RunContext("toy", "small", Config(), (0, 1), tmp_path, None).done(figure="nothing was measured")
    assert not RunContext("toy", "small", Config(), (0, 1, 2), tmp_path, None).done(figure="curve")
    assert len(runs.whole(records.read(tmp_path / runs.RECORDS))) == 2


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("steps=1_000", 1000),
        ("learning_rate=1e-2", 0.01),
        ("methods=sgd,adam", ("sgd", "adam")),
        ("noise=high", "high"),
        ("source=none", None),
        ("source=moon", "moon"),
        ("whiten=true", True),
        ("whiten=0", False),
    ],
)
def test_settings_are_read_as_their_type(assignment, expected):
    name = assignment.partition("=")[0]
    assert getattr(settings.apply(Config(), [assignment]), name) == expected


@pytest.mark.parametrize(("text", "expected"), [("3", (0, 1, 2)), ("0,3,7", (0, 3, 7)), ("7,", (7,))])
def test_seeds_are_a_count_or_a_list(text, expected):
    assert settings.seeds(text) == expected


@pytest.mark.parametrize("text", ["0", "-1", "", ",", "1,1", "1.5", "4294967296,", "0,2000000001", "1000000", "9" * 30])
def test_other_seeds_are_refused(text):
    with pytest.raises(ConfigError, match="--seeds takes"):
        settings.seeds(text)


def test_a_reader_of_a_pipe_may_leave_early():
    command = f"set -o pipefail; {shlex.join(RELIC)} list | true"
    result = subprocess.run(["bash", "-c", command], cwd=ledger.ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
