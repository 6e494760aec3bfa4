import hashlib
import http.server
import threading
import urllib.error
from pathlib import Path

import numpy as np
import pytest

from core.datasets import data_dir
from core.datasets.implicit import BUILDERS, AmazonBeauty, Gowalla, LastfmCf, prepared
from core.datasets.interactions import Interactions, from_table, load, split_last, validate
from core.datasets.raw import Source, download, find, read_npz, read_rows
from core.errors import DataError
from experiments.datasets import where

REAL = data_dir()
needs_data = pytest.mark.skipif(REAL is None, reason="no data directory: set RELIC_DATA to the raw files")
ARRAYS = {
    "train_indptr": np.array([0, 2, 2, 5]),
    "train_items": np.array([3, 1, 0, 1, 2]),
    "test_indptr": np.array([0, 1, 1, 2]),
    "test_items": np.array([0, 3]),
    "shape": np.array([3, 4]),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RELIC_CACHE", str(tmp_path / "cache"))


def write(folder: Path, **changes) -> Path:
    path = folder / "lastfm_cf" / "lastfm_cf.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{name: array for name, array in {**ARRAYS, **changes}.items() if array is not None})
    return path


def test_items_are_sorted_within_users_and_users_without_training_items_are_kept(tmp_path):
    write(tmp_path)
    data = load("lastfm_cf", tmp_path)
    assert data.train_items.tolist() == [1, 3, 0, 1, 2]
    assert data.shape == (3, 4)
    assert data.statistics()["users_without_training_items"] == 1
    assert all(array.dtype == np.int32 for array in data[:4])


def test_changed_raw_files_are_prepared_anew(tmp_path):
    write(tmp_path)
    load("lastfm_cf", tmp_path)
    write(tmp_path, train_items=np.array([3, 2, 0, 1, 2]))
    assert load("lastfm_cf", tmp_path).train_items.tolist() == [2, 3, 0, 1, 2]


def test_a_prepared_set_is_read_from_array_records(tmp_path):
    raw = [write(tmp_path)]
    builder = prepared(LastfmCf, raw)
    assert builder.info.splits["users"].num_examples == 3
    assert any(path.name.endswith(".array_record-00000-of-00001") for path in builder.data_path.iterdir())
    assert len(builder.as_data_source("users")) == 3


CORRUPTIONS = {
    "missing field": ({"test_items": None}, r"field 'test_items' is missing; it has .*train_items"),
    "NaN": ({"train_items": np.array([3, 1, np.nan, 1, 2])}, r"'train_items', element 2 is nan; whole numbers"),
    "fraction": ({"train_items": np.array([3, 1, 0.5, 1, 2])}, r"element 2 is 0\.5; whole numbers"),
    "wrong type": ({"train_items": np.array(list("abcde"))}, "'train_items' has type <U1"),
    "objects": ({"train_items": np.array([None] * 5)}, "not an npz file"),
    "id too large": ({"train_items": np.array([3, 1, 0, 1, 4])}, "'train_items', element 4 is 4, outside of 0 to 3"),
    "negative id": ({"test_items": np.array([-1, 3])}, "'test_items', element 0 is -1, outside of 0 to 3"),
    "duplicate": ({"train_items": np.array([3, 1, 0, 1, 1])}, "user 2 has item 1 more than once in train"),
    "overlap": ({"test_items": np.array([3, 3])}, "user 0 has item 3 in both train and test"),
    "falling pointers": ({"train_indptr": np.array([0, 3, 2, 5])}, "'train_indptr' falls from 3 to 2 at user 1"),
    "cut items": ({"train_items": np.array([3, 1, 0])}, "'train_indptr' runs from 0 to 5, not from 0 to 3 items"),
    "wrong length": ({"train_indptr": np.array([0, 5])}, r"'train_indptr' has shape \(2,\), not \(4,\) for 3 users"),
    "wrong shape field": ({"shape": np.array([3])}, r"field 'shape' has shape \(1,\), not \(2,\)"),
    "nothing": (
        {"train_indptr": np.zeros(4, int), "train_items": np.zeros(0, int)},
        "no training interaction; nothing can be learned",
    ),
}


@pytest.mark.parametrize(("changes", "message"), CORRUPTIONS.values(), ids=CORRUPTIONS.keys())
def test_a_damaged_npz_gives_one_error_with_file_field_and_row(tmp_path, changes, message):
    path = write(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        load("lastfm_cf", tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("size", [0, 100, 400])
def test_a_truncated_npz_is_named(tmp_path, size):
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"lastfm_cf\.npz: truncated or not an npz file"):
        load("lastfm_cf", tmp_path)


def test_an_unreadable_npz_is_named(tmp_path):
    folder = tmp_path / "x.npz"
    folder.mkdir()
    with pytest.raises(DataError, match=r"x\.npz"):
        read_npz(folder, ["a"])
    with pytest.raises(DataError, match="no such file"):
        read_npz(tmp_path / "none.npz", ["a"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("1 2 3\n4 5\n", "line 2 has 2 columns, not 3"),
        ("1 2 3\n4 nan 6\n", "line 2: 'nan' is not a whole number"),
        ("1 2 3\n4 5.5 6\n", r"line 2: '5\.5' is not a whole number"),
        ("1 2 \xff\n", "not a text file of numbers"),
    ],
)
def test_a_damaged_text_file_is_named_by_line(tmp_path, text, message):
    path = tmp_path / "data1.txt"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message) as caught:
        read_rows(path, columns=3)
    assert str(path) in str(caught.value)


def test_ids_out_of_range_in_the_published_text_are_named(tmp_path):
    (tmp_path / "data1.txt").write_text("1893 1 5\n")
    (tmp_path / "test1.txt").write_text("1 1 5\n")
    with pytest.raises(DataError, match="user of the train rows, element 0 is 1892, outside of 0 to 1891"):
        LastfmCf.parse_sources([tmp_path / "data1.txt", tmp_path / "test1.txt"])


def offline(*args, **kwargs):
    raise urllib.error.URLError("network is unreachable")


def test_without_files_and_network_the_error_says_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(DataError, match=r"gowalla\.npz.*unreachable.*--data-dir or RELIC_DATA") as caught:
        load("gowalla", tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(DataError, match="no data set 'nope'; known are lastfm_cf, gowalla"):
        load("nope")


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "a.txt").write_text("1 2 3\n")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(folder), **kwargs)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}/a.txt"
        httpd.shutdown()
        thread.join()


def test_a_download_is_kept_only_if_its_checksum_is_right(tmp_path, server):
    good = Source(server, hashlib.sha256(b"1 2 3\n").hexdigest())
    assert download(good, tmp_path / "raw" / "a.txt").read_text() == "1 2 3\n"
    assert find("some", ["some.npz"], [good], tmp_path)[0].read_text() == "1 2 3\n"
    with pytest.raises(DataError, match="it changed or arrived damaged"):
        download(Source(server, "0" * 64), tmp_path / "raw" / "b.txt")
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["a.txt"]


def test_a_damaged_download_in_the_cache_is_fetched_again(tmp_path, server):
    source = Source(server, hashlib.sha256(b"1 2 3\n").hexdigest())
    path = tmp_path / "a.txt"
    path.write_text("1 2")
    assert download(source, path).read_text() == "1 2 3\n"


@needs_data
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("lastfm_cf", (1892, 4489, 42135, 10533, 14)),
        ("gowalla", (29858, 40981, 810128, 217242, 0)),
        ("amazon_beauty", (22363, 12101, 159912, 38590, 0)),
        ("amazon_sports", (35598, 18357, 238863, 57474, 0)),
    ],
)
def test_counts_are_those_of_the_published_sets(name, counts):
    found = load(name).statistics()
    columns = ("users", "items", "train", "test", "users_without_training_items")
    assert tuple(found[column] for column in columns) == counts
    if name.startswith("amazon"):
        assert found["train"] + found["test"] == {"amazon_beauty": 198502, "amazon_sports": 296337}[name]


def text_of(rows) -> str:
    return "".join(" ".join(map(str, row)) + "\n" for row in rows)


@needs_data
def test_both_layouts_of_last_fm_agree(tmp_path):
    data = LastfmCf.parse(LastfmCf.locate(REAL))
    users = np.arange(data.shape[0])
    for file, indptr, items in (("data1.txt", *data[:2]), ("test1.txt", *data[2:4])):
        owner = np.repeat(users, np.diff(indptr))
        order = np.random.default_rng(0).permutation(len(items))
        rows = np.stack([owner + 1, items + 1, np.full(len(items), 7)], 1)[order]
        (tmp_path / file).write_text(text_of(rows))
    assert_same(LastfmCf.parse([tmp_path / "data1.txt", tmp_path / "test1.txt"]), data)


@needs_data
def test_both_layouts_of_gowalla_agree(tmp_path):
    data = Gowalla.parse(Gowalla.locate(REAL))
    users, items = data.shape
    indptr = np.concatenate([data.train_indptr, np.full(items, data.train_indptr[-1])])
    np.savez(tmp_path / "s_adj_mat.npz", indptr=indptr, indices=data.train_items + users)
    rows = [[u, *data.test_items[data.test_indptr[u] : data.test_indptr[u + 1]]] for u in range(users)]
    (tmp_path / "test.txt").write_text(text_of(rows))
    assert_same(Gowalla.parse([tmp_path / "s_adj_mat.npz", tmp_path / "test.txt"]), data)


@needs_data
def test_both_layouts_of_amazon_agree(tmp_path):
    path = AmazonBeauty.locate(REAL)[0]
    arrays = read_npz(path, ("seq_indptr", "seq_items"))
    sequences = np.split(arrays["seq_items"], arrays["seq_indptr"][1:-1])
    (tmp_path / "sequential_data.txt").write_text(text_of([u + 1, *s] for u, s in enumerate(sequences)))
    assert_same(AmazonBeauty.parse([tmp_path / "sequential_data.txt"]), AmazonBeauty.parse([path]))


def assert_same(a: Interactions, b: Interactions):
    assert a.shape == b.shape
    for x, y in zip(a[:4], b[:4], strict=True):
        np.testing.assert_array_equal(x, y)


def test_the_last_fifth_is_held_out_and_at_least_one():
    train, test = split_last([np.arange(10), np.arange(5, 8), np.arange(1)])
    assert [part.tolist() for part in train] == [list(range(8)), [5, 6], []]
    assert [part.tolist() for part in test] == [[8, 9], [7], [0]]


def test_a_table_of_ones_own_is_split_by_time(tmp_path):
    path = tmp_path / "mine.csv"
    rows = [("ann", f"i{k}", 100 - k) for k in range(5)] + [("bob", "i9", 3)]
    path.write_text("user,item,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    data = from_table(path)
    assert data.shape == (2, 6)
    assert data.test_items.tolist() == [0]
    assert data.train_items.tolist() == [1, 2, 3, 4, 5]
    assert data.statistics()["users_with_test_items"] == 1


def test_a_table_without_times_is_split_by_seed(tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_text("user\titem\n" + "".join(f"7\t{i}\n" for i in range(10)))
    assert_same(from_table(path, seed=1), from_table(path, seed=1))
    assert from_table(path, seed=1).test_items.tolist() != from_table(path, seed=2).test_items.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,thing\n1,2\n", r"column 'item' \(what\) is missing; it has user, thing"),
        ("user,item\n1,2\n3,\n", r"column 'item' is empty \(NaN\) in row 3"),
        ("user,item\n1,2\n1,2\n", "user 0 has item 0"),
        ("user,item\n", "nothing can be learned"),
        ("", "not a table"),
    ],
)
def test_a_bad_table_of_ones_own_is_named_by_column_and_row(tmp_path, text, message):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        from_table(path)
    assert str(path) in str(caught.value)


def test_validate_names_the_source():
    with pytest.raises(DataError, match="generator: 0 users"):
        validate(
            Interactions(np.zeros(1, int), np.zeros(0, int), np.zeros(1, int), np.zeros(0, int), (0, 3)), "generator"
        )


def test_raw_files_are_found_before_anything_is_fetched(tmp_path):
    write(tmp_path)
    assert where(LastfmCf, tmp_path) == tmp_path / "lastfm_cf"
    assert where(Gowalla, tmp_path) is None
    assert all(name == builder.name for name, builder in BUILDERS.items())
