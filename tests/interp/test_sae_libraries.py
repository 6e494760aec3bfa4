"""Beside sparsify and SAELens themselves, where these are installed: ``pip install eai-sparsify sae-lens``."""

import warnings

import jax
import numpy as np
import pytest

from core.safetensors import load_folder, save_folder
from interp import sae
from interp.sae.training import aux_loss
from tests.interp.test_sae import D, M, setting
from tests.interp.test_sae_layouts import CASES

pytestmark = [pytest.mark.peers, pytest.mark.slow]
FILES = {"sparsify": "sae.safetensors", "saelens": "sae_weights.safetensors"}


def library(layout):
    with warnings.catch_warnings():  # not ours to mend
        warnings.simplefilter("ignore")
        return pytest.importorskip({"sparsify": "sparsify", "saelens": "sae_lens"}[layout])


def square(variant):
    """Parameters and inputs with targets as wide as the inputs, which is all that sparsify has."""
    params, x, _ = setting(variant._replace(centred=True))
    return params, x


def outputs(layout, folder, x):
    theirs, torch = library(layout), pytest.importorskip("torch")
    kind = {"sparsify": "SparseCoder", "saelens": "SAE"}[layout]
    model = getattr(theirs, kind).load_from_disk(folder)
    with torch.no_grad():
        found = model(torch.tensor(np.asarray(x)))
    return (found.sae_out if layout == "sparsify" else found).numpy()


@pytest.mark.parametrize(("layout", "name"), CASES)
def test_libraries_read_exported_weights_and_give_the_same_outputs(layout, name, tmp_path, record_property):
    variant = CASES[layout, name]
    params, x = square(variant)
    save_folder(tmp_path, *sae.export_weights(layout, variant, params), FILES[layout])
    ours = sae.reconstruct(variant, params, x)
    theirs = outputs(layout, tmp_path, x)
    record_property("value", f"largest difference {np.abs(ours - theirs).max():.1e}")
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def saved_by(layout, name, folder):
    """A dictionary that the library itself has made, with noise on all of its weights, and saved."""
    theirs, torch = library(layout), pytest.importorskip("torch")
    if layout == "sparsify":
        kind = "groupmax" if name == "groupmax" else "topk"
        more = {"transcode": True, "skip_connection": True} if name == "skip" else {}
        cfg = theirs.SparseCoderConfig(activation=kind, num_latents=M, k=4, **more)
        model = theirs.SparseCoder(D, cfg)
    else:
        prefix = {"topk": "TopK", "standard": "Standard", "gated": "Gated", "jumprelu": "JumpReLU"}[name]
        cfg = getattr(theirs, f"{prefix}SAEConfig")(d_in=D, d_sae=M, **({"k": 4} if name == "topk" else {}))
        model = getattr(theirs, f"{prefix}SAE")(cfg)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.rand_like(weight)
    (model.save_to_disk if layout == "sparsify" else model.save_model)(folder)


@pytest.mark.parametrize(("layout", "name"), CASES)
def test_weights_that_the_libraries_saved_give_their_outputs(layout, name, tmp_path, record_property):
    saved_by(layout, name, tmp_path)
    x = jax.random.normal(jax.random.key(1), (12, D))
    ours = sae.reconstruct(*sae.import_weights(layout, *load_folder(tmp_path, FILES[layout])), x)
    theirs = outputs(layout, tmp_path, x)
    record_property("value", f"largest difference {np.abs(ours - theirs).max():.1e}")
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert np.abs(theirs).max() > 0.1


def test_the_loss_of_dead_latents_and_its_gradient_of_the_decoder_equal_those_of_sparsify(tmp_path):
    theirs, torch = library("sparsify"), pytest.importorskip("torch")
    variant, aux = sae.topk(3), sae.Aux(weight=1.0)
    params, x = square(variant)
    save_folder(tmp_path, *sae.export_weights("sparsify", variant, params), FILES["sparsify"])
    for count in (1, 2, 9):
        dead = np.arange(M) < count
        model = theirs.SparseCoder.load_from_disk(tmp_path)
        expected = model(torch.tensor(np.asarray(x)), dead_mask=torch.tensor(dead)).auxk_loss
        expected.backward()

        def ours(p, dead=dead):
            return aux_loss(aux, p, sae.forward(variant, p, x, x), dead, sae.total_variance)

        value, grads = jax.value_and_grad(ours)(params)
        np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
        np.testing.assert_allclose(grads["W_d"], model.W_dec.grad.numpy(), rtol=1e-4, atol=1e-6)
