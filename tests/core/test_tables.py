"""Builders of tables: what they write is what the readers read, and mistakes are named."""

import numpy as np
import pytest

from core.batches import GrainBatches
from core.datasets import data_dir, ihdp, sachs, tables, uganda
from core.errors import DataError
from experiments.lab.datasets import prepare

REAL = data_dir()
needs_data = pytest.mark.skipif(REAL is None, reason="no data directory: set RELIC_DATA to the raw files")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RELIC_CACHE", str(tmp_path / "cache"))


def read(name: str, split: str) -> dict[str, np.ndarray]:
    """All columns of a split, in the order of the files."""
    rows = tables.data_source(name, split)
    found = rows.__getitems__(range(len(rows)))
    return {key: np.stack([row[key] for row in found]) for key in found[0]}


def same_rows(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Whether two tables have the same rows, whatever their order."""
    assert set(found) == set(expected)
    ordered = []
    for columns in (found, expected):
        flat = np.column_stack([np.asarray(columns[k], float).reshape(len(columns[k]), -1) for k in sorted(columns)])
        ordered.append(flat[np.lexsort(np.nan_to_num(flat, nan=-1e9).T)])
    np.testing.assert_array_equal(*ordered)
    for key, column in found.items():
        assert column.dtype == expected[key].dtype


@needs_data
def test_prepared_tables_hold_what_the_readers_read():
    same_rows(read("uganda_yop_units", "units"), uganda.units()._asdict())
    same_rows(read("ihdp10", "replication_9"), ihdp.load()[9]._asdict())
    cells = sachs.load()
    same_rows(read("sachs_interventions", "cells"), {"intensities": cells.intensities, "condition": cells.condition})
    tiles, found = uganda.images("wide39"), read("uganda_yop_tiles39", "tiles")
    np.testing.assert_array_equal(found["pixels"][np.argsort(found["key"])], tiles.pixels[np.argsort(tiles.key)])


@needs_data
def test_their_records_are_batched_by_grain():
    rows = tables.data_source("ihdp10", "replication_0")
    batch = next(GrainBatches(rows, batch_size=10, seed=0))
    assert batch["x"].shape == (10, 25)
    assert set(np.unique(batch["t"])) <= {0, 1}


@needs_data
def test_the_command_line_prepares_all_tables_of_a_folder():
    said = prepare("uganda_yop_images", None)
    assert said.splitlines() == [
        "uganda_yop_units: units 2,082",
        "uganda_yop_tiles35: tiles 327",
        "uganda_yop_tiles39: tiles 1,420",
    ]


def test_unknown_tables_splits_and_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match="no table 'moon'; possible: uganda_yop_units"):
        tables.data_source("moon", "cells")
    with pytest.raises(DataError, match="to prepare; possible: lastfm_cf"):
        prepare("moon", None)
    with pytest.raises(DataError, match=r"sachs_interventions/sachs\.npz is not in the data directory"):
        tables.data_source("sachs_interventions", "cells", tmp_path)


def test_a_damaged_file_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "ihdp10" / "ihdp10.npz"
    path.parent.mkdir()
    path.write_bytes(b"not a zip file")
    with pytest.raises(DataError, match=r"ihdp10\.npz"):
        tables.data_source("ihdp10", "replication_0", tmp_path)


def test_a_split_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "ihdp10" / "ihdp10.npz"
    path.parent.mkdir()
    outcomes = np.arange(8.0).reshape(2, 4)
    np.savez(path, x=np.ones((4, 25)), t=np.array([[0, 1, 0, 1]] * 2), y=outcomes, mu0=outcomes, mu1=outcomes + 1)
    assert len(tables.data_source("ihdp10", "replication_1", tmp_path)) == 4
    with pytest.raises(DataError, match="has no split 'replication_2'; possible: replication_0, replication_1"):
        tables.data_source("ihdp10", "replication_2", tmp_path)
