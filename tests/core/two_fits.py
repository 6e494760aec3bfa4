"""Fits on a mesh over two processes, stopped and resumed; prints what came of it; run by test_fit_processes.py."""

import sys

import jax

jax.config.update("jax_num_cpu_devices", 1)

from core.parallel import data_mesh, data_parallel, initialize, shard_batch  # noqa: E402

initialize()

import hashlib  # noqa: E402
import json  # noqa: E402

import numpy as np  # noqa: E402

from core.fit import fit  # noqa: E402
from tests.examples import regression  # noqa: E402


def share(leaf):
    return np.split(np.asarray(leaf), jax.process_count())[jax.process_index()]


def main(workdir: str) -> None:
    example, mesh = regression(), data_mesh()
    batch = {**example.batch, "x": share(example.batch["x"]), "y": share(example.batch["y"])}
    batch = shard_batch(batch, mesh, example.batch_axes)
    learner = data_parallel(example.learner, mesh, example.batch_axes)

    def train(steps, workdir):
        state, history = fit(learner, batch, key=example.key, steps=steps, workdir=workdir, chunk=5, checkpoint_every=5)
        leaves = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state.params))
        return hashlib.sha256(leaves).hexdigest(), history

    whole = train(15, None)
    train(10, workdir)
    print(json.dumps({"resumed": train(15, workdir), "whole": whole}))


main(sys.argv[1])
