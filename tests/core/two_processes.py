"""Trains on all devices of all processes and prints what came out; run by test_parallel.py.

``python -m tests.core.two_processes DEVICES FOLDER``
"""

import sys

import jax

jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))

from core.parallel import data_mesh, data_parallel, initialize, is_primary, shard_batch  # noqa: E402

initialize()

import json  # noqa: E402
from pathlib import Path  # noqa: E402

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

from core.batches import GrainBatches  # noqa: E402
from core.errors import CheckpointError, ConfigError  # noqa: E402
from core.fit import fit  # noqa: E402
from core.learner import gradient_learner, replicate_seeds, seed_keys  # noqa: E402
from tests.examples import EXAMPLES, regression  # noqa: E402

FOLDER = Path(sys.argv[2])
NUMBERS = np.random.default_rng(0).normal(50, 20, size=(32, 3)).astype(np.float32)
BATCH = 8


def by_hand():
    """Steps on a mesh, every process with its share of the batch."""
    example = regression()
    share = len(example.batch["y"]) // jax.process_count()
    mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
    batch = {**example.batch, "x": np.asarray(example.batch["x"])[mine], "y": np.asarray(example.batch["y"])[mine]}
    mesh = data_mesh()
    learner = data_parallel(example.learner, mesh, example.batch_axes)
    batch = shard_batch(batch, mesh, example.batch_axes)
    state = learner.init(example.key, batch)
    for _ in range(5):
        state, _ = learner.update(state, batch)
    return state.params


def centre(batch_axes=0):
    """The mean of the examples, by gradient steps."""

    def loss(params, key, batch):
        return jnp.mean((batch - params) ** 2), {}

    return gradient_learner(lambda key, batch: jnp.zeros(3), loss, optax.sgd(0.3), batch_axes=batch_axes)


def from_the_host(learner, **where):
    """Fits batches which every process draws its share of."""
    batches = GrainBatches(NUMBERS, BATCH // jax.process_count())
    return fit(learner, batches, key=jax.random.key(0), steps=6, chunk=2, **where).state.params


def of_example(name, runs=0, steps=3, **where):
    """Fits a learner of tests/examples.py, or a pool of it."""
    example = EXAMPLES[name]()
    learner = replicate_seeds(example.learner, runs) if runs else example.learner
    key = seed_keys(range(runs)) if runs else example.key
    return fit(learner, example.batch, key=key, steps=steps, chunk=2, **where).state.params


def resumed():
    """Two halves of a run with a folder that all processes share."""
    of_example("regression", 2, 2, workdir=FOLDER / "pool")
    return of_example("regression", 2, 4, workdir=FOLDER / "pool")


def refused():
    """What cannot be laid out, or asked of another run's folder, is refused in every process."""
    found = []
    for ask in (
        lambda: from_the_host(centre(None)),
        lambda: of_example("regression", 2, 4, workdir=FOLDER / "pool", identity={"another": True}),
        lambda: fit(centre(), NUMBERS + jax.process_index(), key=jax.random.key(0), steps=1),
    ):
        try:
            ask()
        except (ConfigError, CheckpointError) as error:
            found.append(str(error))
    return found


def main() -> None:
    parts = {
        "by hand": by_hand,
        "host batches on a mesh": lambda: from_the_host(data_parallel(centre(), data_mesh())),
        "host batches": lambda: from_the_host(centre()),
        "edges": lambda: of_example("lightgcn"),
        "a pool": lambda: of_example("regression", 4),
        "resumed": resumed,
        "whole": lambda: of_example("regression", 2, 4),
    }
    found = {
        name: np.concatenate([np.ravel(x) for x in jax.tree.leaves(part())]).tolist() for name, part in parts.items()
    }
    messages = refused()
    print(json.dumps({"refused": messages}))
    if is_primary():
        print(json.dumps({"devices": jax.device_count(), "found": found}))


main()
