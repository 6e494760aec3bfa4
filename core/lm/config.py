"""What makes one decoder differ from another, read from a checkpoint's ``config.json`` or written down directly."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from core.checks import Count, Fraction, Positive, checked
from core.datasets.raw import read_json
from core.errors import ConfigError, DataError
from core.kinds import Range, shown

Family = Literal["gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3"]
Size = Annotated[int, Range(1, 2**31 - 1)]
"""Of an axis of an array."""
FAMILIES: tuple[str, ...] = get_args(Family)


@checked
@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are changed for contexts longer than those of pre-training."""

    kind: Literal["linear", "llama3"]
    factor: Positive
    low_freq_factor: Positive = 1.0
    high_freq_factor: Positive = 4.0
    original_length: Count = 8192


@checked
@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A decoder-only transformer; the defaults are those of a small GPT-2 to be trained from scratch.

    Raises:
      ConfigError: where a field is not one of its choices, or sizes do not divide.
    """

    vocab_size: Size
    width: Size
    layers: Size
    heads: Size
    kv_heads: Size | None = None
    """Key and value heads; as many as query heads if None."""
    head_dim: Size | None = None
    """Width of a head; width / heads if None."""
    hidden: Size | None = None
    """Width inside the MLP; four times the width if None."""
    max_length: Size = 1024
    """Rows of the table of learned positions."""
    positions: Literal["learned", "rotary"] = "learned"
    rotary_fraction: Fraction = 1.0
    rope_theta: Positive = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: Positive = 1e-5
    parallel: bool = False
    """x + A(n1 x) + M(n2 x) instead of one after the other."""
    mlp: Literal["gelu", "gelu_tanh", "swiglu"] = "gelu_tanh"
    attention_bias: Literal["none", "qkv", "all"] = "all"
    mlp_bias: bool = True
    qk_norm: bool = False
    """RMS norms over the heads of queries and keys before rotation."""
    tied: bool = True
    """Whether logits are inner products with the token embeddings."""
    window: Size | None = None
    """A query sees the last so many keys only; all if None."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the matrix products; softmax, norms and logits are in float32."""
    remat: bool = False
    """Recompute layers in the backward pass instead of keeping what they computed."""
    family: Family = "gpt2"
    """Naming of tensors in checkpoints."""

    def __post_init__(self):
        _check_heads(self)

    @property
    def kv(self) -> int:
        """Number of key and value heads."""
        return self.kv_heads or self.heads

    @property
    def head_width(self) -> int:
        """Width of a head."""
        return self.head_dim or self.width // self.heads

    @property
    def rotary_width(self) -> int:
        """Dimensions of a head that are rotated."""
        return int(self.head_width * self.rotary_fraction)

    @property
    def hidden_width(self) -> int:
        """Width inside the MLP."""
        return self.hidden or 4 * self.width


def _check_heads(c: DecoderConfig) -> None:
    if c.head_dim is None and c.width % c.heads:
        raise ConfigError(f"width {c.width} is not a multiple of heads {c.heads}; change one or give head_dim")
    if c.heads % c.kv:
        raise ConfigError(f"heads {c.heads} is not a multiple of kv_heads {c.kv}")
    if c.positions == "rotary" and (c.rotary_width % 2 or not 0 < c.rotary_width <= c.head_width):
        raise ConfigError(
            f"rotary positions on {c.rotary_width} of {c.head_width} dimensions of a head; the number must be even, "
            "positive and no larger: change head_dim or rotary_fraction"
        )


def read_config(folder: Path | str) -> DecoderConfig:
    """The config of a checkpoint folder.

    Raises:
      DataError: where ``config.json`` is missing, unreadable, of an unknown family or asks for what is not built.
    """
    path = Path(folder) / "config.json"
    found = read_json(path, "name a folder with a checkpoint's config.json")
    family = found.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise DataError(f"{path}: model_type is {shown(family)}; known are {', '.join(FAMILIES)}")
    try:
        return {"gpt2": _gpt2, "gpt_neox": _neox}.get(family, _llama)(found, path)
    except KeyError as error:
        raise DataError(f"{path} lacks the field {error}; is it the config of a {family} model?") from error
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from error
    except (TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path}: a field is not of the kind that a {family} model has ({error})") from error


def _gpt2(found: dict[str, Any], path: Path) -> DecoderConfig:
    if found.get("scale_attn_by_inverse_layer_idx") or not found.get("scale_attn_weights", True):
        raise DataError(f"{path}: only scale_attn_weights without scale_attn_by_inverse_layer_idx is supported")
    return DecoderConfig(
        vocab_size=found["vocab_size"], width=found["n_embd"], layers=found["n_layer"], heads=found["n_head"],
        hidden=found.get("n_inner"), max_length=found["n_positions"], norm_eps=found.get("layer_norm_epsilon", 1e-5),
        mlp=_activation(found.get("activation_function", "gelu_new"), path),
        tied=found.get("tie_word_embeddings", True), family="gpt2",
    )  # fmt: skip


def _neox(found: dict[str, Any], path: Path) -> DecoderConfig:
    rope = found.get("rope_parameters") or {}
    bias = found.get("attention_bias", True)
    return DecoderConfig(
        vocab_size=found["vocab_size"], width=found["hidden_size"], layers=found["num_hidden_layers"],
        heads=found["num_attention_heads"], hidden=found["intermediate_size"], positions="rotary",
        rotary_fraction=rope.get("partial_rotary_factor", found.get("rotary_pct", 0.25)),
        rope_theta=rope.get("rope_theta", found.get("rotary_emb_base", 10_000)), rope_scaling=_scaling(found, path),
        norm_eps=found.get("layer_norm_eps", 1e-5), parallel=found.get("use_parallel_residual", True),
        mlp=_activation(found.get("hidden_act", "gelu"), path), attention_bias="all" if bias else "none",
        tied=found.get("tie_word_embeddings", False), family="gpt_neox",
    )  # fmt: skip


def _llama(found: dict[str, Any], path: Path) -> DecoderConfig:
    family, rope = found["model_type"], found.get("rope_parameters") or {}
    if found.get("hidden_act", "silu") != "silu":
        raise DataError(f"{path}: hidden_act {found['hidden_act']!r} is not supported for {family}; only silu")
    return DecoderConfig(
        vocab_size=found["vocab_size"], width=found["hidden_size"], layers=found["num_hidden_layers"],
        heads=found["num_attention_heads"], kv_heads=found.get("num_key_value_heads"), head_dim=found.get("head_dim"),
        hidden=found["intermediate_size"], positions="rotary",
        rope_theta=rope.get("rope_theta", found.get("rope_theta", 10_000.0)), rope_scaling=_scaling(found, path),
        norm="rms", norm_eps=found.get("rms_norm_eps", 1e-6), mlp="swiglu",
        attention_bias="qkv" if family == "qwen2" else "all" if found.get("attention_bias") else "none",
        mlp_bias=bool(found.get("mlp_bias", False)), qk_norm=family == "qwen3",
        tied=found.get("tie_word_embeddings", False), window=_window(found, path), family=family,
    )  # fmt: skip


def _window(found: dict[str, Any], path: Path) -> int | None:
    """The sliding window; what a file leaves out is as transformers has it."""
    if found["model_type"] == "mistral":
        return found.get("sliding_window", 4096)
    if found["model_type"] == "llama" or not found.get("use_sliding_window"):
        return None
    full, layers = found.get("max_window_layers", 28), found["num_hidden_layers"]
    kinds = set(found.get("layer_types") or ["full_attention"] * full + ["sliding_attention"] * (layers - full))
    if len(kinds) > 1 and full < layers:
        raise DataError(f"{path}: a sliding window on some layers only (max_window_layers) is not supported")
    return found.get("sliding_window", 4096) if "sliding_attention" in kinds else None


def _activation(name: str, path: Path) -> Literal["gelu", "gelu_tanh"]:
    match name:
        case "gelu":
            return "gelu"
        case "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast":
            return "gelu_tanh"
    raise DataError(f"{path}: activation {name!r} is not supported; known are gelu and gelu_new")


def _scaling(found: dict[str, Any], path: Path) -> RopeScaling | None:
    """From ``rope_scaling`` of files on the hub or ``rope_parameters`` of newer ones."""
    rope = found.get("rope_scaling") or found.get("rope_parameters") or {}
    match rope.get("rope_type", rope.get("type", "default")):
        case "default":
            return None
        case "linear":
            return RopeScaling("linear", rope["factor"])
        case "llama3":
            return RopeScaling(
                "llama3", rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"],
                rope["original_max_position_embeddings"],
            )  # fmt: skip
        case other:
            raise DataError(f"{path}: rope type {other!r} is not supported; known are default, linear and llama3")
