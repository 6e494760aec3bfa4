import numpy as np
import pytest

from core.datasets import ihdp
from core.errors import DataError

GOOD = {
    "x": np.ones((5, 25)), "t": np.arange(10).reshape(2, 5) % 2, "y": np.ones((2, 5)), "mu0": np.zeros((2, 5)),
    "mu1": np.full((2, 5), 4.0),
}  # fmt: skip


def write(folder, **fields):
    path = folder / ihdp.FOLDER / ihdp.FILE
    path.parent.mkdir(parents=True)
    np.savez(path, **{name: value for name, value in {**GOOD, **fields}.items() if value is not None})
    return path


@pytest.mark.skipif(ihdp.locate() is None, reason="ihdp10 is not in the data directory")
def test_the_real_replications_have_their_known_numbers():
    found = ihdp.load()
    assert [round(float(r.effect.mean()), 3) for r in found[:3]] == [4.016, 4.051, 4.099]
    assert {(r.x.shape, int(r.t.sum())) for r in found} == {((747, 25), 139)}


def test_replications_are_read(tmp_path):
    write(tmp_path)
    first = ihdp.load(tmp_path)[0]
    assert first.t.tolist() == [0, 1, 0, 1, 0]
    np.testing.assert_array_equal(first.effect, 4.0)


def test_splits_are_permutations():
    train, test = ihdp.split(3, 747)
    assert len(train) == 672
    assert sorted([*train, *test]) == list(range(747))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mu1": None}, "field 'mu1' is missing"),
        ({"y": np.ones((2, 4))}, r"field 'y' has shape \(2, 4\); \(2, 5\) is needed"),
        ({"y": np.full((2, 5), np.nan)}, "field 'y' holds values that are no finite numbers"),
        ({"x": np.ones(5)}, "field 'x' is not a table"),
        ({"t": np.full((2, 5), 2)}, "field 't' holds other values than 0 and 1"),
    ],
)
def test_damaged_files_are_named_by_field(tmp_path, fields, message):
    write(tmp_path, **fields)
    with pytest.raises(DataError, match=message):
        ihdp.load(tmp_path)


def test_an_absent_file_says_where_to_put_it(tmp_path):
    with pytest.raises(DataError, match=r"ihdp10/ihdp10.npz is not in the data directory .*RELIC_DATA"):
        ihdp.load(tmp_path)


def test_a_file_that_is_no_archive_is_an_error_of_data(tmp_path):
    write(tmp_path).write_bytes(b"no")
    with pytest.raises(DataError, match="not an npz file"):
        ihdp.load(tmp_path)
