"""Trains a small net on a mesh over all processes and prints its parameters; run by test_parallel.py."""

import sys

import jax

jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))

from core.parallel import data_mesh, data_parallel, initialize, is_primary, shard_batch  # noqa: E402

initialize()

import json  # noqa: E402

import numpy as np  # noqa: E402

from tests.examples import regression  # noqa: E402


def main() -> None:
    example = regression()
    share = len(example.batch["y"]) // jax.process_count()
    mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
    batch = {**example.batch, "x": np.asarray(example.batch["x"])[mine], "y": np.asarray(example.batch["y"])[mine]}
    mesh = data_mesh()
    learner = data_parallel(example.learner, mesh, example.batch_axes)
    batch = shard_batch(batch, mesh, example.batch_axes)
    state = learner.init(example.key, batch)
    for _ in range(5):
        state, metrics = learner.update(state, batch)
    if is_primary():
        params = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.params)])
        print(json.dumps({"params": params.tolist(), "loss": float(metrics["loss"]), "devices": jax.device_count()}))


main()
