"""A training process to be killed: ``python -m tests.core.fit_process WORKDIR sampler|iterator``.

Prints a digest of the final state and of the history; sleeps a little per chunk so that a kill finds it at work.
"""

import hashlib
import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import tests.conftest  # noqa: F401 - as many devices as in the tests, for the same bits
from core.errors import Preempted
from core.fit import EXIT_PREEMPTED, fit
from core.learner import gradient_learner, with_ema, with_sampler

STEPS, CHUNK, EVERY = 240, 6, 12
DATA = {"x": np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)}


class Windows:
    """Host batches which can say where they are."""

    def __init__(self):
        self.position = 0

    def __next__(self):
        self.position += 1
        return {"x": np.roll(DATA["x"], 7 * self.position, axis=0)[:8]}

    def get_state(self):
        return {"position": self.position}

    def set_state(self, state):
        self.position = state["position"]


def loss(params, key, batch):
    noise = 0.01 * jax.random.normal(key, batch["x"].shape)
    hidden = jnp.tanh((batch["x"] + noise) @ params["in"])
    return jnp.mean((hidden @ params["out"] - batch["x"][:, 0]) ** 2), {"width": jnp.mean(jnp.abs(hidden))}


def init(key, batch):
    one, two = jax.random.split(key)
    return {"in": jax.random.normal(one, (4, 16)), "out": jax.random.normal(two, (16,))}


def draw(data, key, step):
    return {"x": data["x"][jax.random.randint(jax.random.fold_in(key, step), (8,), 0, 64)]}


def train(workdir, kind: str, *, steps: int = STEPS, pause: float = 0.0, evaluate_every: int = 24):
    learner = with_ema(gradient_learner(init, loss, optax.adam(3e-3)), 0.9)
    data = Windows() if kind == "iterator" else DATA
    learner = learner if kind == "iterator" else with_sampler(learner, draw)
    learner = learner._replace(init=jax.jit(learner.init))  # a process to be killed should be at work soon
    return fit(
        learner,
        data,
        key=jax.random.key(7),
        steps=steps,
        workdir=workdir,
        chunk=CHUNK,
        checkpoint_every=EVERY,
        evaluate=lambda state: {"norm": jnp.linalg.norm(state.ema["out"])},
        evaluate_every=evaluate_every,
        identity={"kind": kind},
        progress=lambda done, total: time.sleep(pause),
    )


def digest(result) -> str:
    leaves = [
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        for x in jax.tree.leaves(result.state)
    ]
    text = b"".join(np.asarray(leaf).tobytes() for leaf in leaves) + json.dumps(result.history).encode()
    return hashlib.sha256(text).hexdigest()


if __name__ == "__main__":
    try:
        print(digest(train(sys.argv[1], sys.argv[2], pause=float(sys.argv[3]))), flush=True)
    except Preempted as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(EXIT_PREEMPTED)
