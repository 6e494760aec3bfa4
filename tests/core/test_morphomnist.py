import gzip

import numpy as np
import pytest

from core.datasets import morphomnist
from core.errors import DataError

needs_data = pytest.mark.skipif(morphomnist.locate() is None, reason="morphomnist_ti is not in the data directory")
ROWS = 5


def idx(array):
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">i4").tobytes()
    return gzip.compress(header + array.astype(np.uint8).tobytes())


def write(folder, *, digits=None, csv=True, **attributes):
    """A small data set in one of its two layouts."""
    place = folder / "morphomnist_ti"
    place.mkdir(parents=True)
    pixels = np.arange(ROWS * 28 * 28).reshape(ROWS, 28, 28) % 256
    (place / "t10k-images-idx3-ubyte.gz").write_bytes(idx(pixels))
    (place / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(ROWS) if digits is None else np.array(digits)))
    columns = {"thickness": np.linspace(1, 3, ROWS), "intensity": np.linspace(70, 250, ROWS)} | attributes
    columns = {name: np.asarray(column) for name, column in columns.items() if column is not None}
    if csv:
        lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=False))]
        (place / "t10k-morpho.csv").write_text("\n".join(lines))
    else:
        np.savez(place / "attributes.npz", **{f"test_{name}": column for name, column in columns.items()})


@needs_data
def test_the_real_digits_have_their_known_statistics():
    strokes, test = morphomnist.load(), morphomnist.load("test")
    assert strokes.images.shape == (10_000, 28, 28, 1)
    assert strokes.images.mean() * 255 == pytest.approx(21.758, abs=1e-2)
    assert np.bincount(strokes.digit).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.corrcoef(strokes.thickness, strokes.intensity)[0, 1] == pytest.approx(0.9077, abs=1e-3)
    assert len(test.digit) == 2_000
    assert len(morphomnist.load("train").digit) == 8_000


@pytest.mark.parametrize("csv", [True, False])
def test_both_layouts_are_read_and_split(tmp_path, csv):
    write(tmp_path, csv=csv)
    strokes = morphomnist.load(data_dir=tmp_path)
    assert strokes.images.max() <= 1
    np.testing.assert_allclose(strokes.intensity, np.linspace(70, 250, ROWS))
    assert morphomnist.load("test", tmp_path).digit.tolist() == [4]
    assert morphomnist.load("train", tmp_path).digit.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("csv", [True, False])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"thickness": [1.0, 2.0, np.nan, 1.0, 1.0]}, "thickness.*element 2 is nan"),
        ({"intensity": [1.0, 2.0, -3.0, 1.0, 1.0]}, "intensity.*element 2 is -3"),
        ({"intensity": None}, "intensity.*is missing"),
        ({"digits": [0, 1, 2, 3, 11]}, "labels.*11"),
        ({"digits": [0, 1, 2]}, "has 3 rows for the 5 images"),
    ],
)
def test_faults_are_named_by_file_and_field(tmp_path, csv, fault, message):
    write(tmp_path, csv=csv, **fault)
    with pytest.raises(DataError, match=message):
        morphomnist.load(data_dir=tmp_path)


def test_damaged_files_are_named(tmp_path):
    write(tmp_path, csv=False)
    path = tmp_path / "morphomnist_ti" / "attributes.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"attributes\.npz: truncated or not an npz file"):
        morphomnist.load(data_dir=tmp_path)
