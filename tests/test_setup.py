"""The two commands: set-up is done once, repaired when interrupted, and a run without tests fails."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Stands in for the interpreter: makes a "virtual environment" whose python notes what it is asked to install.
STUB = """#!/bin/sh
case "$*" in
  *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo created >> calls ;;
  *"pip --version"*) exit 0 ;;
  *"pip install"*) echo installed >> calls; test ! -e no-network ;;
  *--version*) echo Python 3.11.0 ;;
esac
"""


@pytest.fixture
def project(tmp_path):
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    write_program(tmp_path / "stub-python", STUB)
    return tmp_path


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def install(project: Path) -> subprocess.CompletedProcess:
    command = ["make", ".venv/.installed", f"PYTHON={project}/stub-python"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


def calls(project: Path) -> list[str]:
    return (project / "calls").read_text().split()


def test_a_second_run_installs_nothing(project):
    assert install(project).returncode == 0
    assert install(project).returncode == 0
    assert calls(project) == ["created", "installed"]


def test_changed_pins_are_installed_into_the_same_environment(project):
    install(project)
    later = os.stat(project / ".venv/.installed").st_mtime + 5
    os.utime(project / "requirements.lock", (later, later))
    assert install(project).returncode == 0
    assert calls(project) == ["created", "installed", "installed"]


def test_an_interrupted_install_starts_over(project):
    (project / "no-network").touch()
    assert install(project).returncode != 0
    (project / "no-network").unlink()
    assert install(project).returncode == 0
    assert calls(project) == ["created", "installed"] * 2


def test_a_machine_without_a_fitting_python_is_told_so(project):
    result = subprocess.run(
        ["make", ".venv/.installed", "PYTHON="], cwd=project, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "Python 3.11 or newer" in result.stderr


@pytest.mark.parametrize(
    ("recipe", "passes"),
    [("@echo '== 3 passed in 1.0s =='", True), ("@echo '== no tests ran in 0.1s =='", False), ("@false", False)],
)
def test_ci_fails_when_tests_fail_or_none_ran(tmp_path, recipe, passes):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / "Makefile").write_text(f"test:\n\t{recipe}\n")
    result = subprocess.run(["bash", ".ci/run"], cwd=tmp_path, capture_output=True, check=False)
    assert (result.returncode == 0) == passes


def test_no_registry_address_is_pinned():
    for name in ("requirements.lock", "pyproject.toml", "Makefile"):
        assert "://" not in (ROOT / name).read_text().replace("https://github.com", "")
