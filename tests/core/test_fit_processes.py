"""Two processes train one model into one workdir."""

import json
import os
import subprocess
import sys

from tests.core.test_parallel import ROOT, finish, free_port


def test_two_processes_share_a_workdir_and_resume_to_the_same_bits(tmp_path):
    cluster = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.core.two_fits", str(tmp_path)]
    processes = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **cluster, "JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        first, second = [finish(process)[-1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert first == second
    assert first["resumed"] == first["whole"]
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [5, 10, 15]
