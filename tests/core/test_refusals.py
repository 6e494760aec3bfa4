"""What training, batches and meshes refuse: one error that names the argument, before any work."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from core import digest
from core.batches import GrainBatches, epoch_sampler
from core.early_stopping import stop_by_validation
from core.errors import ConfigError, DataError
from core.fit import fit
from core.learner import accumulate, gradient_learner, replicate_seeds, seed_keys, with_ema, with_sampler
from core.loop import scan_steps
from core.parallel import data_mesh, data_parallel, initialize, pmap_parallel, shard_batch

X = {"x": np.ones((32, 3), np.float32), "y": np.ones(32, np.float32)}
KEY = jax.random.key(0)


def loss(params, key, batch):
    return jnp.mean((batch["x"] @ params - batch["y"]) ** 2), {}


def learner(loss=loss, **options):
    return gradient_learner(lambda key, batch: jnp.zeros(batch["x"].shape[1]), loss, optax.sgd(0.1), **options)


LEARNER = learner(batch_axes=0)


class Steps:
    """Batches of the host; the third is shorter."""

    def __init__(self, state=0):
        self.at = state

    def __next__(self):
        self.at += 1
        return jax.tree.map(lambda leaf: leaf[: 4 - (self.at == 3)], X)

    def get_state(self):
        return self.at

    def set_state(self, state):
        self.at = state


class Unsayable(Steps):
    def get_state(self):
        return {1, 2}

    def set_state(self, state):
        pass


def train(learner=LEARNER, data=X, **options):
    return fit(learner, data, **{"key": KEY, "steps": 4, "chunk": 2, **options})


def vector(params, key, batch):
    return (batch["x"] @ params - batch["y"]) ** 2, {}


def grain(*args, **options):
    return next(GrainBatches(*args, **options))


SOURCE = [{"x": np.float32(i)} for i in range(20)]
FIT = {
    **{f"{name} {value!r}": (lambda n=name, v=value: train(**{n: v}), f"fit: {name} must be")
       for name in ("steps", "chunk", "checkpoint_every", "evaluate_every", "keep")
       for value in (0, -1, 1.5, "10", True, float("nan"))},
    "key None": (lambda: train(key=None), "fit: key must be"),
    "key a number": (lambda: train(key=0), "fit: key must be a random key"),
    "learner a function": (lambda: train(loss), "fit: learner must be"),
    "evaluate a number": (lambda: train(evaluate=3), "fit: evaluate must be a function"),
    "data None": (lambda: train(data=None), "init cannot take these data .nothing.: TypeError"),
    "data text": (lambda: train(data="hello"), "data of a run must be arrays of numbers, but the data is 'hello'"),
    "text in data": (lambda: train(data={**X, "z": "a"}), r"arrays of numbers, but \['z'\] is 'a'"),
    "list of batches": (lambda: train(data=[X, X]), "init cannot take these data .*TypeError"),
    "rows differ": (lambda: train(data={**X, "y": X["y"][:7]}), r"update cannot take these data .*y'\] float32\[7\]"),
    "loss a vector": (lambda: train(learner(vector)), r"the loss is an array of shape \(32,\); return its mean"),
    "evaluate gives None": (lambda: train(evaluate=lambda state: None), "evaluate must give numbers by name"),
    "evaluate gives text": (lambda: train(evaluate=lambda state: {"a": "x"}), "but 'a' is 'x'"),
    "evaluate gives objects": (lambda: train(evaluate=lambda state: {"a": [1, "x", None]}), "but 'a' is"),
    "batches change shape": (lambda: train(data=Steps()), r"float32\[3, 3\].* the first one was .*float32\[4, 3\]"),
    "position not JSON": (lambda: train(data=Unsayable()), "neither JSON values nor bytes"),
    "keys for other runs": (lambda: train(replicate_seeds(LEARNER, 2), key=seed_keys([1, 2, 3])), "2 runs need 2 keys"),
}  # fmt: skip
LEARNERS = {
    "no runs": (lambda: replicate_seeds(LEARNER, 0), "replicate_seeds: n must be a number of at least 1"),
    "at_once 0": (lambda: replicate_seeds(LEARNER, 2, at_once=0), "replicate_seeds: at_once must be"),
    "no passes": (lambda: accumulate(LEARNER, 0), "accumulate: n must be"),
    "half a pass": (lambda: accumulate(LEARNER, 1.5), "accumulate: n must be an integer"),
    "no sampler": (lambda: with_sampler(LEARNER, None), "with_sampler: sample must be a function"),
    "no optimiser": (lambda: gradient_learner(lambda k, b: 0, loss, 0.1), "gradient_learner: tx must be"),
    "no steps": (lambda: scan_steps(LEARNER, 0), "scan_steps: k must be"),
    "seeds beyond 32 bits": (lambda: seed_keys([0, 2**32]), "seeds must be integers from 0 to 4294967295"),
    "negative seeds": (lambda: seed_keys([-1]), "seeds must be integers from 0"),
    "no seeds": (lambda: seed_keys([]), "seeds must be integers"),
    "seeds of text": (lambda: seed_keys(["1"]), "seed_keys: seeds"),
    **{f"{name} 0": (lambda n=name: stop_by_validation(
           LEARNER, lambda p, b: 0.0, **{"every": 1, "rounds": 1, "patience": 1, n: 0}), f"{name} must be")
       for name in ("every", "rounds", "patience")},
}  # fmt: skip
BATCHES = {
    **{f"epoch_sampler {value!r}": (lambda v=value: epoch_sampler(v), "epoch_sampler: batch_size must be")
       for value in (0, -1, "8", 2.5)},
    **{f"batch {value!r}": (lambda v=value: grain(SOURCE, v), "batch_size must be") for value in (0, 2.5, "8")},
    "no length": (lambda: grain(iter(SOURCE), 2), "a source must have a length and indices"),
    "rows of other fields": (lambda: grain([{"x": 1}, {"y": 2}] * 4, 4), "examples do not fit into one batch"),
    "rows None": (lambda: grain([None] * 20, 4), "example [0-9]+ is None"),
    "one row None": (lambda: [grain([*SOURCE[:7], None], 8)], "example 7 is None"),
    "shard -1": (lambda: grain(SOURCE, 2, shard=(-1, 2)), "shard"),
    "shard 2 of 2": (lambda: grain(SOURCE, 2, shard=(2, 2)), "shard 2 of 2"),
    "of no shards": (lambda: grain(SOURCE, 2, shard=(0, 0)), "shard"),
    "seed -1": (lambda: grain(SOURCE, 2, seed=-1), "seed must be"),
    "seed 2^40": (lambda: grain(SOURCE, 2, seed=2**40), "seed must be"),
    "threads -1": (lambda: grain(SOURCE, 2, threads=-1), "threads must be"),
    "foreign state": (lambda: GrainBatches(SOURCE, 2).set_state({"at": 3}), "is no position of these batches"),
}  # fmt: skip


def test_an_identity_must_be_values_of_json(tmp_path):
    with pytest.raises(ConfigError, match="identity must be JSON values by name"):
        train(workdir=tmp_path, identity={"a": {1, 2}})


def test_keys_among_the_data_are_arrays_too():
    noisy = learner(lambda params, key, batch: (loss(params, key, batch)[0] + jax.random.normal(batch["key"]), {}))
    assert len(train(noisy, {**X, "key": KEY}).history) == 2


def five():
    return jax.tree.map(lambda leaf: leaf[:5], X)


MESHES = {
    "five examples": (lambda: shard_batch(five(), data_mesh()), "5 examples cannot be shared equally by 4 devices"),
    "five in a run": (lambda: train(data_parallel(LEARNER, data_mesh()), five()), "5 examples cannot be shared"),
    "a number": (lambda: shard_batch({"x": 1.0}, data_mesh()), "a number is marked as holding examples"),
    "expression": (lambda: data_parallel(LEARNER, data_mesh(), rules=[("(", P())]), "'.' is no regular expression"),
    "axis": (lambda: data_parallel(LEARNER, data_mesh(), rules=[("w", P("nosuch"))]), "names the axis 'nosuch'"),
    "no data axis": (lambda: data_parallel(LEARNER, Mesh(np.array(jax.devices()), "a")), "none of which is 'data'"),
    "no mesh": (lambda: data_parallel(LEARNER, None), "data_parallel: mesh must be a Mesh"),
    "model 0": (lambda: data_mesh(model=0), "model must be"),
    "replicas": (lambda: pmap_parallel(None), "pmap_parallel: learner must be"),
    "address": (lambda: initialize("nowhere", 2, 0), "coordinator_address .*'nowhere'"),
    "process 2 of 2": (lambda: initialize("a:1", 2, 2), "process_id .*2"),
    "no processes": (lambda: initialize("a:1", 0, 0), "num_processes must be"),
}
ALL = {**FIT, **LEARNERS, **BATCHES, **MESHES}


@pytest.mark.parametrize(("do", "message"), ALL.values(), ids=ALL.keys())
def test_what_does_not_fit_is_refused_by_name(do, message):
    with pytest.raises((ConfigError, DataError), match=message):
        do()


def test_keys_of_seeds_are_those_of_jax():
    seeds = [0, 1, 2**31 - 1, 2**31, 2**32 - 1]
    found = jax.random.key_data(seed_keys(seeds))
    np.testing.assert_array_equal(found, [jax.random.key_data(jax.random.key(seed)) for seed in seeds])
    np.testing.assert_array_equal(jax.random.key_data(seed_keys(np.arange(3))), [[0, 0], [0, 1], [0, 2]])


CHECKED = (gradient_learner, accumulate, with_ema, with_sampler, replicate_seeds, scan_steps)


def composed(*makers):
    """Everything that is composed of learners, by functions that check their arguments or by the same unchecked."""
    gradient, passes, ema, sampler, seeds, scan = makers
    one = ema(passes(gradient(lambda key, b: jnp.zeros(3), loss, optax.adam(0.1), batch_axes=0), 2), 0.9)
    return scan(seeds(sampler(one, lambda data, key, step: data), 2), 3)


def test_checks_add_nothing_to_compiled_programs():
    made = [composed(*CHECKED), composed(*map(inspect.unwrap, CHECKED))]
    state = jax.eval_shape(made[0].init, KEY, X)
    assert len({digest.of_program(one.update, state, X) for one in made}) == 1
    assert len({str(jax.make_jaxpr(one.update)(state, X)) for one in made}) == 1
