"""-log p of labels under logits, with labels that do not count and labels that do not exist."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def cross_entropies(
    logits: Float[Array, "*places C"],
    labels: Int[Array, "*places"],
    counts: Bool[Array, "*places"] | None = None,
    ignore: int | None = None,
) -> Float[Array, "*places"]:
    """-log p(label), place by place.

    Args:
      logits: unnormalised log-probabilities of C classes.
      labels: classes 0 to C - 1.
      counts: places that count; all without it.
      ignore: a label that says the same, such as -100.

    Returns:
      0 where a place does not count, whatever stands there. NaN, and NaN as the gradient, where the label is no class:
      an index would take the last class for -1 and drop C.
    """
    number = logits.shape[-1]
    picked = jnp.take_along_axis(logits, jnp.clip(labels, 0, number - 1)[..., None], axis=-1)[..., 0]
    factor = jnp.where((labels >= 0) & (labels < number), 1.0, jnp.nan).astype(logits.dtype)
    counted = counted_places(labels, counts, ignore)
    if counted is not None:
        factor = jnp.where(counted, factor, 0.0)
    return factor * (jax.nn.logsumexp(logits, axis=-1) - picked)


def counted_places(
    labels: Int[Array, "*places"], counts: Array | None = None, ignore: int | None = None
) -> Bool[Array, "*places"] | None:
    """Which places count, None if all do."""
    if ignore is None:
        return None if counts is None else jnp.asarray(counts) != 0
    named = jnp.asarray(labels) != ignore
    return named if counts is None else named & (jnp.asarray(counts) != 0)
