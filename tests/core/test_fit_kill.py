"""A run that is killed at any moment and started again is the run that was never killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.fit import EXIT_PREEMPTED
from tests.core.fit_process import digest, train

ROOT = Path(__file__).resolve().parents[2]


def start(workdir, kind, pause=0.06):
    command = [sys.executable, "-m", "tests.core.fit_process", str(workdir), kind, str(pause)]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until_training(workdir, process):
    """Returns when this process has logged a step (or has ended)."""
    log = Path(workdir, "metrics.jsonl")
    size = log.stat().st_size if log.exists() else 0
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if log.exists() and log.stat().st_size > size:
            return
        time.sleep(0.005)


def survive(workdir, kind, kills, seed):
    """Kills the run at ``kills`` random moments of training and checkpointing, then lets it end."""
    chance, killed = random.Random(seed), 0
    while killed < kills:
        process = start(workdir, kind)
        try:
            wait_until_training(workdir, process)
            time.sleep(chance.uniform(0.0, 0.35))
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert process.returncode == -signal.SIGKILL, f"the run ended before kill {killed + 1}; lengthen it"
        killed += 1
    out, err = start(workdir, kind, pause=0.0).communicate(timeout=300)
    assert out, err
    return out.strip()


@pytest.mark.parametrize(("kind", "kills"), [("sampler", 2), ("iterator", 1)])
def test_a_killed_run_ends_in_the_same_bits(kind, kills, tmp_path):
    assert survive(tmp_path, kind, kills, seed=kills) == digest(train(None, kind))


@pytest.mark.slow
@pytest.mark.timeout(1800)  # 25 processes, one after the other
@pytest.mark.parametrize("kind", ["sampler", "iterator"])
def test_a_run_killed_twenty_times_ends_in_the_same_bits(kind, tmp_path):
    expected, kills, seed = digest(train(None, kind)), 0, 0
    while kills < 20:
        assert survive(tmp_path / str(seed), kind, 4, seed) == expected
        kills, seed = kills + 4, seed + 1


def test_a_run_asked_to_stop_saves_exits_with_its_own_status_and_resumes(tmp_path):
    for number in (signal.SIGTERM, signal.SIGINT):
        process = start(tmp_path, "sampler")
        wait_until_training(tmp_path, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=300)
        assert process.returncode == EXIT_PREEMPTED, err
        assert "asked to stop: saved step" in err
    out, err = start(tmp_path, "sampler", pause=0.0).communicate(timeout=300)
    assert out.strip() == digest(train(None, "sampler")), err
