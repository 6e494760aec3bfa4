"""Decoder weights from safetensors, whatever their family calls them."""

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from core.checks import checked
from core.datasets import observed
from core.datasets.raw import read_json
from core.errors import ConfigError, DataError
from core.lm.config import DecoderConfig
from core.lm.decoder import Decoder

Place = tuple[str, ...]
"""Path of a leaf in the parameters; leaves under "layers" are stacked."""
Part = tuple[Place, Callable[[np.ndarray], np.ndarray]]

IGNORED = re.compile(r"rotary_emb\.inv_freq$|attn\.(masked_)?bias$|attention\.(masked_)?bias$|masked_bias$")
"""Buffers that some checkpoints hold beside weights."""
_NAMED = 5
"""So many parameters are named in a message."""
PREFIXES = ("transformer.", "gpt_neox.", "model.")


@checked
def load_params(
    folder: Path | str, config: DecoderConfig, dtype: Literal["float32", "bfloat16", "float16"] = "float32"
) -> PyTree:
    """Parameters of :class:`core.lm.Decoder` from ``model.safetensors`` or the shards that an index names.

    Args:
      folder: the checkpoint.
      config: as :func:`core.lm.read_config` gives it.
      dtype: of the parameters.

    Raises:
      DataError: where a file is missing, damaged, or lacks tensors, or has some that the model does not, or one holds
        other than finite floating-point numbers, or two of the same parameter differ; names them. Where an index names
        files outside of the folder.
      ConfigError: where safetensors is not installed.
    """
    target, unknown = _Target(_shapes(config), jnp.dtype(dtype)), []
    for file, name, tensor in _tensors(Path(folder)):
        parts = list(_parts(name, config))
        if not parts and not IGNORED.search(name):
            unknown.append(name)
        for layer, place, part in parts:
            target.fill(place, layer, tensor, part, f"{file}: {name}")
    lacking = target.lacking()
    if unknown or lacking:
        raise DataError(
            f"{folder} does not hold the model that its config describes: unused tensors {unknown[:5] or 'none'}, "
            f"parameters without a tensor {lacking or 'none'}"
        )
    params: dict[str, Any] = {}
    for place, array in target.arrays.items():
        node = params
        for key in place[:-1]:
            node = node.setdefault(key, {})
        node[place[-1]] = jnp.asarray(array)
    return params


@functools.cache
def _shapes(config: DecoderConfig) -> dict[Place, Any]:
    shapes = jax.eval_shape(Decoder(config).init, jax.random.key(0), jnp.zeros(2, jnp.int32))["params"]
    return {tuple(str(k.key) for k in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)}


class _Target:
    """Parameters while they are filled. Memory is taken for those of which a tensor of the right shape was found."""

    def __init__(self, shapes: dict[Place, Any], dtype: Any):
        self._shapes, self._dtype = shapes, dtype
        self.arrays: dict[Place, np.ndarray] = {}
        self._filled: dict[tuple[Place, int], str] = {}

    def fill(self, place: Place, layer: int | None, tensor: np.ndarray, part: Callable, source: str) -> None:
        """Puts a part of a tensor, or all of it, in its place.

        Raises:
          DataError: where there is no such place, or shape, type or values cannot be those of the parameter.
        """
        if place not in self._shapes:
            raise DataError(f"{source} has no place in the model that config.json describes ({'/'.join(place)})")
        stack = self._shapes[place].shape
        shape = stack if layer is None else stack[1:] if layer < stack[0] else None
        value = _part_of(tensor, part, source)
        if value.shape != shape:
            expected = "absent" if shape is None else shape
            raise DataError(f"{source} has shape {value.shape} where config.json asks for {expected}")
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise DataError(f"{source} holds {value.dtype}, not floating-point numbers; get the weights unquantised")
        if not np.isfinite(value).all():
            raise DataError(f"{source} holds NaN or infinity; get the file again")
        self._put(place, layer or 0, layer is not None, value, source)

    def _put(self, place: Place, layer: int, is_stacked: bool, value: np.ndarray, source: str) -> None:
        if place not in self.arrays:
            try:
                self.arrays[place] = np.empty(self._shapes[place].shape, self._dtype)
            except (MemoryError, ValueError) as error:
                raise DataError(f"{source}: {'/'.join(place)} as config.json describes it needs {error}") from error
        array = self.arrays[place][layer] if is_stacked else self.arrays[place]
        before = self._filled.setdefault((place, layer), source)
        if before != source and not np.array_equal(array, value.astype(self._dtype)):
            raise DataError(f"{source} differs from {before}, which is the same parameter in the model of config.json")
        array[...] = value

    def lacking(self) -> list[str]:
        """The first few parameters without a tensor."""
        found: list[str] = []
        for place, leaf in sorted(self._shapes.items()):
            for i in range(leaf.shape[0] if place[0] == "layers" else 1):
                if (place, i) not in self._filled:
                    found.append("/".join(place) + f"[{i}]")
                if len(found) == _NAMED:
                    return found
        return found


def _part_of(tensor: np.ndarray, part: Callable, source: str) -> np.ndarray:
    try:
        return part(tensor)
    except ValueError as error:
        raise DataError(f"{source} has shape {tensor.shape}, which the heads of config.json do not divide") from error


def _tensors(folder: Path) -> Iterator[tuple[Path, str, np.ndarray]]:
    """All tensors of a checkpoint, one at a time."""
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as error:
        raise ConfigError("reading safetensors needs an optional package: pip install 'relic[lm]'") from error
    for path in _files(folder):
        observed.note(path)
        try:
            with safe_open(path, framework="flax") as file:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    yield path, name, np.asarray(file.get_tensor(name))
        except (OSError, SafetensorError, ValueError, TypeError, KeyError, MemoryError) as error:
            raise DataError(f"cannot read {path}: {error}; download it again") from error


def _files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    observed.note(index)
    if not index.exists():
        return [folder / "model.safetensors"]
    files = read_json(index, "download it again").get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise DataError(f"{index} has no weight_map from tensors to files; download it again")
    return [_inside(folder, name, index) for name in sorted(set(files.values()))]


def _inside(folder: Path, name: str, index: Path) -> Path:
    """A file of the folder; no other, except what Hugging Face's cache links to."""
    path, home = folder / name, folder.resolve()
    try:
        target = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{index}: {name!r} is no file ({error}); download it again") from error
    is_cached = home.parent.name == "snapshots" and target.parent == home.parent.parent / "blobs"
    if Path(name).name != name or not (target.parent == home or is_cached):
        raise DataError(f"{index} names {name!r}, which lies outside of its folder; download it again from its origin")
    return path


def _parts(name: str, config: DecoderConfig) -> Iterator[tuple[int | None, Place, Callable[[np.ndarray], np.ndarray]]]:
    """Where the parts of a tensor go: layer, leaf, and what is done to it."""
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    match = re.fullmatch(r"(?:h|layers)\.(\d+)\.(.+)\.(weight|bias)", name)
    if match:
        layer, inner, kind = int(match[1]), match[2], match[3]
        for place, part in _layer_parts(inner, kind, config):
            yield layer, ("layers", *place), part
        return
    outer: dict[str, Place] = {
        "wte.weight": ("embed", "embedding"), "embed_in.weight": ("embed", "embedding"),
        "embed_tokens.weight": ("embed", "embedding"), "wpe.weight": ("positions", "embedding"),
        "ln_f.weight": ("norm", "scale"), "ln_f.bias": ("norm", "bias"), "norm.weight": ("norm", "scale"),
        "final_layer_norm.weight": ("norm", "scale"), "final_layer_norm.bias": ("norm", "bias"),
    }  # fmt: skip
    if name in outer:
        yield None, outer[name], _same
    elif name in ("lm_head.weight", "embed_out.weight"):
        if config.tied:  # a copy of the embeddings
            yield None, ("embed", "embedding"), _same
        else:
            yield None, ("head", "kernel"), np.transpose


ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "output"}
LAYER_NAMES: dict[str, Place] = {
    "ln_1": ("attention_norm",), "input_layernorm": ("attention_norm",),
    "ln_2": ("mlp_norm",), "post_attention_layernorm": ("mlp_norm",),
    "attn.c_proj": ("attention", "output"), "mlp.c_fc": ("mlp", "up"), "mlp.c_proj": ("mlp", "down"),
    "attention.dense": ("attention", "output"), "mlp.dense_h_to_4h": ("mlp", "up"),
    "mlp.dense_4h_to_h": ("mlp", "down"), "mlp.gate_proj": ("mlp", "gate"), "mlp.up_proj": ("mlp", "up"),
    "mlp.down_proj": ("mlp", "down"), "self_attn.q_norm": ("attention", "query_norm"),
    "self_attn.k_norm": ("attention", "key_norm"),
    **{f"self_attn.{theirs}": ("attention", ours) for theirs, ours in ATTENTION.items()},
}  # fmt: skip


def _layer_parts(inner: str, kind: str, config: DecoderConfig) -> Iterator[Part]:
    heads, d = config.heads, config.head_width
    is_conv1d = config.family == "gpt2"  # stored [in, out]
    if inner == "attn.c_attn":
        for i, ours in enumerate(("query", "key", "value")):
            yield ("attention", ours, _leaf(kind)), lambda x, i=i: np.split(x, 3, axis=-1)[i]
    elif inner == "attention.query_key_value":  # interleaved by head
        for i, ours in enumerate(("query", "key", "value")):
            yield (
                ("attention", ours, _leaf(kind)),
                lambda x, i=i: np.transpose(x.reshape(heads, 3, d, *x.shape[1:])[:, i].reshape(-1, *x.shape[1:])),
            )
    elif inner in LAYER_NAMES:
        place = LAYER_NAMES[inner]
        if place[-1].endswith("norm"):
            yield (*place, "scale" if kind == "weight" else "bias"), _same
        else:
            yield (*place, _leaf(kind)), _same if is_conv1d else np.transpose


def _leaf(kind: str) -> str:
    return "kernel" if kind == "weight" else "bias"


def _same(x: np.ndarray) -> np.ndarray:
    return x
