import os
import subprocess
import sys

import pytest

import core


@pytest.mark.parametrize("mine", ["", f"{core.FLAG}=", "--xla_cpu_enable_fast_math=false"])
def test_the_choice_of_fusions_is_made_unless_the_user_made_one(mine):
    code = "import core, os; print(os.environ.get('XLA_FLAGS', ''))"
    found = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "XLA_FLAGS": mine}, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert found == (mine if core.FLAG in mine else f"{mine} {core.FLAG}={core.KINDS}".strip())


@pytest.mark.parametrize(
    ("mine", "threads"),
    [
        ({"JAX_NUM_CPU_DEVICES": "4"}, 16),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}, 32),
        ({"JAX_NUM_CPU_DEVICES": "4", "NPROC": "5"}, 5),
        ({"JAX_NUM_CPU_DEVICES": "1"}, None),
        ({}, None),
    ],
)
def test_virtual_devices_get_more_threads_than_there_are_of_them(mine, threads):
    kept = {name: value for name, value in os.environ.items() if name not in ("NPROC", "JAX_NUM_CPU_DEVICES")}
    code = "import core, os; print(os.environ.get('NPROC', ''))"
    found = subprocess.run(
        [sys.executable, "-c", code], env={**kept, **mine}, capture_output=True, text=True, check=True
    ).stdout.strip()
    if threads is None:
        assert not found
    else:
        assert int(found) == threads if "NPROC" in mine else int(found) >= threads


DEVICES_AT_WORK = """
import core, jax, jax.numpy as jnp, os, sys, threading, time

steps = 0

def watch():
    before = -1
    while before < steps:
        before = steps
        time.sleep(15)
    os._exit(3)

threading.Thread(target=watch, daemon=True).start()
multiplied = jax.pmap(lambda x: jax.lax.psum(jnp.tanh(x @ x), "devices"), axis_name="devices")
averaged = jax.pmap(lambda x: [jax.lax.pmean(x * i, "devices") for i in range(6)], axis_name="devices")
start = time.monotonic()
while time.monotonic() - start < 40:
    found = averaged(multiplied(jnp.ones((4, 32, 32))))
    [leaf[0] for leaf in found]
    steps += 1
os._exit(0)
"""


@pytest.mark.slow
def test_devices_of_busy_processes_never_wait_for_each_other_forever():
    changed = {"JAX_NUM_CPU_DEVICES": "4", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    kept = {name: value for name, value in os.environ.items() if name != "NPROC"} | changed
    processes = [subprocess.Popen([sys.executable, "-c", DEVICES_AT_WORK], env=kept) for _ in range(6)]
    assert [process.wait(timeout=300) for process in processes] == [0] * 6
