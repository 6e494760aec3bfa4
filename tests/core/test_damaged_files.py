"""Whatever happened to a file, its reader gives one error that names it, or the right values: of every reader."""

import gzip
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core.datasets import data_dir
from core.datasets.interactions import from_table
from core.datasets.vectors import META, NAME, Vectors, write_vectors
from core.errors import ConfigError, DataError
from core.lm import Decoder, DecoderConfig, FileTokenizer, load_params, read_config
from core.safetensors import load_folder, save_folder
from tests.core.test_observed import READERS, no_network

__all__ = ["no_network"]
REAL = data_dir()
FIELDS = """train_indptr train_items test_indptr test_items shape indptr indices seq_indptr seq_items cat_indptr cat_ids
brand_id erp alcoholic x subject condition high_impulsivity t y mu0 mu1 counts_tr velocity_tr target_tr env env_names
variables consensus_parents keys images lon_rounded lat_rounded test_thickness test_intensity""".split()  # noqa: SIM905


class Bomb:
    """Writes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def npz(member: bytes) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        for field in FIELDS:
            archive.writestr(f"{field}.npy", member)
    return body.getvalue()


def npy(array) -> bytes:
    body = io.BytesIO()
    np.save(body, array, allow_pickle=True)
    return body.getvalue()


def declares(shape: str) -> bytes:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(16)


NOISE = np.random.default_rng(0).bytes(3000)
CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda good: b"",
    "one byte": lambda good: good[:1],
    "cut": lambda good: good[: len(good) // 2],
    "without its end": lambda good: good[:-1],
    "flipped in the middle": lambda good: flipped(good, len(good) // 2),
    "flipped near the start": lambda good: flipped(good, len(good) // 7),
    "NUL": lambda good: bytes(500),
    "latin-1": lambda good: "caf\xe9,1\n2,3\n".encode("latin-1"),
    "brackets": lambda good: b"[" * 200_000,
    "noise": lambda good: NOISE,
    "a list": lambda good: b"[1, 2, 3]",
    "null": lambda good: b"null",
}
OF_NPZ = {
    "declares 320 GB": lambda good: npz(declares("(40000000000,)")),
    "declares less than it holds": lambda good: npz(declares("(1,)")),
    "declares a negative length": lambda good: npz(declares("(-2,)")),
    "text": lambda good: npz(npy(np.array(["a", "b"]))),
    "a number": lambda good: npz(npy(np.float64(3.0))),
    "NaN": lambda good: npz(npy(np.full(3, np.nan))),
    "nothing": lambda good: npz(npy(np.zeros(0))),
    "no array": lambda good: npz(b"no"),
}


def flipped(good: bytes, at: int) -> bytes:
    return good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :] if good else good


def folder(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path)


PLACES = {"a folder": folder, "a loop of links": loop, "a link to nothing": lambda path: path.symlink_to("nothing")}


def harms(name: str) -> dict[str, Callable[[bytes], bytes]]:
    """What may be in a file of this name; of a compressed one also what may be compressed there."""
    found = dict(CONTENTS)
    if name.endswith(".npz"):
        found |= OF_NPZ
    if name.endswith(".gz"):
        inner = ("empty", "NUL", "latin-1", "brackets", "noise", "a list", "null")
        found |= {f"compressed {what}": lambda good, do=CONTENTS[what]: gzip.compress(do(good)) for what in inner}
    return found


def put(base: Path, file: str) -> tuple[Path, bytes]:
    """The real files of a data set, but one, as links; where the other is to lie, and its content."""
    target, real = base / file, REAL / file if REAL else None
    target.parent.mkdir(parents=True)
    for path in real.parent.iterdir() if real and real.parent.is_dir() else ():
        if path.name != target.name:
            (target.parent / path.name).symlink_to(path)
    return target, real.read_bytes() if real and real.is_file() else b"\x1f\x8b nothing"


ALL = {
    **READERS,
    "attribute names": (READERS["attributes of amazon_beauty"][0], "amazon_beauty/attribute_names.json.gz"),
    "texts of items": (READERS["attributes of amazon_beauty"][0], "amazon_beauty/item_text.txt.gz"),
    "mnist labels": (READERS["mnist"][0], "mnist_t10k/t10k-labels-idx1-ubyte.gz"),
    "strokes": (READERS["morphomnist"][0], "morphomnist_ti/attributes.npz"),
}
"""With further files of some of them."""


def outcome(read: Callable[[Path], Any], base: Path) -> tuple[Any, str | None]:
    """What a reader gives, or the error of data that it raises; others fail the test."""
    try:
        return read(base), None
    except DataError as error:
        return None, str(error)


SLOW = ("gowalla", "amazon_sports", "wide39", "tiles35", "tiles39", "morphomnist", "mnist", "amazon_beauty")
"""Their real files are large: of these only what is wrong from the first byte is tried."""


@pytest.mark.parametrize("name", ALL)
def test_every_damaged_raw_file_is_one_error_of_data(name, tmp_path, no_network):
    read, file = ALL[name]
    target, good = put(tmp_path, file)
    value = None
    for harm, damage in harms(file).items():
        if any(part in f"{name} {file}" for part in SLOW) and ("flipped" in harm or harm in ("cut", "without its end")):
            continue
        target.write_bytes(damage(good))
        found, message = outcome(read, tmp_path)
        if message:
            assert str(tmp_path) in message or file.partition("/")[0] in message, harm
            continue
        if value is None:
            target.write_bytes(good)
            value = pickle.dumps(read(tmp_path))
        assert pickle.dumps(found) == value, f"{harm}: a value of its own"
    for harm, place in PLACES.items():
        target.unlink(missing_ok=True)
        place(target)
        with pytest.raises(DataError):
            read(tmp_path)
        target.rmdir() if harm == "a folder" else target.unlink()


@pytest.mark.parametrize("name", [name for name, (_, file) in READERS.items() if file.endswith(".npz")])
def test_no_reader_unpickles(name, tmp_path, no_network):
    read, file = READERS[name]
    target, _ = put(tmp_path, file)
    target.write_bytes(npz(npy(np.array([Bomb(tmp_path / "written")]))))
    with pytest.raises(DataError):
        read(tmp_path)
    assert not (tmp_path / "written").exists()


MODEL = DecoderConfig(vocab_size=11, width=8, layers=2, heads=2, max_length=16)
CONFIG = {"model_type": "gpt2", "vocab_size": 11, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16}
TABLE = "user,item,timestamp\n" + "".join(f"u{i % 5},i{i},{i}\n" for i in range(30))


def model(base: Path, **changes: Any) -> Path:
    """A checkpoint of GPT-2 with some tensors changed, or left out where they are None."""
    save = pytest.importorskip("safetensors.numpy").save_file
    shapes = jax.eval_shape(Decoder(MODEL).init, jax.random.key(0), jnp.zeros(2, jnp.int32))["params"]
    numbers = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: numbers.normal(size=leaf.shape).astype(np.float32), shapes)
    layers = params["layers"]
    tensors: dict[str, Any] = {
        "wte.weight": params["embed"]["embedding"], "wpe.weight": params["positions"]["embedding"],
        "ln_f.weight": params["norm"]["scale"], "ln_f.bias": params["norm"]["bias"],
    }  # fmt: skip
    names = {
        "ln_1": ("attention_norm", "scale"), "ln_2": ("mlp_norm", "scale"), "attn.c_proj": ("attention", "output"),
        "mlp.c_fc": ("mlp", "up"), "mlp.c_proj": ("mlp", "down"),
    }  # fmt: skip
    for i in range(MODEL.layers):
        for theirs, (room, ours) in names.items():
            leaf = layers[room] if ours == "scale" else layers[room][ours]
            tensors[f"h.{i}.{theirs}.weight"] = leaf["scale" if ours == "scale" else "kernel"][i]
            tensors[f"h.{i}.{theirs}.bias"] = leaf["bias"][i]
        qkv = [layers["attention"][name] for name in ("query", "key", "value")]
        tensors[f"h.{i}.attn.c_attn.weight"] = np.concatenate([part["kernel"][i] for part in qkv], axis=1)
        tensors[f"h.{i}.attn.c_attn.bias"] = np.concatenate([part["bias"][i] for part in qkv])
    kept = {name: np.ascontiguousarray(value) for name, value in (tensors | changes).items() if value is not None}
    save(kept, base / "model.safetensors")
    (base / "config.json").write_text(json.dumps(CONFIG))
    return base


def table(base: Path) -> Path:
    (base / "mine.csv").write_text(TABLE)
    return base


def store(base: Path) -> Path:
    write_vectors(base, [np.arange(12, dtype=np.float32).reshape(4, 3)])
    return base


def dictionary(base: Path) -> Path:
    return save_folder(base, {"w": np.ones((2, 3), np.float32)}, {"k": 1}, "sae.safetensors")


def words(base: Path) -> Path:
    library = pytest.importorskip("tokenizers")
    made = library.Tokenizer(library.models.WordLevel({"the": 0, "[UNK]": 1}, unk_token="[UNK]"))
    made.save(str(base / "tokenizer.json"))
    return base


OWN: dict[str, tuple[Callable[[Path], Path], str, Callable[[Path], Any]]] = {
    "own table": (table, "mine.csv", lambda base: from_table(base / "mine.csv")),
    "config": (model, "config.json", read_config),
    "weights": (model, "model.safetensors", lambda base: load_params(base, MODEL)),
    "index": (model, "model.safetensors.index.json", lambda base: load_params(base, MODEL)),
    "tokenizer": (words, "tokenizer.json", lambda base: FileTokenizer(base).encode("the cat")),
    "dictionary": (dictionary, "sae.safetensors", load_folder),
    "dictionary's settings": (dictionary, "cfg.json", load_folder),
    "vectors": (store, NAME, lambda base: np.stack(list(Vectors(base)))),
    "vectors' shape": (store, META, lambda base: np.stack(list(Vectors(base)))),
}


MAY_DIFFER = {
    "own table": ("flipped", "cut", "without its end"),
    **dict.fromkeys(("weights", "dictionary", "tokenizer", "dictionary's settings", "config"), ("flipped",)),
}
"""What the reader cannot tell: these files hold no checksum."""


@pytest.mark.parametrize("name", OWN)
def test_every_damaged_file_of_ones_own_is_one_error_or_reads_the_same(name, tmp_path):
    write, file, read = OWN[name]
    base = write(tmp_path)
    target = base / file
    if name == "index":
        target.write_text(json.dumps({"weight_map": {"wte.weight": "model.safetensors"}}))
    value, good = [np.asarray(leaf) for leaf in jax.tree.leaves(read(base))], target.read_bytes()
    spread = {f"flipped at {share}": lambda good, s=share: flipped(good, len(good) * s // 40) for share in range(40)}
    for harm, damage in (CONTENTS | spread).items():
        target.write_bytes(damage(good))
        found, message = outcome(read, base)
        if message:
            assert str(tmp_path) in message, harm
        elif not harm.startswith(MAY_DIFFER.get(name, ("none",))):
            assert str([np.asarray(leaf) for leaf in jax.tree.leaves(found)]) == str(value), harm
    for place in PLACES.values():
        target.unlink()
        place(target)
        if name != "index" or not target.is_symlink():
            with pytest.raises(DataError, match=str(tmp_path)):
                read(base)
        target.rmdir() if target.is_dir() and not target.is_symlink() else target.unlink()
        target.write_bytes(good)


CONFIGS = {
    **{f"{field} {value!r}": {**CONFIG, field: value}
       for field in ("n_embd", "n_layer", "n_head", "n_positions", "vocab_size")
       for value in (None, 0, -1, 2.5, "8", [8], {}, True, 10**12)},
    **{f"eps {value!r}": {**CONFIG, "layer_norm_epsilon": value} for value in (-1.0, 0, None, "x", [1])},
    "model_type a list": {**CONFIG, "model_type": ["gpt2"]},
    "activation a number": {**CONFIG, "activation_function": 5}, "tied text": {**CONFIG, "tie_word_embeddings": "yes"},
}  # fmt: skip
LLAMA = {
    "model_type": "llama", "vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 12,
}  # fmt: skip
LLAMAS = {
    "rope_scaling text": {"rope_scaling": "linear"}, "factor 0": {"rope_scaling": {"type": "linear", "factor": 0}},
    "factor text": {"rope_scaling": {"type": "linear", "factor": "2"}}, "theta text": {"rope_theta": "x"},
    "theta 0": {"rope_theta": 0}, "eps None": {"rms_norm_eps": None},
    "rope_parameters a list": {"rope_parameters": [1]},
    "layer_types 5": {"model_type": "qwen2", "use_sliding_window": True, "layer_types": 5},
    "window text": {"model_type": "mistral", "sliding_window": "all"}, "kv 0": {"num_key_value_heads": 0},
    "head_dim -4": {"head_dim": -4}, "llama3 without a length": {"rope_scaling": {"rope_type": "llama3", "factor": 2}},
}  # fmt: skip
CONFIGS |= {f"llama {name}": {**LLAMA, **change} for name, change in LLAMAS.items()}


@pytest.mark.parametrize("fields", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_field_of_a_config_that_cannot_be_is_one_error_of_data(fields, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(DataError, match=r"config\.json"):
        read_config(tmp_path)


def nan(shape) -> np.ndarray:
    values = np.zeros(shape, np.float32)
    values.flat[3] = np.nan
    return values


WEIGHTS = {
    "NaN": ({"h.1.mlp.c_fc.weight": nan((8, 32))}, r"h\.1\.mlp\.c_fc\.weight holds NaN"),
    "integers": ({"wpe.weight": np.ones((16, 8), np.int8)}, r"wpe\.weight holds int8, not floating-point"),
    "attention of another width": ({"h.0.attn.c_attn.weight": np.ones((8, 25), np.float32)}, "c_attn.weight has shape"),
    "under two prefixes": ({"transformer.wte.weight": np.ones((11, 8), np.float32)}, "which is the same parameter"),
    "a head of its own": ({"lm_head.weight": np.ones((11, 8), np.float32)}, "which is the same parameter"),
    "a layer too many": ({"h.2.ln_1.bias": np.ones(8, np.float32)}, "config.json asks for absent"),
    "none of a kind": ({"ln_f.bias": None}, r"without a tensor \['norm/bias\[0\]'\]"),
}


@pytest.mark.parametrize(("changes", "message"), WEIGHTS.values(), ids=WEIGHTS.keys())
def test_weights_that_cannot_be_are_named_by_tensor(changes, message, tmp_path):
    model(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        load_params(tmp_path, MODEL)


def test_a_config_of_huge_sizes_takes_no_memory(tmp_path):
    model(tmp_path)
    for field in ("n_layer", "n_positions", "vocab_size"):
        (tmp_path / "config.json").write_text(json.dumps({**CONFIG, field: 2 * 10**9}))
        with pytest.raises(DataError, match=r"where config\.json asks for|needs|without a tensor"):
            load_params(tmp_path, read_config(tmp_path))


@pytest.mark.parametrize("names", ["../model.safetensors", "/etc/hostname", "inner/x", "..", "", ".", 5, None, "a\0b"])
def test_an_index_never_leads_out_of_its_folder(names, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    model(tmp_path)
    (inner / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"wte.weight": names}}))
    with pytest.raises(DataError, match=r"index\.json"):
        load_params(inner, MODEL)


def test_an_index_follows_links_in_the_cache_of_hugging_face_only(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    model(tmp_path)
    blobs.mkdir()
    (tmp_path / "model.safetensors").rename(blobs / "0123")
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"wte.weight": "a.safetensors"}}))
    (snapshot / "a.safetensors").symlink_to("../../blobs/0123")
    load_params(snapshot, MODEL)
    (snapshot / "a.safetensors").unlink()
    (snapshot / "a.safetensors").symlink_to("../../config.json")
    with pytest.raises(DataError, match="lies outside of its folder"):
        load_params(snapshot, MODEL)


TABLES = {
    "NUL": (TABLE.replace("u3", "u\0", 1), "line 5 holds a NUL"),
    "a column twice": (TABLE.replace("timestamp", "item"), "has the column 'item' twice"),
}


@pytest.mark.parametrize(("text", "message"), TABLES.values(), ids=TABLES.keys())
def test_tables_that_could_be_misread_are_refused(text, message, tmp_path):
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        from_table(tmp_path / "mine.csv")


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan"), 2, "0.2", None])
def test_a_share_that_holds_out_nothing_or_everything_is_refused(share, tmp_path):
    with pytest.raises(ConfigError, match="from_table: share must be"):
        from_table(table(tmp_path) / "mine.csv", share=share)


def test_vectors_that_are_none_are_refused_when_written_and_when_read(tmp_path):
    for block in (np.ones((2, 0)), np.ones(3), np.array([["a"]]), np.array([[None]])):
        with pytest.raises(DataError, match="is no list of vectors"):
            write_vectors(tmp_path / "bad", [block])
    write_vectors(tmp_path / "half", [jnp.ones((2, 3), jnp.bfloat16)])
    assert Vectors(tmp_path / "half")[1].dtype == jnp.bfloat16
    base = store(tmp_path / "good")
    for index in (4, -5, 10**12):
        with pytest.raises(IndexError, match="which has 4"):
            Vectors(base)[index]
    np.testing.assert_array_equal(Vectors(base)[-1], [9, 10, 11])
    for change in ({"dtype": "object"}, {"dtype": "nosuch"}, {"width": 0}, {"count": -1}, {"width": 10**12}):
        meta = json.loads((base / META).read_text()) | change
        (base / META).write_text(json.dumps(meta))
        with pytest.raises(DataError, match=str(base)):
            np.stack(list(Vectors(base)))
