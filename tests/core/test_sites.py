import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core.datasets import shakespeare
from core.errors import DataError
from core.lm import Decoder, DecoderConfig, logits_from, residual, spliced_loss, token_losses


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_a_model_resumed_from_its_residual_stream_is_the_model(positions):
    model = Decoder(DecoderConfig(11, 8, layers=2, heads=2, max_length=6, positions=positions))
    tokens = jax.random.randint(jax.random.key(0), (3, 6), 0, 11)
    params = model.init(jax.random.key(1), tokens)["params"]
    whole = model.apply({"params": params}, tokens)
    for layer in range(3):
        h = residual(model, params, tokens, layer)
        np.testing.assert_allclose(logits_from(model, params, h, layer), whole, rtol=2e-5, atol=2e-5)
    assert jnp.abs(logits_from(model, params, 0 * h + 1, 1) - whole).max() > 1e-3


def test_splicing_a_stream_into_itself_leaves_the_loss_and_the_first_position_is_never_replaced():
    model = Decoder(DecoderConfig(11, 8, layers=2, heads=2, max_length=6))
    tokens = jax.random.randint(jax.random.key(0), (3, 7), 0, 11)
    params = model.init(jax.random.key(1), tokens[:, :-1])["params"]
    plain = token_losses(model, params, tokens[:, :-1], tokens[:, 1:])
    np.testing.assert_allclose(spliced_loss(model, params, tokens, 1, lambda h: h), plain.mean(), rtol=1e-5)
    assert abs(spliced_loss(model, params, tokens, 1, jnp.zeros_like) - plain.mean()) > 1e-3
    alone = token_losses(model, params, tokens[:, :1], tokens[:, 1:2]).mean()
    np.testing.assert_allclose(spliced_loss(model, params, tokens[:, :2], 1, jnp.zeros_like), alone, rtol=1e-5)


def test_the_text_is_read_whole():
    if shakespeare.locate() is None:
        pytest.skip("tinyshakespeare is not in the data directory")
    assert bytes(shakespeare.load()[:13]) == b"First Citizen"


@pytest.mark.parametrize("content", [None, b"no xz file"])
def test_a_missing_or_damaged_text_is_named(tmp_path, content):
    if content:
        (tmp_path / "tinyshakespeare").mkdir()
        (tmp_path / "tinyshakespeare" / "input.txt.xz").write_bytes(content)
    with pytest.raises(DataError, match=r"input\.txt\.xz"):
        shakespeare.load(tmp_path)
