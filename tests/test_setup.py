"""The two commands: set-up is done once, repaired when interrupted, and a run without tests fails."""

import collections
import os
import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from experiments.lab import peers

ROOT = Path(__file__).resolve().parents[1]

# Stands in for the interpreter: makes a "virtual environment" whose python notes what it is asked to install.
STUB = """#!/bin/sh
case "$*" in
  *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo created >> calls ;;
  *"pip --version"*) exit 0 ;;
  *--require-hashes*) echo installed >> calls; test ! -e no-network ;;
  *"pip install"*) case "$*" in *--no-deps*--no-build-isolation*) ;; *) exit 1 ;; esac ;;
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


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


LOCKS = {"test": "requirements.lock"} | {
    extra: f"requirements-{extra}.lock" for extra in ("peers", "docs", "gpu", "tpu")
}


def locked(extra: str) -> list[tuple[Requirement, list[str]]]:
    """Packages of a lock file and the digests of each."""
    text = re.sub(r"^#.*\n", "", (ROOT / LOCKS[extra]).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(" --hash=") for line in text.splitlines()]
    return [(Requirement(line[0].strip()), [digest.strip() for digest in line[1:]]) for line in lines]


def pins(machine: str, extra: str = "test") -> dict[str, str]:
    """Versions of a lock file for a kind of machine."""
    pinned, environment = [package for package, _ in locked(extra)], {"platform_machine": machine}
    return {canonical(p.name): str(p.specifier) for p in pinned if not p.marker or p.marker.evaluate(environment)}


@pytest.mark.parametrize("extra", LOCKS)
def test_everything_that_is_asked_for_is_pinned_to_a_version_that_was_asked_for(extra):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    more = [*extras["test"], *extras["lm"]] if extra == "test" else extras[extra]
    pinned = pins("x86_64", extra)
    for asked in map(Requirement, [*project["dependencies"], *more]):
        if asked.name != "relic":
            assert asked.specifier.contains(pinned[canonical(asked.name)].removeprefix("==")), asked


@pytest.mark.parametrize("extra", LOCKS)
def test_every_package_is_installed_only_if_it_has_a_known_digest(extra):
    for package, digests in locked(extra):
        assert str(package.specifier).startswith("=="), package
        assert digests, package
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in digests), package


def test_make_installs_nothing_without_comparing_digests():
    installs = re.findall(r"^.*\$\(PIP_INSTALL\).*$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(installs) == 2
    assert all("--require-hashes" in line or "--no-deps --no-build-isolation --editable ." in line for line in installs)


def test_one_version_of_a_package_serves_all_extras():
    versions: dict[str, set[str]] = collections.defaultdict(set)
    for extra in LOCKS:
        for name, version in pins("x86_64", extra).items():
            versions[name].add(version)
    assert not {name: found for name, found in versions.items() if len(found) > 1}


@pytest.mark.parametrize("machine", ["x86_64", "arm64", "aarch64"])
def test_torch_and_torchvision_are_pinned_to_releases_made_for_each_other(machine):
    """Torch 2.n goes with torchvision 0.(n + 15); kronfluence asks for the latter and takes any."""
    torch, torchvision = (
        pins(machine, "peers")[name].removeprefix("==").split(".") for name in ("torch", "torchvision")
    )
    assert int(torch[1]) + 15 == int(torchvision[1])


def test_peers_that_are_installed_and_cannot_be_imported_are_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "good_peer.py").touch()
    (tmp_path / "bad_peer.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(peers, "names", lambda: ["good_peer", "bad_peer", "absent_peer"])
    assert peers.main() == 1
    out, err = capsys.readouterr()
    assert "good_peer" in out
    assert "bad_peer (not installed) cannot be imported (RuntimeError: operator torchvision::nms" in out
    assert "absent_peer" in out
    assert "install them from one index" in err
    monkeypatch.setattr(peers, "names", lambda: ["good_peer"])
    assert peers.main() == 0


def test_make_peers_ends_by_importing_them(project):
    """With a stand-in for the interpreter that cannot import anything."""
    assert install(project).returncode == 0
    write_program(project / ".venv/bin/python", '#!/bin/sh\ncase "$*" in *experiments.lab.peers) exit 1 ;; esac\n')
    result = subprocess.run(["make", "peers"], cwd=project, capture_output=True, text=True, check=False)
    assert result.returncode != 0


def test_no_registry_address_is_pinned():
    for name in (*LOCKS.values(), "pyproject.toml", "Makefile"):
        assert "://" not in (ROOT / name).read_text().replace("https://github.com", "")
