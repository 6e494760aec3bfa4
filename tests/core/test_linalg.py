import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from core.linalg import of_each_matrix


def test_each_matrix_is_decomposed_as_it_would_be_alone():
    matrices = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5, 4)), jnp.float32)
    left, values, right = jax.jit(lambda x: of_each_matrix(lambda m: tuple(jnp.linalg.svd(m, full_matrices=False)), x))(
        matrices
    )
    assert left.shape == (2, 3, 5, 4)
    np.testing.assert_allclose(left * values[..., None, :] @ right, matrices, atol=1e-5)


MANY = """
import jax, jax.numpy as jnp, numpy as np
from core.linalg import of_each_matrix
rng = np.random.default_rng(0)
several = [jnp.asarray(rng.normal(size=(24, 32, 32)), jnp.float32) for _ in range(8)]
program = jax.jit(lambda xs: [of_each_matrix(lambda m: jnp.linalg.eigh(m + m.T)[0], x) for x in xs])
for _ in range(40):
    jax.block_until_ready(program(several))
"""


def test_many_decompositions_in_one_program_do_not_wait_for_each_other_for_ever():
    subprocess.run([sys.executable, "-c", MANY], check=True, timeout=120)
