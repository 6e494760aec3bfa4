"""Four virtual CPU devices for every test, and compilers in a hurry: most of the time of short tests goes to them.

What was compiled is kept for the next run (RELIC_COMPILATION_CACHE=off: it is not).

Examples of properties are the same in every run: what a run says depends on the code alone.

`make test-all` compiles as users do (JAX_DISABLE_MOST_OPTIMIZATIONS=0) and looks for new examples.
"""

import gc
import os

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # processes that tests start inherit it
os.environ.setdefault("NPROC", "16")  # threads of XLA; as few as devices may wait for each other forever

import hypothesis
import jax
import pytest

from core.compilation import keep_compiled

hypothesis.settings.register_profile("same examples", derandomize=True)
hypothesis.settings.load_profile("same examples")
jax.config.update("jax_num_cpu_devices", 4)
keep_compiled()
gc.set_threshold(20_000, 20, 100)  # compiled programs live on, and to search them over and over takes time


@pytest.fixture
def full_compilation():
    """For tests that compute longer than they compile."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
