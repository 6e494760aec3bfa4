import errno
import functools
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.checkpoint import Checkpoints
from core.errors import CheckpointError, ConfigError, NonFiniteError, Preempted
from core.fit import _Chunks, chunk_length, fit
from core.learner import gradient_learner, replicate_seeds, seed_keys, with_sampler
from core.parallel import data_mesh, data_parallel, pmap_parallel, unreplicate
from tests.core.fit_process import DATA, STEPS, digest, draw, init, loss, train
from tests.examples import regression

ROOT = Path(__file__).resolve().parents[2]
LEARNER = with_sampler(gradient_learner(init, loss, optax.adam(3e-3), batch_axes=0), draw)


def quick(steps, workdir=None, learner=LEARNER, data=DATA, **options):
    return fit(learner, data, key=jax.random.key(0), steps=steps, workdir=workdir, **{"chunk": 5, **options})


@functools.cache
def whole(steps):
    """The uninterrupted run."""
    return quick(steps)


@pytest.fixture(scope="module", params=["sampler", "iterator"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def uninterrupted(kind):
    return digest(train(None, kind))


def test_files_do_not_change_the_result_and_a_finished_run_returns_at_once(kind, uninterrupted, tmp_path):
    assert digest(train(tmp_path, kind)) == uninterrupted
    assert digest(train(tmp_path, kind)) == uninterrupted


def test_a_longer_run_goes_on_from_a_shorter_one(kind, uninterrupted, tmp_path):
    train(tmp_path, kind, steps=STEPS // 2)
    assert digest(train(tmp_path, kind)) == uninterrupted


def test_chunks_change_nothing_but_rounding():
    finals = [quick(20, chunk=chunk).state.params for chunk in (1, 5, 50)]
    for final in finals[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), final, finals[0])


def test_history_has_a_row_per_chunk_and_evaluations_at_their_steps():
    _, history = quick(20, evaluate=lambda state: {"steps": int(state.step)}, evaluate_every=10)
    assert [row["step"] for row in history] == [5, 10, 15, 20]
    assert [row.get("steps") for row in history] == [None, 10, None, 20]
    assert all(np.isfinite(row["loss"]) for row in history)


@pytest.mark.parametrize(("steps", "options", "lengths"), [(20, {}, 1), (23, {}, 2), (24, {"evaluate_every": 8}, 1)])
def test_one_compilation_per_chunk_length(steps, options, lengths):
    traces = []

    def update(state, batch):
        traces.append(1)
        return LEARNER.update(state, batch)

    quick(steps, learner=LEARNER._replace(update=update), **options)
    assert len(traces) == lengths + 1  # and one to find how many devices can share its batches


@given(st.integers(1, 60), st.integers(1, 400))
@settings(deadline=None)
def test_chunks_are_equal_where_a_divisor_allows_and_never_needlessly_short(chunk, period):
    length = chunk_length(chunk, period)
    assert length <= chunk
    assert 2 * length >= min(chunk, period)
    assert period % length == 0 or all(period % n for n in range((chunk + 1) // 2, chunk + 1))


@given(st.integers(1, 500), st.integers(1, 60), *[st.none() | st.integers(1, 200)] * 2)
@settings(deadline=None)
def test_chunks_end_at_every_evaluation_and_compile_at_most_three_lengths(steps, chunk, save, evaluate):
    chunks, ends = _Chunks.plan(steps, chunk, save, evaluate), [0]
    while ends[-1] < steps:
        ends.append(chunks.after(ends[-1]))
    lengths = np.diff(ends)
    assert ends[-1] == steps
    assert lengths.min() >= 1
    assert lengths.max() <= min(chunk, save or chunk)
    assert len(set(lengths)) <= 3
    assert not evaluate or set(range(0, steps + 1, evaluate)) <= set(ends)


def test_data_are_an_argument_and_not_a_constant_of_the_program(monkeypatch):
    big = {"x": np.random.default_rng(0).normal(size=(50_000, 4)).astype(np.float32)}
    texts, jit = [], jax.jit

    def spy(fn, **options):
        def call(*args):
            texts.append(jit(fn, **options).lower(*args).as_text())
            return jit(fn, **options)(*args)

        return call if options.get("donate_argnums") == 0 else jit(fn, **options)

    monkeypatch.setattr("core.layout.jax.jit", spy)
    quick(5, data=big)
    assert texts
    assert max(map(len, texts)) < 200_000


def test_seeds_in_one_program_resume_to_the_same_bits(tmp_path):
    many = replicate_seeds(LEARNER, 3)
    options = {"key": seed_keys([1, 2, 3]), "chunk": 5}
    whole = fit(many, DATA, steps=20, **options)
    fit(many, DATA, steps=10, workdir=tmp_path, **options)
    resumed = fit(many, DATA, steps=20, workdir=tmp_path, **options)
    assert digest(resumed) == digest(whole)
    assert len(whole.history[0]["loss"]) == 3


def test_a_workdir_may_be_named_from_where_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        quick(10, workdir="run")
    assert (tmp_path / "run" / "checkpoints").is_dir()


def test_sharded_state_is_restored_with_its_sharding(tmp_path):
    example = regression()
    rules = [("Dense_0/kernel$", jax.sharding.PartitionSpec(None, "model"))]
    learner = data_parallel(example.learner, data_mesh(model=2), example.batch_axes, rules)
    quick(5, tmp_path, learner, example.batch)
    state, _ = quick(10, tmp_path, learner, example.batch)
    kernel = state.params["params"]["Dense_0"]["kernel"]
    assert kernel.sharding.spec == rules[0][1]
    whole, _ = quick(10, None, learner, example.batch)
    np.testing.assert_array_equal(kernel, whole.params["params"]["Dense_0"]["kernel"])


def test_pmapped_replicas_resume(tmp_path):
    example = regression()
    learner = pmap_parallel(example.learner, example.batch_axes)
    quick(5, tmp_path, learner, example.batch)
    state, _ = quick(10, tmp_path, learner, example.batch)
    whole, _ = quick(10, None, learner, example.batch)
    jax.tree.map(np.testing.assert_array_equal, unreplicate(state.params), unreplicate(whole.params))


def damage_truncate(folder, manifest):
    path = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    os.truncate(path, path.stat().st_size // 2)


def damage_flip(folder, manifest):
    path = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def damage_delete(folder, manifest):
    next(p for p in folder.rglob("*") if p.is_file()).unlink()


def damage_manifest(folder, manifest):
    os.truncate(manifest, 30)


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_delete, damage_manifest])
def test_a_damaged_newest_checkpoint_is_reported_and_the_previous_one_used(damage, tmp_path, caplog):
    quick(20, tmp_path, checkpoint_every=10)
    folder = tmp_path / "checkpoints"
    damage(folder / "step_00000020", folder / "step_00000020.json")
    with caplog.at_level(logging.WARNING):
        resumed = quick(20, tmp_path, checkpoint_every=10)
    assert "step_00000020" in caplog.text
    assert "trying the one before it" in caplog.text
    assert digest(resumed) == digest(whole(20))


def test_a_checkpoint_without_manifest_never_finished(tmp_path):
    quick(20, tmp_path, checkpoint_every=10)
    (tmp_path / "checkpoints" / "step_00000020.json").unlink()
    assert Checkpoints(tmp_path / "checkpoints").steps() == [10]
    assert digest(quick(20, tmp_path, checkpoint_every=10)) == digest(whole(20))


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    quick(40, tmp_path, checkpoint_every=5, keep=3)
    assert Checkpoints(tmp_path / "checkpoints").steps() == [40, 35, 30]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 6


def test_damaged_checkpoints_do_not_count_among_those_kept(tmp_path):
    quick(20, tmp_path, checkpoint_every=10)
    folder = tmp_path / "checkpoints"
    damage_delete(folder / "step_00000020", None)
    (folder / ".step_00000020.json.123").write_text("torn by a kill")

    def interrupt(done, total):
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(20, tmp_path, checkpoint_every=5, progress=interrupt)
    assert Checkpoints(folder).steps() == [15, 10]
    assert len(list(folder.iterdir())) == 4


def test_without_an_interval_checkpoints_are_taken_by_the_clock(tmp_path, monkeypatch):
    quick(20, tmp_path / "seldom", keep=9)
    monkeypatch.setattr("core.fit.SAVE_SECONDS", 0.0)
    quick(20, tmp_path / "often", keep=9)
    assert Checkpoints(tmp_path / "seldom" / "checkpoints").steps() == [20]
    assert Checkpoints(tmp_path / "often" / "checkpoints").steps() == [20, 15, 10, 5]


def exploding(at):
    def loss(params, key, batch):
        value = jnp.sum(params["w"])
        return jnp.where(params["n"] >= at, jnp.nan, value), {}

    learner = gradient_learner(lambda key, batch: {"w": jnp.ones(2), "n": jnp.zeros(())}, loss, optax.sgd(0.1))

    def update(state, batch):
        state, metrics = learner.update(state, batch)
        return state._replace(params={**state.params, "n": state.step.astype(jnp.float32)}), metrics

    return learner._replace(update=update)


def test_a_non_finite_loss_stops_with_step_metric_and_last_good_checkpoint(tmp_path):
    with pytest.raises(NonFiniteError, match=r"'loss' is not finite at step 13; .*step_00000010.*learning rate"):
        quick(40, tmp_path, exploding(12), checkpoint_every=5)
    assert Checkpoints(tmp_path / "checkpoints").steps()[0] == 10


def test_of_many_seeds_the_one_that_diverged_is_named():
    many = replicate_seeds(LEARNER, 3)
    data = {"x": jnp.asarray(DATA["x"])}

    def update(state, batch):
        state, metrics = many.update(state, batch)
        bad = (jnp.arange(3) == 1) & (state.step[0] > 7)
        return state, {**metrics, "loss": jnp.where(bad, jnp.inf, metrics["loss"])}

    with pytest.raises(NonFiniteError, match="'loss' of run 1 is not finite at step 8; there is no checkpoint"):
        fit(many._replace(update=update), data, key=seed_keys([1, 2, 3]), steps=20, chunk=5)


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
    def update(state, batch):
        state, metrics = LEARNER.update(state, batch)
        bad = jnp.where(state.step == 10, jnp.nan, 1.0)
        return state._replace(params=jax.tree.map(lambda leaf: leaf * bad, state.params)), metrics

    with pytest.raises(NonFiniteError, match=r"\.params.* of the state is not finite at step 10; .*step_00000005"):
        quick(10, tmp_path, LEARNER._replace(update=update), checkpoint_every=5)
    assert Checkpoints(tmp_path / "checkpoints").steps() == [5]


def test_a_workdir_of_another_run_is_refused_with_both_values(tmp_path):
    quick(5, tmp_path, identity={"lr": 0.1, "seed": 0})
    with pytest.raises(CheckpointError, match=r"lr is 0\.1 there and 0\.2 here"):
        quick(5, tmp_path, identity={"lr": 0.2, "seed": 0})


def test_a_workdir_of_another_key_is_refused(tmp_path):
    quick(5, tmp_path)
    with pytest.raises(CheckpointError, match=r"key is \[0, 0\] there and \[0, 1\] here"):
        fit(LEARNER, DATA, key=jax.random.key(1), steps=5, workdir=tmp_path)


def test_a_checkpoint_of_another_model_is_refused_by_leaf(tmp_path):
    quick(5, tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    with pytest.raises(CheckpointError, match=r"holds another kind of state: .*opt_state.* absent in this run"):
        checkpoints.restore(exploding(99).init(jax.random.key(0), None))


def test_a_shorter_run_than_the_saved_one_is_refused(tmp_path):
    quick(20, tmp_path)
    with pytest.raises(ConfigError, match="20 steps, longer than the 10 asked for"):
        quick(10, tmp_path)


@pytest.mark.parametrize("options", [{"steps": 0}, {"chunk": 0}, {"evaluate_every": -1}])
def test_senseless_lengths_are_refused(options):
    with pytest.raises(ConfigError, match="must be a number of at least 1"):
        quick(**{"steps": 5, **options})


def test_an_unusable_workdir_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write to workdir"):
        quick(5, tmp_path / "file" / "run")


def test_a_request_to_stop_during_the_last_chunk_is_not_lost(tmp_path):
    with pytest.raises(Preempted, match="saved step 10 of 10"):
        quick(10, tmp_path, progress=lambda done, total: done == total and os.kill(os.getpid(), signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert digest(quick(10, tmp_path)) == digest(whole(10))


def test_a_second_interrupt_stops_at_once(tmp_path):
    def impatient(done, total):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        quick(10, tmp_path, progress=impatient)


def test_two_processes_cannot_use_one_workdir(tmp_path):
    seen = []

    def evaluate(state):
        with pytest.raises(CheckpointError, match="another process is running"):
            quick(5, tmp_path)
        seen.append(1)
        return {}

    quick(5, tmp_path, evaluate=evaluate)
    assert seen


def test_fit_runs_outside_of_the_main_thread(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(quick(5, tmp_path)))
    thread.start()
    thread.join()
    assert len(results) == 1


def test_tensorboard_files_are_written_on_request(tmp_path):
    quick(5, tmp_path, tensorboard=True)
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_a_torn_line_of_metrics_costs_nothing_else(tmp_path):
    quick(10, tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 15, "lo')
    resumed = quick(20, tmp_path)
    assert resumed.history == whole(20).history
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert sum(line.startswith("{") and line.endswith("}") for line in lines) == len(lines) - 1


SAVES_UNTIL_IT_CANNOT = """
import contextlib, os, resource, sys
import tests.conftest  # as many devices as here, for the same bits
from core.errors import CheckpointError
from tests.core.test_fit import quick
workdir, limit = sys.argv[1:]
quick(10, workdir, checkpoint_every=10)
if limit == "size of files":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
else:
    with contextlib.suppress(OSError), open(os.path.join(workdir, "ballast"), "wb", buffering=0) as ballast:
        while ballast.write(b"0" * 4096):
            pass
try:
    quick(40, workdir, checkpoint_every=10)
except CheckpointError as error:
    print(error)
"""


def message_where_saving_fails(workdir, limit) -> str:
    """What a run says, in a process of its own: Orbax's threads outlive a failed save and complain as they end."""
    command = [sys.executable, "-c", SAVES_UNTIL_IT_CANNOT, str(workdir), limit]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert str(workdir) in result.stdout, result.stderr
    assert "free space and run again" in result.stdout
    return result.stdout


def test_a_file_that_cannot_grow_is_a_clear_error_and_the_last_good_checkpoint_serves(tmp_path):
    message_where_saving_fails(tmp_path, "size of files")
    assert digest(quick(40, tmp_path, checkpoint_every=10)) == digest(whole(40))


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_a_clear_error_and_the_last_good_checkpoint_serves(small_disk, tmp_path):
    message = message_where_saving_fails(small_disk, "free space")
    assert os.strerror(errno.ENOSPC) in message or "disk is full" in message
    copy = tmp_path / "copy"
    shutil.copytree(small_disk, copy, ignore=shutil.ignore_patterns("ballast"))
    assert Checkpoints(copy / "checkpoints").newest_good() == copy / "checkpoints" / "step_00000010"
    assert digest(quick(40, copy, checkpoint_every=10)) == digest(whole(40))


def test_numbers_of_numpy_and_jax_are_numbers(tmp_path):
    settings = {"steps": np.int64(4), "chunk": jnp.int32(2), "checkpoint_every": np.int32(2), "keep": np.int64(1)}
    state, history = fit(
        LEARNER, DATA, key=jax.random.key(0), workdir=tmp_path / "fit", evaluate_every=np.int64(2), **settings
    )
    assert int(state.step) == 4
    assert history[-1]["step"] == 4
