import gzip

import numpy as np
import pytest

from core.datasets import uci
from core.errors import DataError

needs_data = pytest.mark.skipif(uci.locate("concrete") is None, reason="uci_regression is not in the data directory")
ROW = "1 2 3 4 5 6 7 8 9\n"


@pytest.fixture(autouse=True)
def published(request, monkeypatch):
    """Two rows are published, but of the real tables."""
    if "real" not in request.node.name:
        monkeypatch.setattr(uci, "ROWS", {"concrete": 2, "energy": 2})


def write(folder, text, cut=None):
    path = folder / "uci_regression" / "concrete.data.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(text.encode())[:cut])


@needs_data
@pytest.mark.parametrize(("name", "rows", "outputs"), [("concrete", 1030, 1), ("energy", 768, 2)])
def test_the_real_tables_have_their_known_shapes(name, rows, outputs):
    table = uci.load(name)
    assert table.inputs.shape == (rows, 8)
    assert table.targets.shape == (rows, outputs)


def test_rows_are_inputs_and_the_target(tmp_path):
    write(tmp_path, ROW + ROW)
    table = uci.load("concrete", tmp_path)
    np.testing.assert_array_equal(table.inputs, [[1, 2, 3, 4, 5, 6, 7, 8]] * 2)
    np.testing.assert_array_equal(table.targets, [[9], [9]])


@pytest.mark.parametrize(
    ("text", "cut", "message"),
    [
        (ROW + "1 2 3\n", None, "line 2: 3 columns where concrete has 9"),
        (ROW.replace("5", "x"), None, "line 1: could not convert string to float: 'x'"),
        (ROW.replace("5", "nan"), None, "line 1: column 5 is not finite"),
        ("\n", None, "0 rows where 2 are published"),
        (ROW * 3, None, "3 rows where 2 are published"),
        (ROW * 50, 20, "not a gzip file of text"),
    ],
)
def test_damaged_tables_are_named_by_file_line_and_column(tmp_path, text, cut, message):
    write(tmp_path, text, cut)
    with pytest.raises(DataError, match=message):
        uci.load("concrete", tmp_path)


def test_a_missing_table_says_where_to_put_it(tmp_path):
    with pytest.raises(DataError, match=r"uci_regression/concrete.data.gz is not in the data directory .*RELIC_DATA"):
        uci.load("concrete", tmp_path)
