"""Files of a run's work folder, which all its processes share."""

import re
from pathlib import Path

import numpy as np
import pytest

from core import workdir
from core.errors import CheckpointError
from experiments.lab import files, runs
from experiments.lab.looks import Looks

ROOT = Path(__file__).resolve().parents[3]


def test_a_page_is_written_by_the_first_process_only(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "is_primary", lambda: False)
    assert files.write_page(tmp_path / "pages" / "a.html", "text") == tmp_path / "pages" / "a.html"
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(files, "is_primary", lambda: True)
    assert files.write_page(tmp_path / "pages" / "a.html", "text").read_text() == "text"


def test_processes_with_equal_ids_write_the_same_file_side_by_side(tmp_path):
    path = tmp_path / "folder" / "a.npy"
    with workdir.replacing(path) as first:
        np.save(first, np.zeros(1000))
        with workdir.replacing(path) as second:
            np.save(second, np.ones(1000))
        assert np.load(path).all()
    assert not np.load(path).any()
    with pytest.raises(TypeError), workdir.replacing(path) as third:
        third.writelines([b"a part", None])
    assert not np.load(path).any()
    assert [each.name for each in path.parent.iterdir()] == ["a.npy"]


def test_arrays_of_a_step_are_read_as_they_were_kept(tmp_path):
    looks, tree = Looks(tmp_path), {"a": np.arange(3.0), "b": (np.ones((2, 2)),)}
    looks.keep(5, tree)
    back = looks.read(5, tree)
    np.testing.assert_array_equal(back["a"], tree["a"])
    np.testing.assert_array_equal(back["b"][0], tree["b"][0])
    with pytest.raises(CheckpointError, match="no arrays of step 6"):
        looks.read(6, tree)


def test_no_module_names_temporary_files_by_process_ids():
    found = [path for path in (ROOT / "experiments").rglob("*.py") if re.search(r"\bgetpid\b", path.read_text())]
    assert not found, "ids of processes in containers are equal: use core.workdir"


def test_texts_of_the_framework_are_replaced_in_one_piece(tmp_path):
    runs.write(tmp_path / "new" / "a.txt", "one")
    runs.write(tmp_path / "new" / "a.txt", "two")
    assert (tmp_path / "new" / "a.txt").read_text() == "two"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]
