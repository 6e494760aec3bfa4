"""Every system gives the numbers of one device on four devices and on two processes joined by `relic run`."""

import functools
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core import records
from experiments.lab import registry
from tests.core.test_parallel import free_port

ROOT = Path(__file__).resolve().parents[3]
TIMES = ("seconds", "milliseconds", "megabytes", "overhead", "ratio of times")
"""Metrics that name what a machine took; no two runs agree on them."""
UNSTABLE = {
    "concept_space": ("toy release",),
    "recsae": ("principal components", "independent components"),
    "image_cate": ("sandwich", "sandwich, other images"),
}
"""Methods or metrics that differed when the tiny runs were first compared, while all else of the run agreed: components
and a fitted curve of few points, and intervals that are NaN or 0 with so few images. They are not compared."""
QUICK = ("dccf", "jepa_linear", "sae_family")
"""Systems whose runs compile little; the others are slow."""


def settings(slug: str) -> tuple[str, ...]:
    tiny = importlib.import_module(f"tests.experiments.{slug}")
    return getattr(tiny, "EVERYWHERE", None) or tiny.TINY


def command(slug: str, workdir: Path, *more: str) -> list[str]:
    chosen = [word for setting in settings(slug) for word in ("--set", setting)]
    start = [sys.executable, "-m", "experiments.lab.cli", "run", slug, "--preset", "smoke", "--seeds", "2"]
    return [*start, "--workdir", str(workdir), *chosen, *more]


def run(slug: str, workdir: Path, devices: int, processes: int = 1) -> dict:
    """The numbers of a run, by what they are of."""
    here = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    if processes > 1:
        here |= {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": str(processes)}
    started = [
        subprocess.Popen(
            command(slug, workdir, *["--distributed"] * (processes > 1)),
            cwd=ROOT,
            env=here | ({"JAX_PROCESS_ID": str(i)} if processes > 1 else {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]
    try:
        said = [process.communicate(timeout=1500)[1] for process in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert [process.returncode for process in started] == [0] * processes, "\n".join(text[-2000:] for text in said)
    (path,) = (workdir / slug).glob("*/records.jsonl")
    return {
        (r.dataset, r.method, r.metric, r.seed, json.dumps(dict(r.coords), sort_keys=True)): r.value
        for r in records.read(path)
        if r.metric
        and not any(word in f"{r.metric} {r.method}" for word in TIMES)
        and not {r.metric, r.method} & set(UNSTABLE.get(slug, ()))
    }


@functools.cache
def on_one_device(slug: str, workdir: Path) -> dict:
    return run(slug, workdir, 1)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("devices", "processes"), [(4, 1), (1, 2)], ids=["four devices", "two processes"])
@pytest.mark.parametrize(
    "slug", [pytest.param(slug, marks=[pytest.mark.slow] * (slug not in QUICK)) for slug in registry.available()]
)
def test_a_run_has_the_numbers_of_one_device(slug, devices, processes, tmp_path_factory):
    root = tmp_path_factory.getbasetemp() / f"one device {slug}"
    one = on_one_device(slug, root)
    many = run(slug, tmp_path_factory.mktemp("many"), devices, processes)
    assert many.keys() == one.keys()
    wrong = {
        key: (many[key], value) for key, value in one.items() if not np.isclose(many[key], value, 1e-3, 1e-4, True)
    }
    assert not wrong
