"""Weights under the names that others publish them by: sparsify (EleutherAI) and SAELens.

A layout is a pair of pure functions between ``(variant, params)`` and ``(tensors, cfg)``; reading and writing of files
is :mod:`core.safetensors`.
"""

from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from core.checks import checked
from core.errors import DataError
from core.kinds import first_not_finite
from interp.sae import variants
from interp.sae.codes import Params
from interp.sae.variants import Variant

Layout = Literal["sparsify", "saelens"]
Tensors = dict[str, np.ndarray]


@checked
def export_weights(layout: Layout, variant: Variant, params: Params) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and ``cfg.json`` in a layout.

    Raises:
      DataError: for a variant that the layout has no name for.
    """
    return {"sparsify": _to_sparsify, "saelens": _to_saelens}[layout](variant, params)


@checked
def import_weights(layout: Layout, tensors: Mapping[str, Any], cfg: Mapping[str, Any]) -> tuple[Variant, Params]:
    """The variant and its parameters from tensors and ``cfg.json`` in a layout.

    Raises:
      DataError: where tensors or settings are missing, have other shapes, or say what is not in the family.
    """
    return {"sparsify": _from_sparsify, "saelens": _from_saelens}[layout](tensors, cfg)


def _shaped(tensors: Mapping[str, Any], shapes: Mapping[str, tuple[str, ...]], sizes: dict[str, int]) -> Tensors:
    """The tensors as arrays; sizes by letter are read off the first that has them and hold for the others."""
    out = {}
    for name, letters in shapes.items():
        if name not in tensors:
            raise DataError(f"tensor {name!r} is missing; there are {', '.join(sorted(tensors))}")
        array = np.asarray(tensors[name])
        expected = tuple(sizes.setdefault(a, size) for a, size in zip(letters, array.shape, strict=False))
        if array.shape != expected or array.ndim != len(letters):
            raise DataError(
                f"tensor {name!r} has shape {array.shape}, not {expected or letters} ({', '.join(letters)})"
            )
        if place := first_not_finite(array):
            raise DataError(f"tensor {name!r} has {place}; a damaged or diverged dictionary?")
        out[name] = array
    return out


def _params(**leaves: np.ndarray) -> Params:
    return {name: jnp.asarray(leaf) for name, leaf in leaves.items()}


def _setting(cfg: Mapping[str, Any], name: str) -> Any:
    if name not in cfg:
        raise DataError(f"cfg.json lacks {name!r}; it has {', '.join(sorted(cfg))}")
    return cfg[name]


def _count(cfg: Mapping[str, Any], name: str) -> int:
    value = _setting(cfg, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DataError(f"cfg.json: {name} = {value!r} must be an integer of at least 1")
    return value


def _refuse(cfg: Mapping[str, Any], name: str, *accepted: Any) -> None:
    value = cfg.get(name, accepted[0])
    if value not in accepted:
        raise DataError(f"cfg.json: {name} = {value!r} is not in the family; fold it into the weights, or use "
                        f"{' or '.join(map(repr, accepted))}")  # fmt: skip


def _to_sparsify(variant: Variant, params: Params) -> tuple[Tensors, dict[str, Any]]:
    kind, k = variant.activation.kind, variant.activation.limit
    if kind not in ("topk", "groupmax"):
        raise DataError(f"sparsify has topk and groupmax, not {kind}; export to saelens")
    tensors = {
        "encoder.weight": params["W_e"], "encoder.bias": params["b_e"], "W_dec": params["W_d"], "b_dec": params["b_d"],
    }  # fmt: skip
    if variant.skip:
        tensors["W_skip"] = params["W_skip"]
    m, d = params["W_e"].shape
    cfg = {
        "activation": kind, "d_in": d, "k": k, "num_latents": m, "expansion_factor": m // d, "multi_topk": False,
        "normalize_decoder": variant.constraint is variants.unit_rows, "skip_connection": variant.skip,
        "transcode": not variant.centred,
    }  # fmt: skip
    return {name: np.asarray(leaf) for name, leaf in tensors.items()}, cfg


def _from_sparsify(tensors: Mapping[str, Any], cfg: Mapping[str, Any]) -> tuple[Variant, Params]:
    _refuse(cfg, "activation", "topk", "groupmax")
    k = _count(cfg, "k")
    variant = variants.groupmax(k) if cfg.get("activation") == "groupmax" else variants.topk(k)
    if cfg.get("transcode", False):
        variant = variants.skip_transcoder(variant) if cfg.get("skip_connection") else variants.transcoder(variant)
    d = _count(cfg, "d_in")
    m = _count(cfg, "num_latents") if cfg.get("num_latents") else d * _count(cfg, "expansion_factor")
    _require_fewer(k, m)
    shapes = {"encoder.weight": ("m", "d"), "encoder.bias": ("m",), "W_dec": ("m", "e"), "b_dec": ("e",)}
    if variant.skip:
        shapes["W_skip"] = ("e", "d")
    found = _shaped(tensors, shapes, {"m": m, "d": d})
    leaves = {"W_e": found["encoder.weight"], "b_e": found["encoder.bias"], "W_d": found["W_dec"]}
    leaves |= {"b_d": found["b_dec"]} | ({"W_skip": found["W_skip"]} if variant.skip else {})
    return variant, _params(**leaves)


_SAELENS = {"relu": "standard", "topk": "topk", "batch_topk": "jumprelu", "jumprelu": "jumprelu", "gated": "gated"}


def _to_saelens(variant: Variant, params: Params) -> tuple[Tensors, dict[str, Any]]:
    kind = variant.activation.kind
    if kind not in _SAELENS or variant.skip or variant.normalise is not variants.as_is:
        raise DataError(f"SAELens has no layout for {kind} with a skip path, a normalisation or by groups; "
                        "export to sparsify")  # fmt: skip
    m, d = params["W_e"].shape
    tensors = {"W_enc": params["W_e"].T, "W_dec": params["W_d"], "b_dec": params["b_d"]}
    extra: dict[str, Any] = {
        "gated": lambda: {"b_gate": params["b_e"], "r_mag": params["r"], "b_mag": params["b_m"]},
        "jumprelu": lambda: {"b_enc": params["b_e"], "threshold": jnp.exp(params["log_theta"])},
        "batch_topk": lambda: {"b_enc": params["b_e"], "threshold": jnp.full(m, params["threshold"])},
    }.get(kind, lambda: {"b_enc": params["b_e"]})()
    cfg = {
        "architecture": _SAELENS[kind], "d_in": d, "d_sae": m, "dtype": str(params["W_e"].dtype),
        "apply_b_dec_to_input": variant.centred, "normalize_activations": "none",
    }  # fmt: skip
    if kind == "topk":
        cfg["k"] = variant.activation.limit
    return {name: np.ascontiguousarray(leaf) for name, leaf in (tensors | extra).items()}, cfg


def _from_saelens(tensors: Mapping[str, Any], cfg: Mapping[str, Any]) -> tuple[Variant, Params]:
    kind = _setting(cfg, "architecture")
    _refuse(cfg, "architecture", "standard", "topk", "jumprelu", "gated")
    _refuse(cfg, "normalize_activations", "none")
    _refuse(cfg, "rescale_acts_by_decoder_norm", False)
    biases = {"gated": ("b_gate", "r_mag", "b_mag"), "jumprelu": ("b_enc", "threshold")}.get(kind, ("b_enc",))
    shapes: dict[str, tuple[str, ...]] = {"W_enc": ("d", "m"), "W_dec": ("m", "e"), "b_dec": ("e",)}
    shapes |= dict.fromkeys(biases, ("m",))
    found = _shaped(tensors, shapes, {"d": _count(cfg, "d_in"), "m": _count(cfg, "d_sae")})
    leaves = {"W_e": found["W_enc"].T, "W_d": found["W_dec"], "b_d": found["b_dec"], "b_e": found[biases[0]]}
    match kind:
        case "gated":
            variant, leaves = variants.gated(0.0), leaves | {"r": found["r_mag"], "b_m": found["b_mag"]}
        case "jumprelu":
            variant, leaves = variants.jumprelu(0.0), leaves | {"log_theta": _log(found["threshold"])}
        case "topk":
            _require_fewer(_count(cfg, "k"), _count(cfg, "d_sae"))
            variant = variants.topk(_count(cfg, "k"))
        case _:
            variant = variants.relu_l1(0.0)
    return variant._replace(centred=bool(cfg.get("apply_b_dec_to_input", True))), _params(**leaves)


def _require_fewer(k: int, m: int) -> None:
    if k > m:
        raise DataError(f"cfg.json: k = {k} active latents of {m}")


def _log(threshold: np.ndarray) -> np.ndarray:
    """The logarithm of thresholds; that of 0 is minus infinity, whose exponential is 0 again."""
    if (threshold < 0).any():
        place = int(np.argmax(threshold < 0))
        raise DataError(f"tensor 'threshold' has {threshold[place]} at [{place}]; thresholds are at least 0")
    with np.errstate(divide="ignore"):
        return np.log(threshold)
