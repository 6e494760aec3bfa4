"""Options of the compiler are set for a block and no longer; what was compiled is read from disk thereafter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from core import compilation
from core.compilation import keep_compiled, quick_compilation

ROOT = Path(__file__).resolve().parents[2]
NAME = "jax_disable_most_optimizations"
SWITCHES = ("RELIC_COMPILATION_CACHE", "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")


@pytest.mark.parametrize(("variable", "quick"), [(None, True), ("0", False)])
def test_quick_compilation_lasts_for_a_block(monkeypatch, full_compilation, variable, quick):
    monkeypatch.delenv(NAME.upper(), raising=False)
    if variable is not None:
        monkeypatch.setenv(NAME.upper(), variable)
    with quick_compilation():
        assert jax.config.read(NAME) is quick
    assert jax.config.read(NAME) is False


def compiled(*options: str, **environment: str) -> dict:
    """What a process of its own says of the programs that it runs."""
    env = {name: value for name, value in os.environ.items() if name not in SWITCHES} | environment
    command = [sys.executable, *options, "-m", "tests.core.compiled_process"]
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def test_a_second_process_compiles_what_calls_back_to_python_only_and_gets_the_same_bits(tmp_path):
    """Then also with damaged entries, which are compiled again though warnings are errors."""
    first, second = (compiled(RELIC_COMPILATION_CACHE=str(tmp_path)) for _ in range(2))
    assert second["results"] == first["results"]
    assert (first["read"], second["compiled"], second["read"]) == (0, 1, first["compiled"] - 1)
    kept = list(Path(first["folder"]).glob("*-cache"))
    assert len(kept) == second["read"]
    for path in kept[::2]:
        path.write_bytes(path.read_bytes()[:50])
    for path in kept[1::2]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    third = compiled("-W", "error", RELIC_COMPILATION_CACHE=str(tmp_path))
    assert (third["results"], third["read"]) == (first["results"], 0)


@pytest.fixture
def unset(monkeypatch):
    """JAX's setting as a new process finds it."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_programs_are_kept_in_the_cache_folder_of_the_user_apart_for_each_processor(unset, tmp_path, monkeypatch):
    monkeypatch.setenv("RELIC_CACHE", str(tmp_path))
    first = keep_compiled()
    assert first is not None
    assert first.parent == tmp_path / "compiled"
    assert jax.config.jax_compilation_cache_dir == str(first)
    monkeypatch.setenv("RELIC_COMPILATION_CACHE", str(tmp_path / "other"))
    assert keep_compiled() == first
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(compilation, "processor", lambda: "another")
    assert keep_compiled() == tmp_path / "other" / "another"


def test_the_switch_and_a_folder_that_cannot_be_written_leave_programs_unkept(unset, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("RELIC_COMPILATION_CACHE", "off")
    assert keep_compiled() is None
    assert not caplog.messages
    (tmp_path / "a file").touch()
    monkeypatch.setenv("RELIC_COMPILATION_CACHE", str(tmp_path / "a file" / "below"))
    assert keep_compiled() is None
    assert jax.config.jax_compilation_cache_dir is None
    assert "RELIC_COMPILATION_CACHE=DIR" in caplog.text


def test_a_setting_of_jax_wins(unset, tmp_path, monkeypatch):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    monkeypatch.setenv("RELIC_COMPILATION_CACHE", "off")
    assert keep_compiled() == tmp_path


def test_beyond_its_limit_the_cache_loses_what_was_used_least_recently(unset, tmp_path, monkeypatch):
    monkeypatch.setenv("RELIC_COMPILATION_CACHE", str(tmp_path))
    monkeypatch.setattr(compilation, "CACHE_BYTES", 1000)
    folder = tmp_path / compilation.processor()[:12]
    folder.mkdir()

    def kept(sizes):
        for age, size in enumerate(sizes):
            (folder / f"{age}-cache").write_bytes(bytes(size))
            os.utime(folder / f"{age}-cache", (1e9 - age, 1e9))
        jax.config.update("jax_compilation_cache_dir", None)
        keep_compiled()
        return sorted(path.name[0] for path in folder.iterdir())

    assert kept([250] * 4) == ["0", "1", "2", "3"]
    assert kept([250] * 5) == ["0", "1", "2"]
