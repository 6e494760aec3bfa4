import gzip
import hashlib
import http.server
import struct
import subprocess
import sys
import threading
import urllib.error
from pathlib import Path

import numpy as np
import pytest

from core.datasets import data_dir, mnist
from core.datasets.implicit import BUILDERS, AmazonBeauty, AmazonSports, Gowalla, LastfmCf
from core.datasets.interactions import (
    Interactions,
    from_rows,
    from_table,
    hold_out,
    load,
    load_sequences,
    split_last,
    validate,
)
from core.datasets.prepared import prepared
from core.datasets.raw import Source, download, find, read_npz, read_rows, verify
from core.errors import DataError
from experiments.lab.datasets import where

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


@pytest.fixture(scope="module")
def cache_of_real_data(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def real(own_cache, cache_of_real_data, monkeypatch):
    monkeypatch.setenv("RELIC_CACHE", str(cache_of_real_data))


def write(folder: Path, **changes) -> Path:
    path = folder / "lastfm_cf" / "lastfm_cf.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{name: array for name, array in {**ARRAYS, **changes}.items() if array is not None})
    return path


def test_importing_the_package_loads_no_tfds():
    code = "import sys, core.datasets, core.datasets.interactions; assert 'tensorflow_datasets' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


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


@pytest.mark.parametrize("part", ["array_record", "dataset_info.json"])
def test_a_damaged_prepared_set_names_the_folder_to_remove(tmp_path, part):
    write(tmp_path)
    load("lastfm_cf", tmp_path)
    (path,) = (tmp_path / "cache" / "tfds").glob(f"*/lastfm_cf/*/*{part}*")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"the prepared data set is damaged .*remove this folder") as caught:
        load("lastfm_cf", tmp_path)
    assert str(tmp_path / "cache" / "tfds") in str(caught.value)


def emptied(path):
    path.write_bytes(b"")


def flipped(path):
    body = bytearray(path.read_bytes())
    for at in range(64, len(body), 64):
        body[at] ^= 0x10
    path.write_bytes(body)


@pytest.mark.parametrize("damage", [emptied, flipped, Path.unlink])
@pytest.mark.parametrize("when", ["before", "after"])
def test_prepared_records_that_are_damaged_or_gone_are_named(tmp_path, damage, when):
    write_mnist(tmp_path / "mnist")
    records = mnist.data_source("test", tmp_path)
    (path,) = (tmp_path / "cache" / "tfds").glob("*/mnist/*/*array_record*")

    def read():
        rows = mnist.data_source("test", tmp_path) if when == "before" else records
        return [rows[i] for i in range(len(rows))]

    damage(path)
    with pytest.raises(DataError, match=r"the prepared data set is damaged .*remove this folder"):
        read()


CORRUPTIONS = {
    "missing field": ({"test_items": None}, r"field 'test_items' is missing; it has .*train_items"),
    "NaN": ({"train_items": np.array([3, 1, np.nan, 1, 2])}, r"'train_items', element 2 is nan; whole numbers"),
    "fraction": ({"train_items": np.array([3, 1, 0.5, 1, 2])}, r"element 2 is 0\.5; whole numbers"),
    "wrong type": ({"train_items": np.array(list("abcde"))}, "'train_items' has type <U1"),
    "objects": ({"train_items": np.array([None] * 5)}, "not an npz file"),
    "id too large": ({"train_items": np.array([3, 1, 0, 1, 4])}, "'train_items', element 4 is 4, outside of 0 to 3"),
    "negative id": ({"test_items": np.array([-1, 3])}, "'test_items', element 0 is -1, outside of 0 to 3"),
    "duplicate": ({"train_items": np.array([3, 1, 0, 1, 1])}, r"user 2 has item 1 \(from 0\) more than once in train"),
    "overlap": ({"test_items": np.array([3, 3])}, r"user 0 has item 3 \(from 0\) in both train and test"),
    "falling pointers": ({"train_indptr": np.array([0, 3, 2, 5])}, "'train_indptr' falls from 3 to 2 at user 1"),
    "cut items": ({"train_items": np.array([3, 1, 0])}, "'train_indptr' runs from 0 to 5; it must run from 0 to 3"),
    "wrong length": ({"train_indptr": np.array([0, 5])}, r"'train_indptr' has shape \(2,\), not \(4,\) for 3 users"),
    "wrong shape field": ({"shape": np.array([3])}, r"field 'shape' has shape \(1,\), not \(2,\)"),
    "two dimensions": ({"train_items": np.ones((5, 1), int)}, r"'train_items' has shape \(5, 1\); one dimension"),
    "too large for 32 bits": ({"shape": np.array([3, 2**40])}, "field 'shape' is .*; ids must fit into 32 bits"),
    "beyond whole numbers": ({"train_items": np.array([3, 1, 1e300, 1, 2])}, r"element 2 is 1e\+300; whole numbers"),
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


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_with_flipped_bytes_is_refused_or_reads_the_same(tmp_path, save):
    rng = np.random.default_rng(0)
    path = write(tmp_path)
    save(path, **ARRAYS)
    whole, expected = path.read_bytes(), from_rows(*LastfmCf.parse([path]), "whole")
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=2):
            damaged[place] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            assert_same(from_rows(*LastfmCf.parse([path]), "damaged"), expected)
        except DataError:
            refused += 1
    assert refused > 100


def test_a_single_array_is_not_an_npz(tmp_path):
    path = tmp_path / "x.npz"
    with open(path, "wb") as file:
        np.save(file, np.arange(3))
    with pytest.raises(DataError, match=r"x\.npz: truncated or not an npz file \(a single array\)"):
        read_npz(path, ["a"])


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
        ("1 2 3\n--4 5 6\n", "line 2: '--4' is not a whole number"),
        ("1_0 2 3\n", "line 1: '1_0' is not a whole number"),
        ("1 99999999999999999999 3\n", "line 1: '99999999999999999999' is not a whole number"),
        ("1 2 3\n\n4 5 6\n", "line 2 is empty"),
        ("1 2 \xff\n", "not a text file of numbers"),
    ],
)
def test_a_damaged_text_file_is_named_by_line(tmp_path, text, message):
    path = tmp_path / "data1.txt"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message) as caught:
        read_rows(path, columns=3)
    assert str(path) in str(caught.value)


def parse_texts(builder, folder: Path, *texts: str):
    paths = [folder / source.name for source in builder.SOURCES[-len(texts) :]]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text.encode())
    return builder.parse(paths)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("1893 1 5\n", "1 1 5\n", r"data1\.txt, line 1: user 1893 is outside of 1 to 1892"),
        ("1 1 5\n1 0 5\n", "1 1 5\n", r"data1\.txt, line 2: item 0 is outside of 1 to 4489"),
        ("1 1 5\n", "1 4490 5\n", r"test1\.txt, line 1: item 4490 is outside of 1 to 4489"),
        ("2 1 5\n2 1 6\n", "1 1 5\n", r"user 1 has item 0 \(from 0\) more than once in train"),
        ("2 1 5\n", "2 1 5\n", r"user 1 has item 0 \(from 0\) in both train and test"),
        ("2 1 5\n", "2 2 5\n", r"data1\.txt: cut or changed, for its SHA-256 is \w+, not c82af"),
    ],
)
def test_a_damaged_published_last_fm_is_named_by_file_and_line(tmp_path, train, test, message):
    with pytest.raises(DataError, match=message):
        parse_texts(LastfmCf, tmp_path, train, test)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1 2\n29858 1\n", "line 2: user 29858 is outside of 0 to 29857"),
        ("0 1 2\n1 40981\n", "line 2: item 40981 is outside of 0 to 40980"),
        ("0 1 2\n0 3\n", "line 2: user 0 is there twice"),
    ],
)
def test_damaged_test_lists_of_gowalla_are_named_by_line(tmp_path, text, message):
    (tmp_path / "test.txt").write_text(text)
    with pytest.raises(DataError, match=rf"test\.txt, {message}"):
        Gowalla.listed(tmp_path / "test.txt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indptr": np.array([0, 1])}, "field 'indptr' has 2 elements, not 70840"),
        ({"indices": np.array([], int)}, "field 'indptr' runs from 0 to 1; it must run from 0 to 0"),
        ({"indices": np.array([3])}, "field 'indices', element 0 is 3, outside of 29858 to 70838"),
    ],
)
def test_a_damaged_adjacency_of_gowalla_is_named_by_field(tmp_path, changes, message):
    indptr = np.ones(29858 + 40981 + 1, int)
    indptr[0] = 0
    np.savez(tmp_path / "s_adj_mat.npz", **{"indptr": indptr, "indices": np.array([29858]), **changes})
    with pytest.raises(DataError, match=message):
        Gowalla.neighbours(tmp_path / "s_adj_mat.npz")


@pytest.mark.parametrize(
    ("indptr", "items", "message"),
    [
        ([0, 3, 5], [0, 1, 2, 3, 4], "field 'seq_items', element 0 is 0, outside of 1 to 12101"),
        ([0, 3, 5], [1, 2, 3, 4, 12102], "field 'seq_items', element 4 is 12102"),
        ([0, 3, 5], [1, 2, 1, 3, 4], "sequence 1 names an item twice"),
        ([0, 0, 5], [1, 2, 3, 4, 5], "sequence 1 has no item"),
        ([1, 3, 5], [1, 2, 3, 4, 5], "field 'seq_indptr' runs from 1 to 5; it must run from 0 to 5"),
        ([0, 4, 3, 5], [1, 2, 3, 4, 5], "field 'seq_indptr' falls from 4 to 3 at user 1"),
        ([], [], "field 'seq_indptr' is empty"),
        ([0], [], "sequence 1 has no item"),
    ],
)
def test_damaged_sequences_are_named_by_field(tmp_path, indptr, items, message):
    path = tmp_path / "beauty.npz"
    np.savez(path, seq_indptr=np.array(indptr, int), seq_items=np.array(items, int))
    with pytest.raises(DataError, match=message) as caught:
        AmazonBeauty.parse([path])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 3 4\n2 0 3\n", "line 2: item 0 is outside of 1 to 12101"),
        ("1 3 4\n2 3 12102\n", "line 2: item 12102"),
        ("1 3 4\n2\n", "line 2 has no item"),
        ("1 3 4\n2 5 6 5\n", "line 2 names an item twice"),
        ("1 3 4\n2 5 6\n", "cut or changed"),
    ],
)
def test_damaged_published_sequences_are_named_by_line(tmp_path, text, message):
    with pytest.raises(DataError, match=rf"sequential_data\.txt[,:] {message}"):
        parse_texts(AmazonBeauty, tmp_path, text)


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


def test_a_download_that_breaks_off_is_an_error_and_leaves_nothing(tmp_path):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"1 2")

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.handle_request)
        thread.start()
        with pytest.raises(DataError, match="cannot be fetched"):
            download(Source(f"http://127.0.0.1:{httpd.server_address[1]}/a.txt", "0" * 64), tmp_path / "raw" / "a.txt")
        thread.join()
    assert not list(tmp_path.glob("raw/*"))


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RELIC_CACHE", str(tmp_path / "file"))
    write(tmp_path)
    with pytest.raises(DataError, match=r"file/tfds/\w+ cannot be written .* RELIC_CACHE"):
        load("lastfm_cf", tmp_path)


def test_verify_accepts_the_published_bytes_only(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("1 2 3\n")
    source = Source("http://example.org/a.txt", hashlib.sha256(b"1 2 3\n").hexdigest())
    verify([path], [source])
    path.write_text("1 2 3")
    with pytest.raises(DataError, match=r"a\.txt: cut or changed.*get it from http://example\.org/a\.txt"):
        verify([path], [source])


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
def test_counts_are_those_of_the_published_sets(name, counts, real):
    found = load(name).statistics()
    columns = ("users", "items", "train", "test", "users_without_training_items")
    assert tuple(found[column] for column in columns) == counts
    if name.startswith("amazon"):
        assert found["train"] + found["test"] == {"amazon_beauty": 198502, "amazon_sports": 296337}[name]


def text_of(rows) -> str:
    return "".join(" ".join(map(str, row)) + "\n" for row in rows)


@needs_data
def test_both_layouts_of_last_fm_agree(tmp_path, real):
    data = load("lastfm_cf")
    users = np.arange(data.shape[0])
    for file, indptr, items in (("data1.txt", *data[:2]), ("test1.txt", *data[2:4])):
        owner = np.repeat(users, np.diff(indptr))
        order = np.random.default_rng(0).permutation(len(items))
        rows = np.stack([owner + 1, items + 1, np.full(len(items), 7)], 1)[order]
        (tmp_path / file).write_text(text_of(rows))
    rows = LastfmCf.parse_sources([tmp_path / "data1.txt", tmp_path / "test1.txt"])
    assert_same(from_rows(*rows, "text"), data)


@needs_data
def test_both_layouts_of_gowalla_agree(tmp_path, real):
    data = load("gowalla")
    users, items = data.shape
    indptr = np.concatenate([data.train_indptr, np.full(items, data.train_indptr[-1])])
    np.savez(tmp_path / "s_adj_mat.npz", indptr=indptr, indices=data.train_items + users)
    lists = [[u, *data.test_items[data.test_indptr[u] : data.test_indptr[u + 1]]] for u in range(users)]
    (tmp_path / "test.txt").write_text(text_of(lists))
    rows = Gowalla.parse_sources([tmp_path / "s_adj_mat.npz", tmp_path / "test.txt"])
    assert_same(from_rows(*rows, "published"), data)


@needs_data
@pytest.mark.parametrize(("builder", "end"), [(AmazonBeauty, "\r\n"), (AmazonSports, "\n")])
def test_the_npz_of_amazon_holds_the_published_text_to_the_byte(tmp_path, builder, end):
    path = builder.locate(REAL)[0]
    arrays = read_npz(path, ("seq_indptr", "seq_items"))
    sequences = np.split(arrays["seq_items"], arrays["seq_indptr"][1:-1])
    text = text_of([u + 1, *s] for u, s in enumerate(sequences)).replace("\n", end)
    rows = parse_texts(builder, tmp_path, text)  # which checks its SHA-256
    assert_same(from_rows(*rows, "text"), from_rows(*builder.parse([path]), "npz"))


@needs_data
def test_sequences_keep_the_order_of_the_file_and_hold_the_same_sets(real):
    arrays = read_npz(AmazonBeauty.locate(REAL)[0], ("seq_indptr", "seq_items"))
    sequences, sets = load_sequences("amazon_beauty"), load("amazon_beauty")
    np.testing.assert_array_equal(sequences.indptr, arrays["seq_indptr"])
    np.testing.assert_array_equal(sequences.items, arrays["seq_items"] - 1)
    np.testing.assert_array_equal(sequences.train_lengths, np.diff(sets.train_indptr))
    assert sequences.shape == sets.shape


def test_a_set_without_order_has_no_sequences():
    with pytest.raises(DataError, match="'gowalla' have no order of time; those of amazon_beauty, amazon_sports have"):
        load_sequences("gowalla")


@needs_data
def test_mnist_is_the_standard_test_split(tmp_path):
    digits = mnist.load("test")
    assert digits.images.shape == (10_000, 28, 28, 1)
    assert digits.images.mean() == pytest.approx(33.791, abs=5e-4)
    assert np.bincount(digits.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def write_mnist(folder: Path, images=None, labels=None, suffix: str = "") -> None:
    images = np.arange(3 * 784, dtype=np.uint8).reshape(3, 28, 28) if images is None else images
    labels = np.array([3, 1, 4], np.uint8) if labels is None else labels
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("t10k-images-idx3-ubyte", images), ("t10k-labels-idx1-ubyte", labels)):
        body = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()
        (folder / (name + suffix)).write_bytes(gzip.compress(body) if suffix else body)


@pytest.mark.parametrize(("folder", "suffix"), [("mnist", ""), ("mnist_t10k", ".gz")])
def test_mnist_is_read_back_from_array_records(tmp_path, folder, suffix):
    write_mnist(tmp_path / folder, suffix=suffix)
    digits, source = mnist.load("test", tmp_path), mnist.data_source("test", tmp_path)
    found = sorted((int(row["label"]), row["image"].tobytes()) for row in (source[i] for i in range(3)))
    assert found == sorted((int(label), image.tobytes()) for image, label in zip(*digits, strict=True))
    assert source[0]["image"].shape == (28, 28, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"labels": np.array([3, 10, 4], np.uint8)},
            "labels-idx1-ubyte: field 'labels', element 1 is 10, outside",
        ),
        ({"labels": np.array([3, 1], np.uint8)}, "labels-idx1-ubyte: 2 labels for the 3 images of"),
        ({"labels": np.zeros((3, 1), np.uint8)}, "labels-idx1-ubyte: the header 00000802 is not that of 1-dim"),
        ({"images": np.zeros((3, 28, 27), np.uint8)}, r"images-idx3-ubyte: field 'images' has shape \(3, 28, 27\)"),
        ({"images": np.zeros((0, 28, 28), np.uint8)}, r"images-idx3-ubyte: field 'images' has shape \(0, 28, 28\)"),
    ],
)
def test_damaged_idx_files_are_named_by_field(tmp_path, changes, message):
    write_mnist(tmp_path / "mnist", **changes)
    with pytest.raises(DataError, match=message):
        mnist.load("test", tmp_path)


@pytest.mark.parametrize(("suffix", "message"), [("", "bytes follow the header"), (".gz", "not an IDX file")])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_idx_files_are_named(tmp_path, suffix, message, share):
    write_mnist(tmp_path / "mnist", suffix=suffix)
    path = tmp_path / "mnist" / f"t10k-images-idx3-ubyte{suffix}"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=message) as caught:
        mnist.load("test", tmp_path)
    assert str(path) in str(caught.value)


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


def test_dates_in_a_table_of_ones_own_are_ordered_as_dates(tmp_path):
    path = tmp_path / "mine.csv"
    days = ["2020-10-01T00:00:00+02:00", "2020-09-30T23:00:00Z", "2020-01-01", "2019-12-31 10:00"]
    path.write_text("user,item,timestamp\n" + "".join(f"ann,i{k},{day}\n" for k, day in enumerate(days)))
    assert from_table(path).test_items.tolist() == [1]


def test_ids_of_ones_own_are_text(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("user,item\n007,NA\n7,NA\n7,null\n")
    assert from_table(path).shape == (2, 2)


def test_a_table_without_times_is_split_by_seed(tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_text("user\titem\n" + "".join(f"7\t{i}\n" for i in range(10)))
    assert_same(from_table(path, seed=1), from_table(path, seed=1))
    assert from_table(path, seed=1).test_items.tolist() != from_table(path, seed=2).test_items.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,thing\n1,2\n", r"column 'item' \(what\) is missing; it has user, thing"),
        ("user,item\n1,2\n3,\n", "column 'item' in row 3 is empty"),
        ("user,item,timestamp\n1,2,5\n1,3,x\n", "column 'timestamp' in row 3 is neither a number nor a date"),
        ("user,item,timestamp\n1,2,5\n1,3,nan\n", "column 'timestamp' in row 3 is neither a number nor a date"),
        ("user,item,timestamp\n1,2,2020-01-01\n1,3,\n", "column 'timestamp' in row 3 is neither a number nor a date"),
        ("user,item\n1,2,3\n", "its rows have more columns than its first line"),
        ("user,item\n1,2\n1,2,3,4\n", "not a table of columns"),
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


def drawn(test_items):
    rng = np.random.default_rng(0)
    train = [rng.choice(40, size=size, replace=False) for size in (0, 1, 4, 10, 30)]
    test = [np.setdiff1d(np.arange(40), row)[:test_items] for row in train]
    return from_rows(train, test, 40, "drawn")


def test_held_out_items_are_a_share_of_each_users_training_items_and_leave_one():
    found = drawn(test_items=2)
    split, kept = hold_out(found, 0.2)
    np.testing.assert_array_equal(np.diff(split.test_indptr), [0, 0, 1, 2, 6])
    np.testing.assert_array_equal(split.train_items, found.train_items[kept])
    np.testing.assert_array_equal(split.test_items, found.train_items[~kept])
    np.testing.assert_array_equal(np.diff(hold_out(found, 1.0)[0].train_indptr), [0, 1, 1, 1, 1])


def test_held_out_items_depend_on_the_seed_and_not_on_the_test_items():
    first, again, other = (hold_out(found, 0.2)[1] for found in (drawn(2), drawn(2), drawn(5)))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, other)
    assert (hold_out(drawn(2), 0.2, seed=1)[1] != first).any()
