"""Invariant causal prediction on 12 variables, beside the package causalicp: the same tests, the same accepted sets.

2^11 subsets, 10 environments of 1,000 rows. Both start from rows in float64 and end in accepted sets, causes and
intervals; ours computes moments first and tests all subsets as one batch.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from causal import pac_invariance as pac
from causal.linear_sems import environments, moments_of, random_sem, sample, shift
from core.bench import BenchResult, Timing, first_call, peer_module
from core.errors import RelicError

D, ENVIRONMENTS, ROWS, TARGET, ALPHA = 12, 10, 1000, 11, 0.05
OURS, PEERS = 7, 1


def run() -> list[BenchResult]:
    """Seconds of a whole call.

    Raises:
      RelicError: where the two disagree.
    """
    causalicp = peer_module("causalicp")
    with jax.enable_x64(True):
        rows = draw()
        sets = pac.every_subset(D, TARGET)

        def fit(rows):
            moments = jax.vmap(moments_of)(rows)
            tests = pac.icp(moments, TARGET, sets)
            return tests.accepted(ALPHA), tests.causes(sets, ALPHA), pac.intervals(moments, tests, sets, ALPHA)

        start = time.perf_counter()
        compiled = jax.jit(fit).lower(rows).compile()
        compile_s = time.perf_counter() - start
        ours = Timing.of([first_call(lambda: compiled(jnp.asarray(rows))) for _ in range(OURS)])
        accepted = np.asarray(compiled(jnp.asarray(rows))[0])
    start = time.perf_counter()
    theirs = causalicp.fit(list(rows), TARGET, alpha=ALPHA)
    peer = Timing(time.perf_counter() - start)
    agree = {frozenset(np.flatnonzero(mask).tolist()) for mask in np.asarray(sets)[accepted]}
    if agree != {frozenset(map(int, s)) for s in theirs.accepted_sets}:
        raise RelicError("the accepted sets differ from those of causalicp")
    note = f"{len(sets)} subsets x {ENVIRONMENTS} environments, the same {len(agree)} accepted; one call of the peer"
    return [BenchResult.of("ICP, d = 12", ours, "causalicp", peer, compile_s, note)]


def draw() -> np.ndarray:
    """[environments, rows, d] with shifts of all nodes but the target."""
    sem = random_sem(jax.random.key(4), D)
    drawn = environments(shift(sem, jnp.arange(D) != TARGET, 1.0), jax.random.key(1), ENVIRONMENTS)
    keys = jax.random.split(jax.random.key(2), ENVIRONMENTS)
    return np.asarray(jax.vmap(lambda k, sem: sample(k, sem, ROWS))(keys, drawn))
