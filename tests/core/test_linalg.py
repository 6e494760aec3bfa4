import subprocess
import sys

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings

from core.linalg import minimum_norm, of_each_matrix


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


@given(st.integers(0, 10_000), st.integers(1, 5), st.lists(st.booleans(), min_size=5, max_size=5))
@settings(max_examples=25, deadline=None)
def test_the_minimum_norm_solution_is_that_of_the_pseudo_inverse_whatever_the_rank(seed, rank, kept):
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(n, rank)))[0] for n in (9, 5))
    X = left @ right.T * np.array(kept)
    H, c = X.T @ X, X.T @ rng.normal(size=9)
    with jax.enable_x64(True):
        found = np.asarray(minimum_norm(jnp.asarray(H), jnp.asarray(c)))
    np.testing.assert_allclose(found, np.linalg.pinv(H, rcond=1e-9, hermitian=True) @ c, rtol=1e-4, atol=1e-6)


def test_a_repeated_column_shares_its_coefficient():
    H, c = jnp.array([[2.0, 2.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 0.0]]), jnp.array([4.0, 4.0, 0.0])
    np.testing.assert_allclose(minimum_norm(H, c), [1.0, 1.0, 0.0], atol=1e-6)
