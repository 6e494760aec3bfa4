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
