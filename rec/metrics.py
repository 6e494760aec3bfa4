"""Metrics of a ranked list against held-out items, per user and at several cut-offs.

All take ``hits`` [..., K], whether the item at rank 1, ..., K is relevant, and ``relevant`` [...], how many relevant
items there are (at least 1); all return [..., len(ks)]. A cut-off beyond the list counts what the list holds.

========  ========================================================================================
recall    hits in the first k / relevant
ndcg      DCG@k / ideal DCG@k, DCG@k = sum over hits at rank p <= k of 1 / log2(p + 1)
hr        1 if there is a hit in the first k
mrr       1 / rank of the first hit, 0 if it lies beyond k
map       sum over hits at rank p <= k of (hits in the first p) / p, divided by relevant
========  ========================================================================================
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from core.checks import Count, checked, require_one_of
from core.errors import ConfigError

Hits = Bool[Array, "*users K"]
Relevant = Int[Array, "*users"]
Values = Float[Array, "*users ks"]
Metric = Callable[[Hits, Relevant, Sequence[int]], Values]


@checked
def recall(hits: Hits, relevant: Relevant, ks: Sequence[Count]) -> Values:
    """The share of the relevant items found."""
    return _up_to(_real(hits), ks) / relevant[..., None]


@checked
def ndcg(hits: Hits, relevant: Relevant, ks: Sequence[Count]) -> Values:
    """The discounted gain as a share of that of the best possible list."""
    ideal = jnp.arange(1, hits.shape[-1] + 1) <= relevant[..., None]
    if max(ks) > hits.shape[-1]:
        ideal = jnp.arange(1, max(ks) + 1) <= relevant[..., None]
    return _up_to(_discounted(hits), ks) / _up_to(_discounted(ideal), ks)


@checked
def hit_rate(hits: Hits, relevant: Relevant, ks: Sequence[Count]) -> Values:
    """Whether anything relevant was found."""
    return jnp.minimum(_up_to(_real(hits), ks), 1)


@checked
def mrr(hits: Hits, relevant: Relevant, ks: Sequence[Count]) -> Values:
    """The reciprocal rank of the first relevant item."""
    first = hits & (jnp.cumsum(hits, axis=-1) == 1)
    return _up_to(_real(first) / _ranks(hits), ks)


@checked
def average_precision(hits: Hits, relevant: Relevant, ks: Sequence[Count]) -> Values:
    """The precision at every hit, averaged over all relevant items (``map_cut`` of trec_eval)."""
    precision = jnp.cumsum(_real(hits), axis=-1) / _ranks(hits)
    return _up_to(jnp.where(hits, precision, 0), ks) / relevant[..., None]


METRICS: Mapping[str, Metric] = MappingProxyType(
    {"recall": recall, "ndcg": ndcg, "hr": hit_rate, "mrr": mrr, "map": average_precision}
)


@checked
def all_metrics(
    hits: Hits, relevant: Relevant, ks: Sequence[Count], names: Sequence[str] = tuple(METRICS)
) -> dict[str, Float[Array, "*users"]]:
    """Every metric at every cut-off, as ``{"recall@20": [...], ...}``.

    Raises:
      ConfigError: for a name that is no metric, and where there is no cut-off.
    """
    for name in names:
        require_one_of("all_metrics: a name", name, METRICS)
    if not len(ks):
        raise ConfigError("all_metrics: ks is empty; name a cut-off, such as 20")
    values = {name: METRICS[name](hits, relevant, ks) for name in names}
    return {f"{name}@{k}": value[..., j] for name, value in values.items() for j, k in enumerate(ks)}


def _real(flags: Bool[Array, "..."]) -> Float[Array, "..."]:
    return flags.astype(jnp.result_type(float))


def _ranks(hits: Hits) -> Float[Array, " K"]:
    return jnp.arange(1, hits.shape[-1] + 1, dtype=jnp.result_type(float))


def _discounted(flags: Bool[Array, "..."]) -> Float[Array, "..."]:
    return _real(flags) / jnp.log2(_ranks(flags) + 1)


def _up_to(gains: Float[Array, "*users K"], ks: Sequence[Count]) -> Values:
    """The sums of the first k gains, for each k."""
    totals = jnp.cumsum(gains, axis=-1)
    return jnp.stack([totals[..., min(k, gains.shape[-1]) - 1] for k in ks], axis=-1)
