"""Decoder weights from safetensors, whatever their family calls them."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from core.datasets import observed
from core.errors import ConfigError, DataError
from core.lm.config import DecoderConfig
from core.lm.decoder import Decoder

Place = tuple[str, ...]
"""Path of a leaf in the parameters; leaves under "layers" are stacked."""
Part = tuple[Place, Callable[[np.ndarray], np.ndarray]]

IGNORED = re.compile(r"rotary_emb\.inv_freq$|attn\.(masked_)?bias$|attention\.(masked_)?bias$|masked_bias$")
"""Buffers that some checkpoints hold beside weights."""
PREFIXES = ("transformer.", "gpt_neox.", "model.")


def load_params(folder: Path | str, config: DecoderConfig, dtype: str = "float32") -> PyTree:
    """Parameters of :class:`core.lm.Decoder` from ``model.safetensors`` or the shards that an index names.

    Args:
      folder: the checkpoint.
      config: as :func:`core.lm.read_config` gives it.
      dtype: of the parameters.

    Raises:
      DataError: where a file is missing, damaged, or lacks tensors, or has some that the model does not; names them.
      ConfigError: where safetensors is not installed.
    """
    shapes = jax.eval_shape(Decoder(config).init, jax.random.key(0), jnp.zeros(2, jnp.int32))["params"]
    flat = {tuple(str(k.key) for k in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)}
    arrays = {place: np.empty(leaf.shape, jnp.dtype(dtype)) for place, leaf in flat.items()}
    missing = {(place, i) for place, leaf in flat.items() for i in range(leaf.shape[0] if place[0] == "layers" else 1)}
    unknown = []
    for file, name, tensor in _tensors(Path(folder)):
        parts = list(_parts(name, config))
        if not parts and not IGNORED.search(name):
            unknown.append(name)
        for layer, place, part in parts:
            _fill(arrays, missing, place, layer, part(tensor), f"{file}: {name}")
    if unknown or missing:
        lacking = sorted("/".join(place) + f"[{i}]" for place, i in missing)
        raise DataError(
            f"{folder} does not hold the model that its config describes: unused tensors {unknown[:5] or 'none'}, "
            f"parameters without a tensor {lacking[:5] or 'none'}"
        )
    params: dict[str, Any] = {}
    for place, array in arrays.items():
        node = params
        for key in place[:-1]:
            node = node.setdefault(key, {})
        node[place[-1]] = jnp.asarray(array)
    return params


def _fill(arrays, missing, place: Place, layer: int | None, value: np.ndarray, source: str) -> None:
    if place not in arrays:
        raise DataError(f"{source} has no place in the model that config.json describes ({'/'.join(place)})")
    target = (
        arrays[place] if layer is None else arrays[place][layer : layer + 1][0] if layer < len(arrays[place]) else None
    )
    if target is None or target.shape != value.shape:
        expected = "absent" if target is None else target.shape
        raise DataError(f"{source} has shape {value.shape} where config.json asks for {expected}")
    target[...] = value
    missing.discard((place, layer or 0))


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
        except (OSError, SafetensorError) as error:
            raise DataError(f"cannot read {path}: {error}; download it again") from error


def _files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    observed.note(index)
    if not index.exists():
        return [folder / "model.safetensors"]
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DataError(f"cannot read {index}: {error!r}; download it again") from error
    return [folder / name for name in names]


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
