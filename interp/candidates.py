"""Candidates for influence on a query: documents that share its rare words, after BM25 without length normalisation.

With n_t of N documents containing the token t, and f(t, D) its count in the document D:

    idf(t) = log((N - n_t + 1/2) / (n_t + 1/2) + 1)
    score(q, D) = sum over the tokens t of q of  idf(t) f(t, D) (k1 + 1) / (f(t, D) + k1)

A token that stands in the query twice counts twice. Grosse et al., Studying Large Language Model Generalization with
Influence Functions, 2023, arXiv 2308.03296, filter the training sequences by such scores before any gradient is taken.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from core.checks import Count, NonNegative, checked, require_indices
from core.errors import ConfigError
from core.kinds import is_traced


class DocumentFrequencies(NamedTuple):
    """How many documents there are and how many contain each token."""

    documents: Int[Array, ""]
    containing: Int[Array, " V"]


@checked
def init(vocabulary: Count) -> DocumentFrequencies:
    """Frequencies before any document."""
    return DocumentFrequencies(jnp.zeros((), jnp.int32), jnp.zeros(vocabulary, jnp.int32))


@checked
def update(state: DocumentFrequencies, tokens: Int[Array, "N T"], mask: Bool[Array, "N T"]) -> DocumentFrequencies:
    """Counts a batch of documents; one without any token in the mask is padding and does not count."""
    _require_tokens("tokens", tokens, mask, state.containing.size)
    earlier = jnp.tril(jnp.ones((tokens.shape[1],) * 2, bool), -1)
    first = mask & ~jnp.any(_equal(tokens, mask) & earlier, axis=-1)
    return DocumentFrequencies(
        state.documents + jnp.sum(jnp.any(mask, axis=1), dtype=jnp.int32),
        state.containing.at[tokens].add(first.astype(jnp.int32)),
    )


def merge(one: DocumentFrequencies, other: DocumentFrequencies) -> DocumentFrequencies:
    """Frequencies of the documents of both; over devices the same is ``jax.lax.psum``."""
    return jax.tree.map(jnp.add, one, other)


def inverse_document_frequency(state: DocumentFrequencies) -> Float[Array, " V"]:
    """The weight idf of each token; positive, and falling in the number of documents that contain it."""
    return jnp.log1p((state.documents - state.containing + 0.5) / (state.containing + 0.5))


@checked
def scores(
    idf: Float[Array, " V"],
    query_tokens: Int[Array, "Q S"],
    query_mask: Bool[Array, "Q S"],
    tokens: Int[Array, "N T"],
    mask: Bool[Array, "N T"],
    k1: NonNegative = 1.5,
) -> Float[Array, "Q N"]:
    """How well each document matches each query; in time N T (T + Q), whatever the vocabulary.

    Args:
      idf: weight per token.
      query_tokens: tokens of the queries.
      query_mask: which of them are real.
      tokens: tokens of the documents.
      mask: which of them are real.
      k1: how soon repetitions of a token in a document stop to count; 0 counts presence only.
    """
    _require_tokens("query_tokens", query_tokens, query_mask, idf.size)
    _require_tokens("tokens", tokens, mask, idf.size)
    queries = len(query_tokens)
    present = jnp.where(query_mask, jnp.take(idf, query_tokens), 0)
    weights = jnp.zeros((queries, idf.size), present.dtype).at[jnp.arange(queries)[:, None], query_tokens].add(present)
    counts = jnp.sum(_equal(tokens, mask), axis=-1)
    # the f positions of a token share its f (k1 + 1) / (f + k1)
    each = jnp.where(mask, (k1 + 1) / jnp.maximum(counts + k1, 1), 0)
    return jax.lax.map(lambda weight: jnp.sum(weight[tokens] * each, axis=-1), weights)


@checked
def keep(scores: Float[Array, "Q N"], k: Count) -> Int[Array, "Q k"]:
    """The k best documents of each query, best first; of equal ones that with the lower number.

    Raises:
      ConfigError: where there are fewer than k documents.
    """
    if k > scores.shape[-1]:
        raise ConfigError(f"cannot keep {k} of {scores.shape[-1]} documents; choose between 1 and their number")
    return jax.lax.top_k(scores, k)[1]


def _require_tokens(name: str, tokens: Any, mask: Any, vocabulary: int) -> None:
    """Tokens that the mask leaves out may be any number."""
    if not is_traced(tokens) and not is_traced(mask):
        require_indices(name, np.where(mask, tokens, 0), vocabulary, "tokens in the vocabulary")


def _equal(tokens: Int[Array, "N T"], mask: Bool[Array, "N T"]) -> Bool[Array, "N T T"]:
    """Whether two positions of a document hold the same token and both are real."""
    return (tokens[:, :, None] == tokens[:, None, :]) & mask[:, :, None] & mask[:, None, :]
