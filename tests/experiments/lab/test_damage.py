"""Whatever happened to the files of a run: commands end with a message, and no number comes from a damaged record."""

import copy
import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from core import documents, records
from core.errors import DataError
from experiments.lab import outcomes, registry, runs
from experiments.lab.cli import main
from experiments.lab.registry import Found
from tests.experiments.toy import SYSTEM, quick_run, quick_system

TOY = "tests.experiments.toy"
QUICK = dataclasses.replace(quick_system(), figures=lambda frame: {"loss": Figure((1, 1))})
OTHERS = (None, True, 7, -1, 0.5, "x", "", [], [1], {}, {"a": []}, 2**70, 10**400)
"""Values of every type that JSON has."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A run of one seed, so that the tables show the numbers of the records as they are."""
    folder = tmp_path_factory.mktemp("sound")
    quick_run(folder, seeds=(0,), system=dataclasses.replace(SYSTEM, published=()))
    return folder / "toy" / "small"


@pytest.fixture
def quick(monkeypatch):
    found = Found(QUICK, TOY)
    monkeypatch.setattr(registry, "load", lambda name: found)
    monkeypatch.setitem(registry._own, TOY, found)


class Place:
    """A copy of the run, to be damaged, and what commands say of it."""

    def __init__(self, sound: Path, folder: Path, capsys):
        self.top, self.sound, self._capsys = folder, sound, capsys
        self.folder = Path(shutil.copytree(sound, folder / "toy" / "small"))

    def path(self, name: str) -> Path:
        return self.folder / name

    def says(self, *command: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        runs._say_once.cache_clear()
        status = main([*command, "--workdir", str(self.top)])
        said = self._capsys.readouterr()
        assert status in (0, 2), said.err
        assert status == 0 or said.err.strip().startswith("relic: ") or "relic: " in said.err
        return status, said.out, said.err

    def check(self, *, report: bool = True, rerun: bool = True) -> str:
        """Runs all commands; returns all that they said on standard error."""
        status, out, said = self.says("table", str(self.folder), "--format", "json")
        if status == 0:
            self._check_numbers(json.loads(out))
        commands = [["claims", TOY, "--preset", "small"], *([["report", str(self.top)]] if report else [])]
        for command in [*commands, *([["run", TOY, "--seeds", "1", "--keep"]] if rerun else [])]:
            said += self.says(*command)[2]
        return said

    def _check_numbers(self, table: dict) -> None:
        known = {(r.method, r.metric, r.value) for r in records.read(self.sound / runs.RECORDS)}
        shown = {(row["method"], row["metric"], row["mean"]) for row in table["rows"] if row["mean"] is not None}
        assert shown <= known
        assert {row["value"] for row in table["tables"].get("Loss by step", [])} <= {0.1, 0.05, None}
        assert shown >= {key for key in self.untouched() if key[1] != "loss"}

    def untouched(self) -> set[tuple[str, str, float]]:
        """Numbers of cells whose lines are all as they were."""
        if not self.path(runs.RECORDS).is_file() or documents.contents(self.path(runs.INFO)) != documents.contents(
            self.sound / runs.INFO
        ):
            return set()
        before = (self.sound / runs.RECORDS).read_bytes().splitlines()
        now = set(self.path(runs.RECORDS).read_bytes().splitlines())
        kept = [(line, records._parsed(line)) for line in before]
        torn = {r.provenance["cell"]["write"] for line, r in kept if line not in now}
        return {(r.method, r.metric, r.value) for _, r in kept if r.provenance["cell"]["write"] not in torn}


@pytest.fixture
def place(sound, quick, tmp_path, capsys):
    return Place(sound, tmp_path, capsys)


def lines(change):
    """A change of one line of the records, as JSON; its digest goes, as lines of earlier versions have none."""

    def damage(folder: Path) -> None:
        path = folder / runs.RECORDS
        first, *rest = path.read_text().splitlines(keepends=True)
        document = documents.parsed(first.encode())
        path.write_text(json.dumps(change(document) or document) + "\n" + "".join(rest))

    return damage


def info(change):
    def damage(folder: Path) -> None:
        document = documents.read(folder / runs.INFO)
        (folder / runs.INFO).write_text(json.dumps(change(document) or document))

    return damage


def put(*path, value):
    def change(document):
        inner = document
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value

    return change


def drop(*path):
    def change(document):
        inner = document
        for name in path[:-1]:
            inner = inner[name]
        del inner[path[-1]]

    return change


def text(name, change):
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return damage


DAMAGES = {
    "run.json a list": (info(lambda d: [d]), "holds a list"),
    "run.json empty object": (info(lambda d: (d.clear(), d)[1]), "has no module"),
    "run.json empty": (text(runs.INFO, lambda b: b""), "is no JSON"),
    "run.json latin-1": (text(runs.INFO, lambda b: b'{"a": "\xe9"}'), "is not UTF-8"),
    "run.json deep": (text(runs.INFO, lambda b: b"[" * 100_000), "is no JSON"),
    "run.json flipped": (text(runs.INFO, lambda b: b.replace(b'"small"', b'"smalk"')), "digest"),
    **{
        f"run.json without {name}": (info(drop(name)), f"has no {name}")
        for name in ("module", "slug", "preset", "fingerprint", "seeds", "command", "time")
    },
    "run.json time 5": (info(put("time", value=5)), "as its time"),
    "run.json time of no day": (info(put("time", value="yesterday")), "has no time"),
    "run.json seeds of text": (info(put("seeds", value=["0"])), "names no seeds"),
    "run.json entry that leads away": (info(put("entries", value=["../../x:run"])), "no names in modules"),
    "run.json of another system": (info(put("slug", value="dccf")), "defines toy"),
    "records of another system": (
        text(runs.RECORDS, lambda b: b"".join(_unsealed(line, system="dccf") for line in b.splitlines())),
        "its records are of dccf",
    ),
    "one byte above 127": (text(runs.RECORDS, lambda b: b[:200] + b"\xdb" + b[201:]), "line 1"),
    "one digit": (text(runs.RECORDS, lambda b: b.replace(b"0.05", b"0.06", 1)), "does not fit its digest"),
    "provenance a list": (lines(put("provenance", value=[])), "has a list as its provenance"),
    "cell lacks write": (lines(drop("provenance", "cell", "write")), "has no write"),
    "cell null": (lines(put("provenance", "cell", value=None)), "has null as its cell"),
    "cell of no JSON": (lines(put("provenance", "cell", "key", value="x")), "names no cell"),
    "value null": (lines(put("value", value=None)), "has null as its value"),
    "value true": (lines(put("value", value=True)), "as its value"),
    "value huge": (lines(put("value", value=10**400)), "as its value"),
    "value very huge": (text(runs.RECORDS, lambda b: b.replace(b"0.05", b"9" * 9999, 1)), "line 1"),
    "coords a list": (lines(put("coords", value=["a"])), "has a list as its coords"),
    "coords of lists": (lines(put("coords", value={"step": []})), "coordinate"),
    "coords named value": (lines(put("coords", value={"value": 1.0})), "coordinate"),
    "provenance lacks config": (lines(drop("provenance", "config")), "has no config"),
    "provenance lacks versions": (lines(drop("provenance", "versions")), "has no versions"),
    "no object": (lines(lambda d: [d]), "holds a list"),
    "records empty": (text(runs.RECORDS, lambda b: b""), "no numbers"),
    "records missing": (lambda folder: (folder / runs.RECORDS).unlink(), "no numbers"),
    "records a folder": (
        lambda folder: ((folder / runs.RECORDS).unlink(), (folder / runs.RECORDS).mkdir()), "no regular file",
    ),
}  # fmt: skip


def _unsealed(line: bytes, **changes) -> bytes:
    return json.dumps(documents.parsed(line) | changes).encode() + b"\n"


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_is_named_and_gives_no_number(case, place):
    damage, expected = DAMAGES[case]
    damage(place.folder)
    assert expected in place.check(report=case in ("value null", "run.json a list", "records missing"))


def test_records_that_were_written_twice_count_once(place):
    path = place.path(runs.RECORDS)
    before = place.says("table", str(place.folder), "--format", "csv")[1]
    path.write_bytes(path.read_bytes() * 2)
    assert place.says("table", str(place.folder), "--format", "csv")[1] == before
    assert "0.05" in before


def test_a_record_of_an_earlier_version_without_a_digest_is_read(place):
    before = place.says("table", str(place.folder), "--format", "csv")[1]
    for name in (runs.RECORDS, runs.INFO):
        path = place.path(name)
        path.write_text(re.sub(r',\s*"digest": "\w+"\}', "}", path.read_text()))
    assert place.says("table", str(place.folder), "--format", "csv")[1] == before


def places(document, path=()):
    """All places in a JSON value."""
    yield path
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document if isinstance(document, list) else ())
    )
    for name, value in inner:
        yield from places(value, (*path, name))


@st.composite
def json_damage(draw, data: bytes) -> bytes:
    """A value somewhere replaced by one of another type; with the digest that it had, or none."""
    document = json.loads(data)
    if draw(st.booleans()):
        document.pop("digest")
    path = draw(st.sampled_from([p for p in places(document) if p]))
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    kind = type(inner[path[-1]])
    alike = (int, float) if kind in (int, float) else kind
    inner[path[-1]] = copy.deepcopy(draw(st.sampled_from([o for o in OTHERS if not isinstance(o, alike) or o is True])))
    return json.dumps(document).encode()


@st.composite
def byte_damage(draw, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    start = draw(st.integers(0, len(changed)))
    return bytes(changed[:start] + changed[start + draw(st.sampled_from([0, 0, 0, 1, 50])) :])


@st.composite
def damaged(draw, data: bytes, by_line: bool) -> bytes:
    """The bytes of a file, after something happened to it."""
    kind = draw(st.sampled_from(["json", "bytes", "lines"] if by_line else ["json", "bytes"]))
    if kind == "bytes":
        return draw(byte_damage(data))
    if not by_line:
        return draw(json_damage(data))
    rows = data.splitlines(keepends=True)
    at = draw(st.integers(0, len(rows) - 1))
    if kind == "json":
        rows[at] = draw(json_damage(rows[at])) + b"\n"
    else:
        other = draw(st.integers(0, len(rows) - 1))
        rows = draw(st.sampled_from([rows[:at], rows[at:], rows + rows[at:other], rows[:at] + rows[other:], rows[::-1],
                                     [*rows, rows[at][: len(rows[at]) // 2]], rows * 2 + rows[:at]]))  # fmt: skip
    return b"".join(rows)


def check_any_damage(examples: int, place: Callable[[], Place]) -> None:
    @hypothesis_settings(max_examples=examples, deadline=None)
    @given(data=st.data())
    def check(data):
        name = data.draw(st.sampled_from([runs.RECORDS, runs.RECORDS, runs.INFO, "code.json"]))
        at = place()
        before = at.path(name).read_bytes()
        damage = byte_damage(before) if name == "code.json" else damaged(before, name == runs.RECORDS)
        at.path(name).write_bytes(data.draw(damage))
        at.check(report=data.draw(st.integers(0, 9)) == 0)

    check()


@pytest.mark.parametrize("examples", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_any_damage_ends_in_a_message_and_gives_no_number(examples, sound, quick, tmp_path, capsys):
    def fresh() -> Place:
        shutil.rmtree(tmp_path / "toy", ignore_errors=True)
        return Place(sound, tmp_path, capsys)

    check_any_damage(examples, fresh)


def test_outcomes_of_tests_that_are_damaged_are_passed_over(tmp_path):
    path = tmp_path / outcomes.FILE
    path.parent.mkdir()
    good = {"nodeid": "a.py::test_a", "outcome": "passed", "value": None, "interval": None, "siblings": None,
            "code": "c", "commit": "d", "time": "2026-01-01"}  # fmt: skip
    bad = [
        [],
        {},
        5,
        {k: v for k, v in good.items() if k != "nodeid"},
        *({**good, "nodeid": "a.py::b", k: 5} for k in good),
    ]
    path.write_bytes(b"\xff\n" + "\n".join(json.dumps(each) for each in [*bad, good]).encode())
    found = outcomes.read(tmp_path)
    assert found["a.py::test_a"].passed
    assert found.keys() <= {"a.py::test_a", "a.py::b"}


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.integers())), st.integers(0, 3))
def test_a_sealed_document_is_read_back_and_no_other(document, indent):
    document.pop(documents.DIGEST, None)
    written = documents.sealed(json.dumps(document, indent=indent or None))
    if document:
        assert documents.parsed(written.encode()) == documents.plain(document)
    for other in (written.replace('"digest"', '"digesu"'), written.replace("{", "{ ", 1)):
        if document:
            try:
                assert "digesu" in documents.parsed(other.encode())
            except DataError:
                continue
