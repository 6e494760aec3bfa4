"""Records survive crashes, keep what is needed to get a number again, and make tidy tables."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import records
from core.records import Record


def record(**changes) -> Record:
    return dataclasses.replace(Record("toy", "small", "line", "sgd", "error", 0, 0.5), **changes)


def test_what_is_written_is_read_back(tmp_path):
    written = [record(seed=seed, value=value, coords={"step": 3}) for seed, value in enumerate([0.1, 1e-300, 3.0])]
    records.append(tmp_path / "deep" / "records.jsonl", written)
    assert records.read(tmp_path / "deep" / "records.jsonl") == written


def test_a_file_that_is_not_there_has_no_records(tmp_path):
    assert records.read(tmp_path / "records.jsonl") == []
    assert records.to_frame([]).empty


@settings(deadline=None, max_examples=30)
@given(cut=st.integers(0, 2000))
def test_a_crash_at_any_byte_costs_no_earlier_record_and_no_later_one(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("crash") / "records.jsonl"
    first, second, third = (record(seed=seed) for seed in range(3))
    records.append(path, [first])
    whole = path.stat().st_size
    records.append(path, [second])
    path.write_bytes(path.read_bytes()[: max(whole, path.stat().st_size - cut)])
    records.append(path, [third])
    found = records.read(path)
    assert found in ([first, third], [first, second, third])


def test_a_frame_keeps_the_newest_of_equal_identity_and_has_a_column_per_coordinate():
    found = [record(value=1.0), record(value=2.0), record(value=3.0, coords={"step": 5}), record(seed=1)]
    frame = records.to_frame(found)
    assert frame.value.tolist() == [2.0, 3.0, 0.5]
    assert frame.step.isna().tolist() == [True, False, True]


def test_numbers_that_are_not_finite_are_kept(tmp_path):
    records.append(tmp_path / "r.jsonl", [record(value=float("nan")), record(value=float("inf"))])
    nan, infinity = records.read(tmp_path / "r.jsonl")
    assert np.isnan(nan.value)
    assert np.isinf(infinity.value)


def test_provenance_tells_how_to_get_a_number_again():
    @dataclasses.dataclass(frozen=True)
    class Config:
        steps: int = 3
        methods: tuple[str, ...] = ("a", "b")

    source = records.provenance(Config())
    assert source["config"] == {"steps": 3, "methods": ["a", "b"]}
    assert {"python", "jax", "numpy"} <= source["versions"].keys()
    assert jax.default_backend() in source["device"]
    assert source["time"].endswith("+00:00")
    assert source["commit"]


@pytest.mark.parametrize("value", [jnp.arange(2), np.arange(2), [np.int64(0), np.float32(1)], (0, 1)])
def test_arrays_become_plain_values(value):
    assert json.loads(json.dumps(records.to_plain({"x": value}))) == {"x": [0, 1]}
