import numpy as np
import pytest

from core.datasets import sachs
from core.errors import DataError

needs_data = pytest.mark.skipif(sachs.locate() is None, reason="sachs_interventions is not in the data directory")


def fields(**changed):
    made = {
        "x": np.ones((7466, 11), np.float32),
        "env": (np.arange(7466) % 9).astype(np.int8),
        "env_names": np.array([f"c{i}" for i in range(9)]),
        "variables": np.array([f"p{i}" for i in range(11)]),
        "consensus_parents": np.eye(11, k=-1, dtype=np.int8),
    }
    return {name: value for name, value in {**made, **changed}.items() if value is not None}


def write(folder, **changed):
    path = folder / "sachs_interventions" / "sachs.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **fields(**changed))
    return path


def with_element(value, index, new):
    value = value.copy()
    value[index] = new
    return value


@needs_data
def test_the_real_cells_have_their_known_numbers():
    cells = sachs.load()
    assert np.bincount(cells.condition).tolist() == [853, 902, 911, 723, 810, 799, 848, 913, 707]
    assert cells.consensus.sum() == 20
    assert cells.proteins[:2] == ["raf", "mek"]


def test_a_good_file_is_read(tmp_path):
    write(tmp_path)
    cells = sachs.load(tmp_path)
    assert cells.intensities.shape == (7466, 11)
    assert cells.consensus[1, 0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"env": None}, "field 'env' is missing"),
        ({"x": np.ones((3, 11))}, r"field 'x' has shape \(3, 11\), not \(7466, 11\)"),
        ({"x": with_element(np.ones((7466, 11)), (5, 2), 0.0)}, r"'x', element \[5, 2\] is not positive and finite"),
        ({"x": with_element(np.ones((7466, 11)), (5, 3), np.nan)}, r"'x', element \[5, 3\]"),
        ({"env": with_element(np.zeros(7466, int), 8, 9)}, r"'env', element \[8\] is not 0 to 8"),
        ({"consensus_parents": np.full((11, 11), 2)}, r"'consensus_parents', element \[0, 0\] is not 0 or 1"),
    ],
)
def test_damaged_files_are_named_by_field_and_element(tmp_path, changed, message):
    write(tmp_path, **changed)
    with pytest.raises(DataError, match=message):
        sachs.load(tmp_path)


def test_a_cut_file_is_named(tmp_path):
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="truncated or not an npz file"):
        sachs.load(tmp_path)


def test_a_missing_file_says_where_to_put_it(tmp_path):
    with pytest.raises(DataError, match=r"sachs_interventions/sachs.npz is not in the data directory .*RELIC_DATA"):
        sachs.load(tmp_path)
