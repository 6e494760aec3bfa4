import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core.errors import DataError
from core.safetensors import load_folder, save_folder
from interp import sae
from tests.interp.test_sae import setting

CASES = {
    ("sparsify", "topk"): sae.topk(3),
    ("sparsify", "groupmax"): sae.groupmax(4),
    ("sparsify", "skip"): sae.skip_transcoder(sae.topk(3)),
    ("saelens", "topk"): sae.topk(3),
    ("saelens", "standard"): sae.relu_l1(0.1),
    ("saelens", "gated"): sae.gated(0.1),
    ("saelens", "jumprelu"): sae.jumprelu(0.1, 0.2),
}


def through_disk(layout, variant, params, folder):
    tensors, cfg = sae.export_weights(layout, variant, params)
    save_folder(folder, tensors, cfg, "sae.safetensors")
    return load_folder(folder)


@pytest.mark.parametrize(("layout", "name"), CASES)
def test_weights_return_from_disk_bit_for_bit(layout, name, tmp_path):
    variant = CASES[layout, name]
    params, _, _ = setting(variant)
    tensors, cfg = through_disk(layout, variant, params, tmp_path)
    again, found = sae.import_weights(layout, tensors, cfg)
    if name == "jumprelu":  # layouts hold thresholds, parameters their logarithms
        np.testing.assert_allclose(found.pop("log_theta"), params.pop("log_theta"), rtol=1e-6, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    second = sae.export_weights(layout, again, {**found, "log_theta": jnp.log(tensors.get("threshold", np.ones(1)))})
    assert second[1] == cfg | ({"normalize_decoder": second[1]["normalize_decoder"]} if layout == "sparsify" else {})
    assert again.activation.kind == variant.activation.kind


def relu(a):
    return np.maximum(a, 0)


def best(a, k):
    order = np.argsort(-a, axis=1, kind="stable")[:, :k]
    z = np.zeros_like(a)
    np.put_along_axis(z, order, np.take_along_axis(a, order, 1), 1)
    return z


def by_sparsify(t, cfg, x):
    pre = relu((x if cfg["transcode"] else x - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"])
    if cfg["activation"] == "groupmax":
        grouped = pre.reshape(len(x), cfg["k"], -1)
        z = np.where(grouped == grouped.max(-1, keepdims=True), grouped, 0).reshape(pre.shape)
    else:
        z = best(pre, cfg["k"])
    return z @ t["W_dec"] + t["b_dec"] + (x @ t["W_skip"].T if cfg["skip_connection"] else 0)


def by_saelens(t, cfg, x):
    lin = (x - t["b_dec"] if cfg["apply_b_dec_to_input"] else x) @ t["W_enc"]
    match cfg["architecture"]:
        case "gated":
            z = (lin + t["b_gate"] > 0) * relu(lin * np.exp(t["r_mag"]) + t["b_mag"])
        case "jumprelu":
            z = relu(lin + t["b_enc"]) * (lin + t["b_enc"] > t["threshold"])
        case "topk":
            z = best(relu(lin + t["b_enc"]), cfg["k"])
        case _:
            z = relu(lin + t["b_enc"])
    return z @ t["W_dec"] + t["b_dec"]


@pytest.mark.parametrize(("layout", "name"), CASES)
def test_imported_weights_give_the_outputs_of_the_layouts_formulas(layout, name, tmp_path):
    variant = CASES[layout, name]
    params, x, _ = setting(variant)
    tensors, cfg = through_disk(layout, variant, params, tmp_path)
    again, found = sae.import_weights(layout, tensors, cfg)
    formula = {"sparsify": by_sparsify, "saelens": by_saelens}[layout]
    np.testing.assert_allclose(
        sae.reconstruct(again, found, x), formula(tensors, cfg, np.asarray(x)), rtol=1e-5, atol=1e-5
    )


def test_batch_topk_is_exported_as_thresholds():
    variant = sae.batch_topk(3)
    params, x, _ = setting(variant)
    params["threshold"] = jnp.float32(0.3)
    again, found = sae.import_weights("saelens", *sae.export_weights("saelens", variant, params))
    np.testing.assert_allclose(
        sae.reconstruct(again, found, x), sae.reconstruct(variant, params, x), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, c: t.pop("b_dec"), "b_dec"),
        (lambda t, c: t.update(b_enc=t["b_enc"][:3]), "b_enc"),
        (lambda t, c: c.pop("architecture"), "architecture"),
        (lambda t, c: c.update(normalize_activations="layer_norm"), "normalize_activations"),
    ],
)
def test_foreign_weights_that_do_not_fit_are_named(change, message):
    tensors, cfg = sae.export_weights("saelens", sae.topk(3), setting(sae.topk(3))[0])
    change(tensors, cfg)
    with pytest.raises(DataError, match=message):
        sae.import_weights("saelens", tensors, cfg)


def test_what_a_layout_has_no_name_for_is_refused():
    with pytest.raises(DataError, match="export to saelens"):
        sae.export_weights("sparsify", sae.gated(0.1), setting(sae.gated(0.1))[0])


@pytest.mark.parametrize("spoil", ["sae.safetensors", "cfg.json"])
def test_damaged_folders_are_named(tmp_path, spoil):
    save_folder(tmp_path, {"a": np.ones(3, np.float32)}, {"k": 1}, "sae.safetensors")
    (tmp_path / spoil).write_bytes(b"{")
    with pytest.raises(DataError, match="get it again"):
        load_folder(tmp_path)
