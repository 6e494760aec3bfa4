"""What a computation depends on is noted: every raw file that is looked for or read, by whichever reader."""

import ast
import urllib.error
from pathlib import Path

import pytest

from core import datasets
from core.datasets import (
    attributes,
    data_dir,
    erp,
    growth,
    ihdp,
    interactions,
    mnist,
    monkey_reach,
    morphomnist,
    observed,
    raw,
    sachs,
    shakespeare,
    tables,
    uci,
    uganda,
)
from core.datasets.implicit import BUILDERS
from core.errors import DataError

SOURCES = Path(datasets.__file__).parent
READERS = {
    **{
        name: (lambda base, name=name: interactions.load(name, base), f"{name}/{builder.LOCAL}")
        for name, builder in BUILDERS.items()
    },
    **{
        f"attributes of {name}": (lambda base, name=name: attributes.load(name, base), f"{name}/{file}")
        for name, file in attributes.FILES.items()
    },
    **{
        f"table {name}": (lambda base, name=name: tables.data_source(name, "", base), f"{table.folder}/{table.file}")
        for name, table in tables.TABLES.items()
    },
    **{
        f"growth {name}": (lambda base, name=name: growth.load(name, base), f"growth_mixture/{name}.csv.gz")
        for name in growth.NAMES
    },
    **{
        f"uci {name}": (lambda base, name=name: uci.load(name, base), f"uci_regression/{file}")
        for name, file in uci.FILES.items()
    },
    "subject means": (erp.subject_means, "erp_uci_subject_means/uci_s1_erp_61x64x64.npz"),
    "single trials": (erp.single_trials, "erp_smni_train/smni_train_8ch.npz"),
    "stop signal": (erp.stop_signal, "erp_impulsivity/impulsivity_erp.npz"),
    "ihdp": (ihdp.load, "ihdp10/ihdp10.npz"),
    "mnist": (lambda base: mnist.load("test", base), "mnist_t10k/t10k-images-idx3-ubyte.gz"),
    "mnist, prepared": (lambda base: mnist.data_source("test", base), "mnist_t10k/t10k-labels-idx1-ubyte.gz"),
    "monkey": (lambda base: monkey_reach.load("chewie", "tr", base), "monkey_reach_dad/chewie.npz"),
    "morphomnist": (lambda base: morphomnist.load("test", base), "morphomnist_ti/t10k-images-idx3-ubyte.gz"),
    "sachs": (sachs.load, "sachs_interventions/sachs.npz"),
    "shakespeare": (shakespeare.load, "tinyshakespeare/input.txt.xz"),
    "uganda images": (lambda base: uganda.images("wide39", base), "uganda_yop_images/wide39.npz"),
    "uganda places": (uganda.places, "uganda_yop_images/wide39.npz"),
    "uganda units": (uganda.units, "uganda_yop_images/units.csv.gz"),
}


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    def refuse(*arguments, **options):
        raise urllib.error.URLError("unreachable")

    monkeypatch.setattr(raw.urllib.request, "urlopen", refuse)
    monkeypatch.setenv("RELIC_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", READERS)
def test_every_reader_notes_the_file_that_is_not_there(name, tmp_path, no_network):
    read, file = READERS[name]
    with observed.observing(tmp_path) as files, pytest.raises(DataError):
        read(tmp_path)
    assert file in files
    assert set(files.values()) == {None}


@pytest.mark.parametrize("name", [name for name in READERS if name not in BUILDERS and "table" not in name])
def test_every_reader_notes_the_file_that_it_reads(name):
    base, (read, file) = data_dir(), READERS[name]
    if base is None or not (base / file).is_file():
        pytest.skip("no such file in the data directory")
    with observed.observing(base) as files:
        read(base)
    assert files[file] == observed.digest(base / file) is not None
    assert not observed.changed(files, base)


def test_every_module_that_reads_raw_files_is_among_the_readers():
    uses = {path.stem for path in SOURCES.glob("*.py") if "core.datasets.raw import" in path.read_text()}
    helpers = {"prepared", "implicit", "ratings", "vectors"}  # read through interactions; a run's own store
    assert uses - helpers <= {getattr(value, "__name__", "").rpartition(".")[2] for value in globals().values()}


OPENERS = {"open", "load", "read_bytes", "read_text", "read_csv", "read_table", "is_file", "exists", "glob"}
OWN_FILES = {"observed", "raw", "prepared", "vectors"}
"""The door itself, and modules that open what they have written."""


@pytest.mark.parametrize("path", sorted(SOURCES.glob("*.py")), ids=lambda path: path.stem)
def test_raw_files_are_opened_behind_the_door_alone(path):
    if path.stem in OWN_FILES:
        return
    tree = ast.parse(path.read_text())
    doors = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        and any(getattr(getattr(item.context_expr, "func", None), "id", "") == "reading" for item in node.items)
    ]
    inside = {id(node) for door in doors for node in ast.walk(door)}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and id(node) not in inside]
    own = {"load"}  # of other readers
    outside = [
        f"line {call.lineno}: {name}"
        for call in calls
        if (name := getattr(call.func, "attr", getattr(call.func, "id", ""))) in OPENERS
        and not (name in own and getattr(getattr(call.func, "value", None), "id", "") != "np")
    ]
    assert not outside


def test_content_counts_and_not_the_time_of_writing(tmp_path):
    file = tmp_path / "set" / "a.txt"
    file.parent.mkdir()
    file.write_text("1")
    with observed.observing(tmp_path) as files:
        assert raw.one("set", "a.txt", tmp_path) == file
        assert raw.one("set", "b.txt", tmp_path) is None
    assert not observed.changed(files, tmp_path)
    file.write_text("1")
    assert not observed.changed(files, tmp_path)
    file.write_text("2")
    assert observed.changed(files, tmp_path) == ["set/a.txt"]
    file.unlink()
    assert observed.changed(files, tmp_path) == ["set/a.txt"]
    file.write_text("1")
    (tmp_path / "set" / "b.txt").write_text("")
    assert observed.changed(files, tmp_path) == ["set/b.txt"]


def test_files_that_come_with_a_data_directory_or_a_download_are_changes(tmp_path, monkeypatch, no_network):
    with observed.observing(None) as files, monkeypatch.context() as context:
        context.setattr(raw, "data_dir", lambda explicit: None)
        with pytest.raises(DataError):
            raw.find("set", ["a.npz"], [raw.Source("https://example.org/b.txt", "0")])
    assert files == {"set/a.npz": None, "set/b.txt": None, "cache:set/b.txt": None}
    assert not observed.changed(files, tmp_path)
    (tmp_path / "cache" / "raw" / "set").mkdir(parents=True)
    (tmp_path / "cache" / "raw" / "set" / "b.txt").write_text("1")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.npz").write_text("1")
    assert observed.changed(files, tmp_path) == ["set/a.npz", "cache:set/b.txt"]
    assert observed.changed(files, None) == ["cache:set/b.txt"]


def test_a_file_of_ones_own_is_noted_by_its_path(tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("user,item\na,x\na,y\n")
    with observed.observing(tmp_path / "elsewhere") as files:
        interactions.from_table(table)
    assert files == {str(table): observed.digest(table)}


def test_observers_are_independent_and_end_with_their_block(tmp_path):
    (tmp_path / "a").write_text("")
    with observed.observing(tmp_path) as outer, observed.observing(tmp_path) as inner:
        observed.note(tmp_path / "a")
    observed.note(tmp_path / "b")
    assert outer.keys() == inner.keys() == {"a"}
