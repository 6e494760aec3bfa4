"""What a learner may carry and what an iterator may return: none of it changes the result of a resumed run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.checkpoint import Checkpoints
from core.errors import ConfigError, NonFiniteError
from core.fit import fit
from core.learner import Learner


def learner(init, update=lambda state, batch: state):
    """States are dicts whose ``x`` is the loss."""
    return Learner(init, lambda state, batch: (new := update(state, batch), {"loss": jnp.sum(new["x"])}))


def run(learner, data=None, steps=20, workdir=None, **options):
    data = np.ones(3, np.float32) if data is None else data
    return fit(learner, data, key=jax.random.key(3), steps=steps, workdir=workdir, chunk=5, **options)


def resumed(learner, workdir, data=lambda: None, **options):
    run(learner, data(), 10, workdir, **options)
    return run(learner, data(), 20, workdir, **options)


def test_weakly_typed_numbers_in_the_state_resume_to_the_same_bits(tmp_path):
    """A weak float32 beside bfloat16 computes in bfloat16, a strong one in float32."""
    mixed = learner(
        lambda key, batch: {"x": jnp.zeros(3, jnp.bfloat16), "rate": jnp.asarray(0.1), "count": 0},
        lambda s, batch: {**s, "x": (s["x"] * 1.01 + s["rate"]).astype(jnp.bfloat16), "count": s["count"] + 1},
    )
    again, whole = resumed(mixed, tmp_path), run(mixed)
    assert again.history == whole.history
    jax.tree.map(np.testing.assert_array_equal, again.state, whole.state)


def test_the_state_may_share_arrays_with_itself_with_the_data_and_with_the_key():
    one, data, key = jnp.ones(3), jnp.ones(3), jax.random.key(0)
    sharing = learner(
        lambda key, batch: {"x": one, "start": one, "batch": batch, "key": key},
        lambda state, batch: {**state, "x": state["x"] + batch},
    )
    for _ in range(2):
        state, _ = fit(sharing, data, key=key, steps=10, chunk=5)
    np.testing.assert_array_equal(state["x"], np.full(3, 11.0))
    np.testing.assert_array_equal(one + data, np.full(3, 2.0))


def test_a_leaf_that_is_infinite_from_the_start_is_so_by_design(tmp_path):
    best = learner(lambda key, batch: {"x": jnp.ones(3), "best": jnp.asarray(-jnp.inf)})
    assert resumed(best, tmp_path).state["best"] == -np.inf


def test_the_last_update_is_checked_without_files_too():
    spoilt = Learner(
        lambda key, batch: {"x": jnp.ones(3), "step": 0},
        lambda s, batch: (
            {"x": jnp.where(s["step"] == 9, jnp.nan, s["x"]), "step": s["step"] + 1},
            {"loss": jnp.sum(s["x"])},
        ),
    )
    with pytest.raises(NonFiniteError, match=r"\['x'\] of the state is not finite at step 10"):
        run(spoilt, steps=10)


def test_a_save_in_the_background_holds_the_state_of_its_step(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    add = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    state = {"w": jnp.zeros(2_000_000)}
    checkpoints.save(0, state)
    for _ in range(20):
        state = add(state)
    checkpoints.wait()
    restored = checkpoints.restore(state)
    checkpoints.close()
    assert restored is not None
    assert not np.any(restored.state["w"])


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_any_flipped_bit_or_cut_of_any_file_is_noticed(saved, data):
    path = data.draw(st.sampled_from(sorted(path for path in saved.folder.rglob("*") if path.is_file())))
    good, at = path.read_bytes(), data.draw(st.integers(0, path.stat().st_size - 1))
    flipped = bytes([good[at] ^ 1 << data.draw(st.integers(0, 7))])
    path.write_bytes(data.draw(st.sampled_from([good[:at], good[:at] + flipped + good[at + 1 :]])))
    try:
        assert saved.newest_good() is None
    finally:
        path.write_bytes(good)


def test_a_flipped_bit_in_any_byte_of_the_manifest_is_noticed(saved):
    """In every one: a digit of the iterator's position is a small target for chance."""
    path = saved.folder / "step_00000007.json"
    good, unnoticed = path.read_bytes(), []
    for at, byte in enumerate(good):
        path.write_bytes(good[:at] + bytes([byte ^ 1 << at % 8]) + good[at + 1 :])
        unnoticed += [at] * (saved.newest_good() is not None)
    path.write_bytes(good)
    assert not unnoticed


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A finished checkpoint with the position of an iterator."""
    checkpoints = Checkpoints(tmp_path_factory.mktemp("checkpoints"))
    checkpoints.save(7, {"w": jnp.arange(5.0), "key": jax.random.key(0)}, {"at": 1234567})
    checkpoints.close()
    assert checkpoints.newest_good()
    return checkpoints


class Counter:
    """Batches 1, 2, ...; returns its own state, which it goes on changing, as a dict or as bytes."""

    def __init__(self, kind="dict", end=10**9):
        self.state, self.kind, self.end = {"at": 0}, kind, end

    def identity(self):
        return {"counts to": self.end}

    def __next__(self):
        if self.state["at"] >= self.end:
            raise StopIteration
        self.state["at"] += 1
        return np.full(3, self.state["at"], np.float32)

    def get_state(self):
        return self.state if self.kind == "dict" else json.dumps(self.state).encode()

    def set_state(self, state):
        self.state = dict(state) if self.kind == "dict" else json.loads(state)


SUM = learner(lambda key, batch: {"x": jnp.zeros(3)}, lambda state, batch: {"x": state["x"] + batch})


@pytest.mark.parametrize("kind", ["dict", "bytes"])
def test_positions_may_be_bytes_or_the_iterators_own_dict(kind, tmp_path):
    state, _ = resumed(SUM, tmp_path, lambda: Counter(kind), checkpoint_every=5)
    np.testing.assert_array_equal(state["x"], np.full(3, sum(range(1, 21))))


def test_batches_that_end_too_soon_are_named_with_the_step():
    with pytest.raises(ConfigError, match="batches ended after step 5; repeat them"):
        run(SUM, Counter(end=7))
