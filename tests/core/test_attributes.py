import gzip
import json

import numpy as np
import pytest

from core.datasets import attributes, data_dir
from core.errors import DataError

ARRAYS = {
    "cat_indptr": np.array([0, 2, 3, 3]),
    "cat_ids": np.array([1, 2, 1]),
    "brand_id": np.array([3, 0, 3]),
}
NAMES = {"1": "Hair", "2": "Shampoo", "3": "ACME"}
TEXTS = "mild shampoo\nhair brush 2\nshampoo bar\n"


def written(folder, arrays=ARRAYS, names=NAMES, texts=TEXTS):
    here = folder / "amazon_beauty"
    here.mkdir()
    np.savez(here / "beauty.npz", **arrays)
    (here / "item_text.txt.gz").write_bytes(gzip.compress(texts.encode()))
    if names is not None:
        (here / "attribute_names.json.gz").write_bytes(gzip.compress(json.dumps(names).encode()))
    return folder


def test_items_have_categories_brands_and_words(tmp_path):
    found = attributes.load("amazon_beauty", written(tmp_path), least=1)
    has = [{found.names[j] for j in row.indices} for row in found.present]
    assert has[0] == {"category Hair", "category Shampoo", "brand ACME", "word mild", "word shampoo"}
    assert has[1] == {"category Hair", "word hair", "word brush"}
    assert has[2] == {"brand ACME", "word shampoo", "word bar"}
    assert found.second_level.tolist() == [2, 1, -1]
    assert found.texts[1] == "hair brush 2"


def test_rare_attributes_are_left_out_and_numbers_serve_for_missing_names(tmp_path):
    found = attributes.load("amazon_beauty", written(tmp_path, names=None), least=2)
    assert found.names == ("brand 3", "category 1", "word shampoo")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arrays": {**ARRAYS, "cat_ids": np.array([1, 2, 9])}}, "'cat_ids', element 2 is 9, outside of 1 to 3"),
        ({"arrays": {**ARRAYS, "brand_id": np.array([3, 0])}}, "'cat_indptr' is for 3 items, 'brand_id' for 2"),
        ({"arrays": {**ARRAYS, "cat_indptr": np.array([0, 2, 1, 3])}}, "falls from 2 to 1"),
        ({"arrays": {k: v for k, v in ARRAYS.items() if k != "brand_id"}}, "field 'brand_id' is missing"),
        ({"texts": "one\ntwo\n"}, "has 2 lines for 3 items"),
    ],
)
def test_damage_is_named(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        attributes.load("amazon_beauty", written(tmp_path, **change))


def test_missing_files_and_names_are_refused(tmp_path):
    with pytest.raises(DataError, match="with the attributes of amazon_beauty is missing"):
        attributes.load("amazon_beauty", tmp_path)
    with pytest.raises(DataError, match="no attributes of data set 'gowalla'"):
        attributes.load("gowalla", tmp_path)


@pytest.mark.parametrize(("name", "items"), [("amazon_beauty", 12101), ("amazon_sports", 18357)])
def test_real_attributes_are_read(name, items):
    base = data_dir()
    if base is None or not (base / name).is_dir():
        pytest.skip(f"the files of {name} are not here")
    found = attributes.load(name)
    assert found.present.shape == (items, len(found.names))
    assert len(found.texts) == len(found.second_level) == items
    assert np.bincount(found.present.indices).min() >= 20
