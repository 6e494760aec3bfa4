"""Commands on terminals of every kind: plain ASCII, closed, full, narrow; and names that would steer them."""

import ast
import dataclasses
import html
import io
import os
import subprocess
import sys
from pathlib import Path

import jax
import pandas as pd
import pytest

from core import records
from core.errors import ConfigError
from experiments.lab import grids, ledger, registry, runs, streams, tables
from experiments.lab.cli import main
from experiments.lab.progress import tell
from experiments.lab.registry import Found
from experiments.lab.system import part
from tests.experiments.toy import SYSTEM, quick_run

RELIC = f"{sys.executable} -m experiments.lab.cli"
TOY = "tests.experiments.toy"
PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def shell(command: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", "-c", command.replace("relic", RELIC)], cwd=ledger.ROOT, env=os.environ | environment,
        capture_output=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "environment"),
    [
        ("relic list", {"PYTHONIOENCODING": "ascii"}),
        ("relic list", PLAIN),
        ("relic list >&-", {}),
        ("relic list >&- 2>&- <&-", {}),
        ("relic list", {"COLUMNS": ""}),
        ("relic list", {"COLUMNS": "0"}),
        ("relic list 2>/dev/full", {}),
    ],
)
def test_a_list_is_printed_on_any_output(command, environment):
    result = shell(command, **environment)
    assert (result.returncode, result.stderr) == (0, b"")
    assert (b"dccf" in result.stdout) == (">&-" not in command)


@pytest.mark.parametrize("command", ["relic list >/dev/full", "relic list --format json >/dev/full"])
def test_a_full_output_is_said_in_one_line(command):
    result = shell(command)
    assert result.returncode == 2
    assert result.stderr.decode().splitlines() == ["relic: standard output cannot be written: No space left on device"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["table jepa_linear", "report jepa_linear", "claims jepa_linear"])
def test_commands_on_a_plain_terminal(command, tmp_path):
    options = f"--workdir {tmp_path}"
    assert shell(f"relic run jepa_linear --preset smoke --seeds 1 {options}", **PLAIN).returncode == 0
    assert shell(f"relic {command} {options}", **PLAIN).returncode == 0
    result = shell(f"relic {command} {options}", PYTHONIOENCODING="ascii")
    assert (result.returncode, b"Traceback" in result.stderr) == (0, False)


def test_every_file_of_text_names_its_encoding():
    """Without, it is that of the terminal."""
    named = ("core/records.py", "core/documents.py", "core/workdir.py")
    paths = [*(ledger.ROOT / "experiments").rglob("*.py"), *(ledger.ROOT / name for name in named)]
    silent = [
        f"{path}:{node.lineno}"
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and _opens_text(node) and "encoding" not in {k.arg for k in node.keywords}
    ]
    locks = [place for place in silent if Path(place.rpartition(":")[0]).name == "workdir.py"]
    assert len(locks) <= 2  # the lock's empty file, and an identity of ASCII
    assert sorted(set(silent) - set(locks)) == []


def _opens_text(node: ast.Call) -> bool:
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    modes = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return name in ("read_text", "write_text") or (
        name == "open" and not isinstance(node.func, ast.Attribute) and not any("b" in mode for mode in modes)
    )


def test_characters_that_an_encoding_lacks_are_written_in_others(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    streams.prepare()
    streams.write("0.5 ± 0.1, −3 ≤ é ✓ 猫 \ud800\n")
    assert written.getvalue() == b"0.5 +/- 0.1, -3 <= e + ? ?\n"


STEERING = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202e\r\nline"


@pytest.fixture(scope="module")
def steering(tmp_path_factory):
    """A run whose names would steer a terminal, be read as a tag, or be computed by a spreadsheet."""
    folder = tmp_path_factory.mktemp("steering")

    def numbers(config, context):
        for method in (f"m{STEERING}", "=HYPERLINK(1)", "@x", "+1+1", "<script>alert(1)</script>", "a|b"):
            context.record(dataset=f"d{STEERING}", method=method, metric=f"error{STEERING}", seed=0, value=1.0)
            context.record(dataset=f"d{STEERING}", method=method, metric="loss", seed=0, value=1.0, step=1)

    def plan(config, context):
        return [part(numbers, dataset=f"d{STEERING}", seed=0)]

    quick = dataclasses.replace(SYSTEM, metrics=(), figures={})
    from experiments.lab.runner import execute

    execute(Found(dataclasses.replace(quick, plan=plan), TOY), seeds=(0,), workdir=folder, command=f"x{STEERING}")
    return folder, quick


@pytest.mark.parametrize("form", ["terminal", "md", "latex", "csv", "json"])
def test_names_do_not_steer_a_terminal_or_a_spreadsheet(form, steering, capsys, monkeypatch):
    folder, system = steering
    monkeypatch.setitem(registry._own, TOY, Found(system, TOY))
    assert main(["table", str(folder), "--format", form]) == 0
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert not {c for c in text if c != "\n" and not c.isprintable()}
    assert "m[31mred" in said.out or form == "latex"
    if form == "csv":
        cells = pd.read_csv(io.StringIO(said.out), dtype=str, keep_default_na=False).to_numpy().ravel()
        assert not [cell for cell in cells if cell[:1] in ("=", "+", "@", "-", "\t", "\r")]
        assert "'=HYPERLINK(1)" in cells
    if form == "md":
        assert "<script" not in said.out


def test_names_are_text_in_the_report(steering, monkeypatch):
    folder, system = steering
    monkeypatch.setitem(registry._own, TOY, Found(system, TOY))
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<script>alert(1)</script>" in html.unescape(page)
    assert "\x1b" not in page


def test_what_is_told_does_not_steer_a_terminal(capsys):
    tell(f"a\n{STEERING}")
    assert capsys.readouterr().err == "a\n[31mred]0;title2J\nline\n"


def test_numbers_in_csv_stay_numbers(tmp_path):
    run = quick_run(tmp_path, seeds=(0, 1))
    text = grids.render(run, "csv")
    frame = pd.read_csv(io.StringIO(text))
    assert frame["difference"].dtype == float
    assert (tables.tidy(tables.main_table(run))["mean"].dropna() > 0).all()


ERRORS = {
    "current folder": (["run", "."], "no system '.'"),
    "path": (["run", "../dccf"], "no system '../dccf'"),
    "table of a missing folder": (["table", "./runs/x"], "there is no folder ./runs/x"),
    "report of a missing folder": (["report", "./runs"], "there is no folder ./runs"),
    "claims of a path": (["claims", "./runs"], "no system"),
    "unknown preset of claims": (["claims", TOY, "--preset", "nonsense"], "no preset 'nonsense'"),
    "missing folder of data": (["data", "list", "--data-dir", "nowhere"], "nowhere"),
    "missing folder of data, nobody asks": (["run", TOY, "--data-dir", "nowhere"], "nowhere"),
    "seed beyond 32 bits": (["run", TOY, "--seeds", "4294967296,"], "from 0 to 2,000,000,000"),
    "seed beyond 64 bits": (["run", TOY, "--seeds", f"{2**64},"], "from 0 to 2,000,000,000"),
    "very many seeds": (["run", TOY, "--seeds", "100000000"], "at most 100,000"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_done_is_said_in_one_line(case, tmp_path, capsys, monkeypatch):
    arguments, expected = ERRORS[case]
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    [line] = said.err.strip().splitlines()
    assert line.startswith("relic: ")
    assert expected in line


def test_a_device_that_jax_does_not_know_is_said_in_one_line(monkeypatch, capsys):
    def unknown(*arguments, **options):
        raise RuntimeError("Unable to initialize backend 'quantum': it is not in the list of known backends")

    monkeypatch.setattr("experiments.lab.runner.execute", unknown)
    assert main(["run", TOY]) == 2
    assert capsys.readouterr().err.startswith("relic: JAX has no such device here: Unable to initialize")


@pytest.mark.slow
def test_jax_says_so_of_a_device_that_it_does_not_know():
    result = shell(f"relic run {TOY} --preset smoke --workdir /dev/null/x", JAX_PLATFORMS="quantum")
    assert result.returncode == 2
    assert b"Traceback" not in result.stderr
    assert b"quantum" in result.stderr


@pytest.mark.parametrize("address", ["nonsense", "host:", ":80", "host:port", "host:99999999", "a b:1", "host:80:80"])
def test_an_address_that_is_none_is_refused(address, monkeypatch):
    from core.parallel import initialize

    def never(**given):
        raise AssertionError(given)

    monkeypatch.setattr(jax.distributed, "initialize", never)
    with pytest.raises(ConfigError, match="host:port"):
        initialize(address, 2, 0)


@pytest.mark.parametrize(("processes", "number"), [(0, 0), (-1, 0), (2, 2), (2, -1)])
def test_numbers_of_processes_that_cannot_be_are_refused(processes, number, monkeypatch):
    from core.parallel import initialize

    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: None)
    with pytest.raises(ConfigError, match="process"):
        initialize("localhost:80", processes, number)


def test_records_that_cannot_be_read_are_named(tmp_path, capsys, monkeypatch):
    run = quick_run(tmp_path, seeds=(0,))

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert main(["table", str(run.folder)]) == 2
    assert "cannot be read: Permission denied" in capsys.readouterr().err
    with pytest.raises(records.DataError, match="cannot be read"):
        runs.undamaged(run.folder / runs.RECORDS)
