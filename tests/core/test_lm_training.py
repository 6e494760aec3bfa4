"""Texts become rows that lose no token, a decoder learns what they say, and continuations follow its distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from core.errors import ConfigError
from core.fit import fit
from core.lm import ByteTokenizer, Decoder, DecoderConfig, continuations, decoder_learner, packed, token_losses

BYTES, KEY = ByteTokenizer(), jax.random.key(0)
MODEL = Decoder(DecoderConfig(7, width=8, layers=1, heads=2, max_length=8))
PARAMS = MODEL.init(jax.random.key(1), jnp.zeros(4, int))["params"]
PARAMS = jax.tree.map(lambda leaf: leaf + 0.5 * jax.random.normal(jax.random.key(2), leaf.shape), PARAMS)


def test_every_token_but_the_first_is_a_target_once():
    rows = packed(["abcde", "fghi"], BYTES, 3, end=BYTES.eos)
    assert rows.dtype == np.int32
    assert BYTES.decode(rows[0].tolist()) == "abcd"
    assert rows[:, 1:].ravel().tolist() == [*b"bcde", BYTES.eos, *b"fghi"]
    np.testing.assert_array_equal(rows[1:, 0], rows[:-1, -1])


def test_a_decoder_learns_what_follows_what():
    rows = (jnp.arange(6)[:, None] + jnp.arange(9)) % 6
    learner = decoder_learner(MODEL, optax.adam(3e-2))
    params = fit(learner, rows, key=KEY, steps=150).state.params
    assert float(token_losses(MODEL, params, rows[:, :-1], rows[:, 1:]).mean()) < 0.1
    assert continuations(MODEL, params, np.array([[0, 1], [3, 4]]), 4, KEY, 0.1).tolist() == [
        [2, 3, 4, 5],
        [5, 0, 1, 2],
    ]


def test_continuations_have_the_probabilities_of_the_model():
    starts = np.tile([[2, 5]], (4_000, 1))
    found = np.asarray(continuations(MODEL, PARAMS, starts, 2, KEY, 0.7))
    after = jax.nn.softmax(MODEL.apply({"params": PARAMS}, jnp.array([2, 5]))[-1] / 0.7)
    np.testing.assert_allclose(np.bincount(found[:, 0], minlength=7) / 4_000, after, atol=0.03)
    first = int(np.argmax(after))
    chosen = found[found[:, 0] == first, 1]
    then = jax.nn.softmax(MODEL.apply({"params": PARAMS}, jnp.array([2, 5, first]))[-1] / 0.7)
    np.testing.assert_allclose(np.bincount(chosen, minlength=7) / len(chosen), then, atol=0.05)


def test_a_row_draws_the_same_whatever_rows_there_are_beside_it():
    alone, beside = (continuations(MODEL, PARAMS, np.array([[1, 2]] * n), 5, KEY) for n in (1, 3))
    assert alone[0].tolist() == beside[0].tolist()
    assert len({tuple(row) for row in np.asarray(beside).tolist()}) > 1


REFUSED = {
    "a text in place of several": (lambda: packed("abc", BYTES, 2), "texts must be a sequence"),
    "an empty cell": (lambda: packed(["a", None], BYTES, 2), r"texts at place 1 must be a text, not None"),
    "too little text": (lambda: packed(["abc"], BYTES, 3), r"3 tokens in all, fewer than a row of 3 \+ 1"),
    "length 0": (lambda: packed(["abc"], BYTES, 0), "length must be"),
    "ids beyond the vocabulary": (
        lambda: decoder_learner(MODEL, optax.sgd(1.0)).init(KEY, jnp.full((2, 4), 7)),
        "but there are 7 ids in the vocabulary",
    ),
    "rows that are too long": (
        lambda: decoder_learner(MODEL, optax.sgd(1.0)).init(KEY, jnp.zeros((2, 10), int)),
        "9 tokens, padding included, but the model has 8",
    ),
    "text in place of ids": (
        lambda: decoder_learner(MODEL, optax.sgd(1.0)).init(KEY, np.array(["a"])),
        "rows must be ids",
    ),
    "no start": (lambda: continuations(MODEL, PARAMS, np.zeros((1, 0), int), 3, KEY), "begin with one token or more"),
    "a start beyond the vocabulary": (lambda: continuations(MODEL, PARAMS, np.array([[9]]), 3, KEY), "there are 7 ids"),
    "more than there is room for": (lambda: continuations(MODEL, PARAMS, np.array([[1]]), 8, KEY), "the model has 8"),
    "temperature 0": (lambda: continuations(MODEL, PARAMS, np.array([[1]]), 3, KEY, 0.0), "temperature must be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name(case):
    call, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        call()
