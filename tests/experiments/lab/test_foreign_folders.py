"""A folder of runs that came from others runs none of its code, and nothing is written outside of it."""

import contextlib
import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from core import documents
from core.errors import ConfigError, DataError
from experiments.lab import ledger, registry, report, runs
from experiments.lab.cli import main
from experiments.lab.registry import Found
from tests.experiments.toy import SYSTEM, quick_run

TOY = "tests.experiments.toy"
OPTIONAL = ("bottleneck", "numexpr", "numba", "tables", "pyarrow_hotfix", "torch", "tensorflow", "cupy", "sksparse",
            "xarray", "zarr", "google_crc32c", "IPython", "psutil_extra", "colorama", "pydantic", "attr_extra",
            "omegaconf", "shtab", "uvloop", "orjson", "ujson", "boto3", "gcsfs", "tqdm_extra")  # fmt: skip
"""Names of optional dependencies that libraries try to import."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    quick_run(folder, seeds=(0, 1))
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """The current folder, with runs of the toy in ``runs``."""
    shutil.copytree(made, tmp_path / "here" / "runs")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def rewrite(path: Path, **changes) -> None:
    path.write_text(documents.sealed(json.dumps(documents.read(path) | changes)))


def trap(path: Path, mark: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"with open({str(mark)!r}, 'a') as mark:\n    mark.write(__name__ + ' ')\nSYSTEM = None\n")


@pytest.mark.parametrize(
    "module", ["evil", "dccf", "evilpackage.paper", "experiments.evil", "os", "antigravity", "a/../evil"]
)
@pytest.mark.parametrize("command", [["table"], ["report"]])
def test_a_module_that_only_a_file_names_is_not_imported(module, command, place, capsys):
    mark = place / "mark"
    for name in ("evil.py", "dccf.py", "evilpackage/__init__.py", "evilpackage/paper.py", "experiments/evil.py"):
        trap(place / name, mark)
    rewrite(place / "runs" / "toy" / "small" / runs.INFO, module=module)
    before = set(sys.modules)
    assert main([*command, "runs"]) == 2
    assert f"does not know module '{module}'" in capsys.readouterr().err.replace('"', "'")
    assert not mark.exists()
    assert not {name for name in set(sys.modules) - before if "evil" in name}


def test_a_module_that_the_user_names_is_found_in_the_current_folder_and_nothing_beside_it(place, monkeypatch, capsys):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    trap(place / "mylabx" / "__init__.py", place / "mark")
    (place / "mylabx" / "paper.py").write_text("import mylabx.parts\nfrom tests.experiments.toy import SYSTEM\n")
    (place / "mylabx" / "parts.py").touch()
    (place / "mylabx" / "broken.py").write_text("import bottlenecky\n")
    trap(place / "bottlenecky.py", place / "never")
    path = list(sys.path)
    try:
        assert registry.load("mylabx.paper").system.slug == "toy"
        assert registry.of_module("mylabx.paper").module == "mylabx.paper"
        assert main(["table", "mylabx.broken"]) == 2
        assert "nothing but mylabx is looked at" in capsys.readouterr().err
    finally:
        for name in [name for name in sys.modules if name.startswith("mylabx")]:
            del sys.modules[name]
        registry._own.pop("mylabx.paper", None)
    assert (place / "mark").read_text() == "mylabx "
    assert not (place / "never").exists()
    assert sys.path == path


def test_a_system_that_an_installed_package_offers_is_known(place, monkeypatch):
    monkeypatch.delitem(registry._own, TOY)
    with pytest.raises(ConfigError, match="no reason to import it"):
        runs.find("runs", Path("runs"))
    monkeypatch.setattr(registry, "_offered", lambda: {"toy": TOY})
    assert [run.system.slug for run in runs.find("runs", Path("runs"))] == ["toy"]
    assert registry.load("toy").module == TOY


def test_a_system_that_is_none_is_refused(place, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    (place / "mylaby").mkdir()
    (place / "mylaby" / "paper.py").write_text("SYSTEM = 5\n")
    with pytest.raises(ConfigError, match="a SYSTEM that is no System but int"):
        registry.load("mylaby.paper")
    del sys.modules["mylaby.paper"]


@pytest.mark.parametrize("start", [pytest.param("module", marks=pytest.mark.slow), "script"])
def test_no_file_of_the_current_folder_is_executed(start, place):
    """Whatever its name: of a library that imports it if it is there, or of one of ours."""
    names = [name for name in OPTIONAL if importlib.util.find_spec(name) is None]
    assert {"bottleneck", "numexpr"} & set(names)
    for name in (*names, "sitecustomize_", "usercustomize_"):
        trap(place / f"{name}.py", place / "mark")
    (place.parent / "relic").write_text("import sys\nfrom experiments.lab.cli import main\nsys.exit(main())\n")
    command = ["-m", "experiments.lab.cli"] if start == "module" else [str(place.parent / "relic")]
    environment = os.environ | {"PYTHONPATH": str(ledger.ROOT)}
    arguments = ["claims", "jepa_linear", "--workdir", "runs"]
    result = subprocess.run([sys.executable, *command, *arguments], env=environment, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    assert not (place / "mark").exists(), (place / "mark").read_text()


LINKS = ("toy", "toy/small", "toy/small/figures", "toy/small/figures/loss.png", "toy/small/figures/loss.pdf",
         "toy/small/records.jsonl", "toy/small/run.json", "toy/small/code.json", "toy/small/work",
         "report.html", "toy/report.html", "toy/small/report.html")  # fmt: skip


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("link", LINKS)
def test_nothing_is_written_through_a_link(link, place, monkeypatch):
    quickly_drawn = dataclasses.replace(SYSTEM, figures=lambda frame: {"loss": Figure((1, 1))})
    monkeypatch.setitem(registry._own, TOY, Found(quickly_drawn, TOY))
    outside, inside = place.parent / "outside", place / "runs" / link
    outside.mkdir()
    target = outside / inside.name
    if inside.exists():
        shutil.move(inside, target)
    elif "." in inside.name:
        target.write_text("the user's own")
    else:
        target.mkdir()
    inside.parent.mkdir(parents=True, exist_ok=True)
    inside.symlink_to(target)
    before = contents(outside)
    assert main(["report", str(inside.parent if inside.suffix == ".html" else "runs")]) in (0, 2)
    assert contents(outside) == before
    with contextlib.suppress(ConfigError, DataError):
        quick_run(place / "runs", seeds=(0, 1, 2))
    assert contents(outside) == before


def test_a_figure_is_saved_in_its_folder_whatever_its_name(made, tmp_path, monkeypatch):
    run = runs.read(shutil.copytree(made, tmp_path / "a" / "runs") / "toy" / "small")
    system = dataclasses.replace(run.system, figures=lambda frame: {"../../../../x/y": Figure((1, 1))})
    [picture] = report.pictures(dataclasses.replace(run, system=system), tmp_path / "report.html")
    assert picture.file.parent == run.folder / "figures"
    assert not (tmp_path / "x").exists()


def test_a_pipe_in_place_of_a_file_is_not_waited_for(place):
    path = place / "runs" / "toy" / "small" / runs.RECORDS
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="no regular file"):
        runs.read(path.parent)
