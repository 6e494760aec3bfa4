"""The decoder: agreement with transformers on random models of every family, causality, padding, loading."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core.errors import ConfigError, DataError
from core.lm import ByteTokenizer, Decoder, DecoderConfig, FileTokenizer, load_params, read_config, token_losses

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 97}
LLAMA = {**SMALL, "num_key_value_heads": 2, "intermediate_size": 48}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
FAMILIES = {
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 3, "n_head": 4, "vocab_size": 97, "n_positions": 40}),
    "gpt_neox parallel": ("GPTNeoX", {**SMALL, "intermediate_size": 64}),
    "gpt_neox sequential": ("GPTNeoX", {**SMALL, "intermediate_size": 64, "use_parallel_residual": False}),
    "llama": ("Llama", LLAMA),
    "llama tied, biases": ("Llama", {**LLAMA, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama3 scaling": ("Llama", {**LLAMA, "rope_parameters": LLAMA3}),
    "linear scaling": (
        "Llama",
        {**LLAMA, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
    ),
    "mistral window": ("Mistral", {**LLAMA, "sliding_window": 8}),
    "qwen2": ("Qwen2", LLAMA),
    "qwen3": ("Qwen3", {**LLAMA, "head_dim": 16}),
}
TINY = DecoderConfig(vocab_size=17, width=16, layers=2, heads=2, max_length=12)
TOKENS = jax.random.randint(jax.random.key(0), (3, 10), 0, 17)


@pytest.fixture(scope="module")
def params():
    found = Decoder(TINY).init(jax.random.key(1), TOKENS)["params"]
    keys = iter(jax.random.split(jax.random.key(2), 100))
    return jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape), found)


def logits(params, tokens, config=TINY, **kwargs):
    return Decoder(config).apply({"params": params}, tokens, **kwargs)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_logits_equal_those_of_transformers(family, tmp_path, record_property):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    name, settings = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**settings)
    config._attn_implementation = "eager"
    peer = getattr(transformers, "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for weight in peer.parameters():  # zeros and ones would hide a missing bias or scale
            weight.add_(0.1 * torch.randn_like(weight))
    peer.save_pretrained(tmp_path)
    tokens = np.random.default_rng(0).integers(0, 97, (2, 24))
    with torch.no_grad():
        expected = peer(torch.from_numpy(tokens)).logits.numpy()
    ours = read_config(tmp_path)
    with jax.default_matmul_precision("highest"):
        found = logits(load_params(tmp_path, ours), jnp.asarray(tokens), ours)
    worst = float(np.abs(found - expected).max())
    record_property("value", f"{family}: largest difference {worst:.1e} at logits up to {np.abs(expected).max():.1f}")
    assert worst < 2e-5 * max(1.0, np.abs(expected).max() / 4)


def test_no_token_sees_a_later_one(params):
    changed = TOKENS.at[:, 6].add(1) % 17
    before, after = logits(params, TOKENS), logits(params, changed)
    np.testing.assert_array_equal(before[:, :6], after[:, :6])
    assert float(jnp.abs(before[:, 6:] - after[:, 6:]).min(axis=-1).max()) > 0


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_padding_on_the_left_changes_nothing(params, positions):
    config = dataclasses.replace(TINY, positions=positions)
    params = {k: v for k, v in params.items() if k != "positions" or positions == "learned"}
    padded = jnp.pad(TOKENS[:, :8], ((0, 0), (2, 0)))
    mask = jnp.arange(10) >= 2
    found = logits(params, padded, config, mask=jnp.broadcast_to(mask, padded.shape))[:, 2:]
    np.testing.assert_allclose(found, logits(params, TOKENS[:, :8], config), rtol=1e-4, atol=1e-5)


def test_a_batch_is_its_rows(params):
    np.testing.assert_allclose(
        logits(params, TOKENS), jnp.stack([logits(params, row) for row in TOKENS]), rtol=1e-4, atol=1e-5
    )


def test_a_window_hides_what_is_further_back(params):
    config = dataclasses.replace(TINY, window=2, layers=1)
    first = jax.tree.map(lambda leaf: leaf[:1], params["layers"])
    one = {**params, "layers": first}
    changed = TOKENS.at[:, 0].add(1) % 17
    np.testing.assert_array_equal(logits(one, TOKENS, config)[:, 2:], logits(one, changed, config)[:, 2:])


@pytest.mark.parametrize("chunk", [None, 5])
def test_token_losses_are_cross_entropies_with_or_without_chunks(params, chunk):
    targets = jnp.roll(TOKENS, -1, axis=1)
    full = jax.nn.log_softmax(logits(params, TOKENS))
    expected = -jnp.take_along_axis(full, targets[..., None], axis=-1)[..., 0]
    found = token_losses(Decoder(TINY), params, TOKENS, targets, chunk=chunk)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_rematerialisation_and_bfloat16_keep_the_function(params):
    plain = logits(params, TOKENS)
    np.testing.assert_allclose(
        logits(params, TOKENS, dataclasses.replace(TINY, remat=True)), plain, rtol=1e-5, atol=1e-5
    )
    half = logits(params, TOKENS, dataclasses.replace(TINY, dtype="bfloat16"))
    assert half.dtype == jnp.float32
    assert float(jnp.mean(jnp.argmax(half, -1) == jnp.argmax(plain, -1))) > 0.9


def test_more_tokens_than_positions_are_refused_whatever_the_mask(params):
    long, mask = jnp.zeros((2, 14), jnp.int32), jnp.arange(14) >= 2
    padded = logits(params, long, mask=jnp.broadcast_to(mask, long.shape))  # 12 real ones, as many as positions
    assert bool(jnp.isfinite(padded[:, 2:]).all())
    refused = [
        {}, {"mask": jnp.ones(long.shape, bool)}, {"mask": jnp.broadcast_to(jnp.arange(14) >= 1, long.shape)},
        {"positions": jnp.broadcast_to(jnp.arange(14), long.shape)},
    ]  # fmt: skip
    for arguments in refused:
        with pytest.raises(ConfigError, match=r"1[34] tokens, but the model has 12 positions"):
            logits(params, long, **arguments)
    with pytest.raises(ConfigError, match="14 tokens, but the model has 12 positions"):
        jax.jit(lambda tokens, mask: logits(params, tokens, mask=mask))(long, jnp.ones(long.shape, bool))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_lowers_for_accelerators(params, platform):
    jax.jit(jax.grad(lambda p: jnp.sum(logits(p, TOKENS)))).trace(params).lower(lowering_platforms=(platform,))


def saved(folder, params, config=TINY, skip=(), extra=()):
    """A GPT-2 checkpoint of the parameters."""
    from safetensors.numpy import save_file

    tensors = {
        "wte.weight": params["embed"]["embedding"], "wpe.weight": params["positions"]["embedding"],
        "ln_f.weight": params["norm"]["scale"], "ln_f.bias": params["norm"]["bias"],
    }  # fmt: skip
    names = {"attn.c_proj": ("attention", "output"), "mlp.c_fc": ("mlp", "up"), "mlp.c_proj": ("mlp", "down")}
    for i in range(config.layers):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"])
        for theirs, ours in (("ln_1", "attention_norm"), ("ln_2", "mlp_norm")):
            tensors |= {f"h.{i}.{theirs}.weight": layer[ours]["scale"], f"h.{i}.{theirs}.bias": layer[ours]["bias"]}
        qkv = [layer["attention"][k] for k in ("query", "key", "value")]
        tensors[f"h.{i}.attn.c_attn.weight"] = jnp.concatenate([m["kernel"] for m in qkv], axis=1)
        tensors[f"h.{i}.attn.c_attn.bias"] = jnp.concatenate([m["bias"] for m in qkv])
        for theirs, (room, ours) in names.items():
            tensors[f"h.{i}.{theirs}.weight"] = layer[room][ours]["kernel"]
            tensors[f"h.{i}.{theirs}.bias"] = layer[room][ours]["bias"]
    kept = {name: np.asarray(t) for name, t in tensors.items() if name not in skip}
    save_file({**kept, **{name: np.zeros(2, np.float32) for name in extra}}, folder / "model.safetensors")
    fields = {"model_type": "gpt2", "vocab_size": 17, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 12}
    (folder / "config.json").write_text(json.dumps(fields))


def test_saved_weights_come_back_and_buffers_are_passed_over(params, tmp_path):
    pytest.importorskip("safetensors")
    saved(tmp_path, params, extra=("h.0.attn.masked_bias",))
    found = load_params(tmp_path, read_config(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"skip": ("h.1.mlp.c_fc.bias",)}, r"parameters without a tensor \['layers/mlp/up/bias\[1\]'\]"),
        ({"extra": ("h.0.mlp.gate.weight",)}, r"unused tensors \['h.0.mlp.gate.weight'\]"),
        ({"extra": ("h.7.ln_1.bias",)}, r"h.7.ln_1.bias has shape \(2,\) where config.json asks for absent"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_by_tensor(params, tmp_path, change, message):
    pytest.importorskip("safetensors")
    saved(tmp_path, params, **change)
    with pytest.raises(DataError, match=message):
        load_params(tmp_path, read_config(tmp_path))


def test_a_truncated_or_missing_checkpoint_is_refused_by_file(params, tmp_path):
    pytest.importorskip("safetensors")
    saved(tmp_path, params)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"cannot read .*model.safetensors"):
        load_params(tmp_path, read_config(tmp_path))
    file.unlink()
    with pytest.raises(DataError, match=r"cannot read .*model.safetensors"):
        load_params(tmp_path, read_config(tmp_path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "t5"}, "model_type is 't5'; known are gpt2"),
        ({"model_type": "llama"}, "lacks the field 'vocab_size'"),
        ({"model_type": "llama", **LLAMA, "rope_scaling": {"type": "yarn", "factor": 2}}, "rope type 'yarn'"),
        ({"model_type": "qwen2", **LLAMA, "use_sliding_window": True, "max_window_layers": 2}, "max_window_layers"),
    ],
)
def test_configs_that_cannot_be_honoured_are_refused(tmp_path, fields, message):
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(DataError, match=message):
        read_config(tmp_path)


def test_bytes_come_back_as_text():
    tokenizer = ByteTokenizer()
    text = "naïve – 日本"
    assert tokenizer.decode([*tokenizer.encode(text), tokenizer.eos]) == text
    assert tokenizer.tokens([72, tokenizer.pad]) == ["H", "<pad>"]


def test_a_tokenizer_file_is_read_or_refused(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    with pytest.raises(DataError, match=r"cannot read .*tokenizer.json"):
        FileTokenizer(tmp_path)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"the": 0, "cat": 1, "[UNK]": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    found = FileTokenizer(tmp_path)
    assert found.encode("the cat sat") == [0, 1, 2]
    assert found.vocab_size == 3
    assert found.decode([0, 1]) == "the cat"
    assert found.tokens([1]) == ["cat"]
