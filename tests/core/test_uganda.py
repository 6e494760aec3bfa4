import gzip

import numpy as np
import pytest

from causal import treatment_effects as te
from core.datasets import uganda
from core.errors import DataError

with_data = pytest.mark.skipif(uganda.locate() is None, reason="uganda_yop_images is not in the data directory")
HEAD = "image_key,treat,outcome,c1,c2,c3\n"
ROW = "3,1,0.5,0,,1\n"


def write_units(folder, text, cut=None):
    path = folder / uganda.FOLDER / uganda.UNITS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode())[:cut])


def write_images(folder, **fields):
    path = folder / uganda.FOLDER / "images35.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    good = {"keys": np.array([7, 3]), "images": np.zeros((2, 35, 35, 3), np.uint8)}
    np.savez(path, **{name: value for name, value in {**good, **fields}.items() if value is not None})


@with_data
def test_the_real_trial_has_its_known_numbers():
    trial, tiles = uganda.units(), uganda.images("wide39")
    assert len(trial.treated) == 2_082
    assert trial.treated.sum() == 825
    assert tiles.pixels.shape == (1_420, 39, 39, 3)
    assert len(np.unique(uganda.rows_of(trial, tiles))) == 327
    assert np.isnan(trial.covariates).sum(axis=0).tolist() == [0, 7, 0]
    found = te.difference_in_means(trial.treated * 1.0, trial.outcome, te.Clusters.of(trial.image_key))
    assert float(found.value) == pytest.approx(0.741492, abs=1e-4)
    assert float(found.se) == pytest.approx(0.075529, abs=1e-4)


@with_data
def test_most_tiles_have_a_place():
    where = uganda.places()
    assert int(np.isnan(where.longitude).sum()) == 102
    assert -2 < np.nanmin(where.latitude) < np.nanmax(where.latitude) < 5


def test_places_that_are_not_there_are_named(tmp_path):
    path = tmp_path / uganda.FOLDER / "wide39.npz"
    path.parent.mkdir()
    np.savez(path, keys=np.arange(2), lon_rounded=np.ones(3), lat_rounded=np.ones(2))
    with pytest.raises(DataError, match="'lon_rounded' is not a number for each key"):
        uganda.places(tmp_path)


@with_data
def test_the_central_tiles_are_read_too():
    assert uganda.images("images35").pixels.shape == (327, 35, 35, 3)


def test_units_and_images_are_read_and_joined(tmp_path):
    write_units(tmp_path, HEAD + ROW)
    write_images(tmp_path)
    trial = uganda.units(tmp_path)
    assert trial.treated.tolist() == [1]
    np.testing.assert_array_equal(trial.covariates, [[0, np.nan, 1]])
    assert uganda.rows_of(trial, uganda.images("images35", tmp_path)).tolist() == [1]


@pytest.mark.parametrize(
    ("text", "cut", "message"),
    [
        (HEAD.replace("treat", "t") + ROW, None, "column 'treat' .assignment. is missing"),
        (HEAD, None, "no rows"),
        (HEAD + ROW + ROW.replace("0.5", "x"), None, "line 3: column 'outcome' is not a number"),
        (HEAD + ROW.replace("0.5", ""), None, "line 2: column 'outcome' is not a number"),
        (HEAD + ROW.replace("3,1", "3,2"), None, "line 2: column 'treat' is not 0 or 1"),
        (HEAD + ROW.replace("3,1", "3.5,1"), None, "column 'image_key' is not a whole number"),
        (HEAD + ROW * 50, 20, "not a gzip file of comma-separated values"),
    ],
)
def test_damaged_units_are_named_by_line_and_column(tmp_path, text, cut, message):
    write_units(tmp_path, text, cut)
    with pytest.raises(DataError, match=message):
        uganda.units(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keys": None}, "field 'keys' is missing"),
        ({"images": np.zeros((2, 34, 35, 3), np.uint8)}, r"shape \(2, 34, 35, 3\)"),
        ({"images": np.zeros((2, 35, 35, 3))}, "is float64"),
        ({"keys": np.array([3, 3])}, "names an image twice"),
        ({"keys": np.zeros((0,)), "images": np.zeros((0, 35, 35, 3), np.uint8)}, "for keys of shape"),
    ],
)
def test_damaged_images_are_named_by_field(tmp_path, fields, message):
    write_images(tmp_path, **fields)
    with pytest.raises(DataError, match=message):
        uganda.images("images35", tmp_path)


def test_a_unit_without_image_is_named(tmp_path):
    write_units(tmp_path, HEAD + ROW + ROW.replace("3,1", "4,1"))
    write_images(tmp_path)
    with pytest.raises(DataError, match="line 3: there is no image of key 4"):
        uganda.rows_of(uganda.units(tmp_path), uganda.images("images35", tmp_path))


def test_absent_files_say_where_to_put_them(tmp_path):
    for read in (uganda.units, lambda folder: uganda.images("wide39", folder)):
        with pytest.raises(DataError, match=r"is not in the data directory .*RELIC_DATA"):
            read(tmp_path)


def test_a_file_that_is_no_archive_is_an_error_of_data(tmp_path):
    write_images(tmp_path)
    (tmp_path / uganda.FOLDER / "images35.npz").write_bytes(b"not an archive")
    with pytest.raises(DataError, match="not an npz file"):
        uganda.images("images35", tmp_path)
