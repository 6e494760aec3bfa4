import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from core.errors import ConfigError
from core.learner import gradient_learner, with_sampler
from core.loop import scan_steps
from core.parallel import data_mesh, data_parallel, initialize, pmap_parallel, unreplicate
from tests.examples import regression

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def example():
    return regression()


def test_a_mesh_gives_the_data_axis_what_other_axes_leave():
    assert dict(data_mesh(model=2).shape) == {"data": 2, "model": 2}
    with pytest.raises(ConfigError, match="multiple of 3"):
        data_mesh(model=3)


def test_rules_shard_parameters_and_their_moments_by_path(example):
    rules = [("Dense_0/kernel$", P(None, "model")), ("Dense_0/bias$", P("model"))]
    learner = data_parallel(example.learner, data_mesh(model=2), example.batch_axes, rules)
    state = learner.init(example.key, example.batch)
    state, _ = learner.update(state, example.batch)
    kernel = state.params["params"]["Dense_0"]["kernel"]
    moment = next(
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
        if jax.tree_util.keystr(path, simple=True, separator="/").endswith("mu/params/Dense_0/kernel")
    )
    assert kernel.sharding.spec == moment.sharding.spec == P(None, "model")
    assert state.params["params"]["Dense_1"]["kernel"].sharding.is_fully_replicated
    plain = jax.jit(example.learner.update)(example.learner.init(example.key, example.batch), example.batch)[0]
    np.testing.assert_allclose(kernel, plain.params["params"]["Dense_0"]["kernel"], rtol=1e-5)


@pytest.mark.parametrize(
    ("rule", "message"), [(("Dense_1/bias", P("data")), "does not divide"), (("bias", P(None, "data")), "2 axes")]
)
def test_a_rule_that_does_not_fit_names_the_parameter(example, rule, message):
    learner = data_parallel(example.learner, data_mesh(), example.batch_axes, [rule])
    with pytest.raises(ConfigError, match=rf"bias.*{message}|{message}.*bias"):
        learner.init(example.key, example.batch)


def test_state_is_donated_on_the_mesh(example):
    learner = data_parallel(example.learner, data_mesh(), example.batch_axes)
    before = learner.init(example.key, example.batch)
    learner.update(before, example.batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))


def draw(data, key, step):
    index = jax.random.randint(jax.random.fold_in(key, step), (8,), 0, 16)
    return {**data, "x": data["x"][index], "y": data["y"][index]}


def test_a_scanned_learner_with_its_own_sampler_runs_under_pmap_and_on_a_mesh(example):
    sampled = with_sampler(example.learner, draw, example.batch_axes)
    single, _ = jax.jit(scan_steps(sampled, 4).update)(sampled.init(example.key, example.batch), example.batch)
    replicas = pmap_parallel(scan_steps(sampled, 4), None)
    state, _ = replicas.update(replicas.init(example.key, example.batch), example.batch)
    on_mesh = scan_steps(
        with_sampler(data_parallel(example.learner, data_mesh(), example.batch_axes), draw, example.batch_axes), 4
    )
    mesh_state, _ = jax.jit(on_mesh.update)(on_mesh.init(example.key, example.batch), example.batch)
    for a, b, c in zip(
        *map(jax.tree.leaves, (single.params, unreplicate(state).params, mesh_state.params)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-6)


def test_replicas_draw_distinct_noise():
    def loss(params, key, batch):
        noise = jax.random.normal(key)
        return jnp.sum(params) * 0.0 + jnp.sum(batch) * 0.0, {"square": noise**2, "noise": noise}

    learner = pmap_parallel(gradient_learner(lambda key, batch: jnp.zeros(2), loss, optax.sgd(0.1)))
    _, metrics = learner.update(learner.init(jax.random.key(0), jnp.zeros(8)), jnp.zeros(8))
    assert metrics["square"] > metrics["noise"] ** 2 + 1e-3


def test_a_batch_that_devices_cannot_share_equally_is_refused(example):
    learner = pmap_parallel(example.learner, example.batch_axes)
    state = learner.init(example.key, example.batch)
    odd = {**example.batch, "x": example.batch["x"][:6], "y": example.batch["y"][:6]}
    with pytest.raises(ConfigError, match="multiple of 4"):
        learner.update(state, odd)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(devices, folder, **variables):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", **variables}
    command = [sys.executable, "-m", "tests.core.two_processes", str(devices), str(folder)]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process) -> list:
    out, err = process.communicate(timeout=480)
    assert process.returncode == 0, err[-3000:]
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]  # Gloo announces itself there too


def test_two_processes_on_loopback_equal_one(tmp_path):
    cluster = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    processes = [start(2, tmp_path / "two", **cluster, JAX_PROCESS_ID=str(i)) for i in range(2)]
    (said, two), (also_said,) = map(finish, processes)
    _, one = finish(start(1, tmp_path / "one"))
    assert (two["devices"], one["devices"]) == (4, 1)
    for name, numbers in one["found"].items():
        np.testing.assert_allclose(two["found"][name], numbers, rtol=1e-4, atol=1e-6, err_msg=name)
    assert said == also_said
    no_axes, another_run, other_data = said["refused"]
    assert "does not say which of their leaves hold examples" in no_axes
    assert "belongs to another run" in another_run
    assert "differ in the data of a run" in other_data


def test_a_lone_process_stays_alone(monkeypatch):
    for name in ("SLURM_PROCID", "TPU_WORKER_HOSTNAMES", "KUBERNETES_SERVICE_HOST", "JAX_COORDINATOR_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert initialize() == 1


def test_half_a_cluster_description_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match="num_processes, process_id"):
        initialize(coordinator_address="127.0.0.1:1")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    with pytest.raises(ConfigError, match="JAX_NUM_PROCESSES must be a whole number"):
        initialize()
