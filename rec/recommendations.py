"""What to show to whom, in the names of the data: the end of the way from a table of one's own to its users."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Shaped

from core.checks import Count, checked, require_finite
from core.datasets.interactions import Interactions, validate
from core.errors import ConfigError
from rec.ranking import HeldOut, Score, dot_product, mask_seen


@checked
def recommendations(
    model: Any,
    interactions: Interactions,
    *,
    users: Sequence[Any] | None = None,
    k: Count = 10,
    score: Score = dot_product,
    block: Count = 256,
) -> pd.DataFrame:
    """The items of highest score for each user, without those that she has in the training or the test part.

    Args:
      model: what ``score`` takes.
      interactions: the data that the model was trained on.
      users: for whom, as ``interactions.user_ids`` has them, by number where it has none; for everybody if None.
      k: items for each user; fewer where fewer are left.
      score: scores of all items for a block of users.
      block: users whose scores are computed at a time.

    Returns:
      A row per user and item, best first: columns ``user``, ``item``, ``rank`` (from 1) and ``score``.

    Raises:
      ConfigError: for users that the data do not have, and for a model of other data or one that holds NaN.
      DataError: where the interactions are not what they should be.
    """
    data = validate(interactions, "interactions")
    require_finite("the model", model, "train it with a lower learning rate, or leave out what is not finite")
    numbers = _numbers(data, users)
    had = _had(data, numbers)
    shape = jax.eval_shape(score, model, jax.ShapeDtypeStruct((1,), jnp.int32)).shape
    if shape[-1] != data.shape[1]:
        raise ConfigError(f"recommendations: the model scores {shape[-1]} items, the data have {data.shape[1]}")
    if score is dot_product and model[0].shape[0] != data.shape[0]:
        raise ConfigError(f"recommendations: the model has {model[0].shape[0]} users, the data have {data.shape[0]}")
    most, k = int(np.diff(np.asarray(had.train_indptr)).max(initial=0)), min(k, data.shape[1])

    @jax.jit
    def best(users):
        return jax.lax.top_k(mask_seen(score(model, users), had, users, most), k)

    found = [jax.device_get(best(numbers[i : i + block])) for i in range(0, len(numbers), block)]
    scores, items = (np.concatenate([part[side] for part in found]) for side in (0, 1))
    row, place = np.nonzero(scores > -np.inf)
    columns = {
        "user": _names(data.user_ids, np.asarray(numbers)[row]),
        "item": _names(data.item_ids, items[row, place]),
        "rank": place + 1,
        "score": scores[row, place],
    }
    return pd.DataFrame(columns)


def _numbers(data: Interactions, users: Sequence[Any] | None) -> jax.Array:
    if users is None:
        return jnp.arange(data.shape[0])
    known = range(data.shape[0]) if data.user_ids is None else data.user_ids.tolist()
    place = {user: number for number, user in enumerate(known)}
    strange = [user for user in users if user not in place]
    if strange or not len(users):
        what = (
            f"{strange[0]!r} is no user of the data, whose ids are like {known[0]!r}" if strange else "there are none"
        )
        raise ConfigError(f"recommendations: users: {what}")
    return jnp.asarray([place[user] for user in users], jnp.int32)


def _had(data: Interactions, users: jax.Array) -> HeldOut:
    """All items of every user as those that a ranking leaves out."""
    pointers, rows = data.train_indptr + data.test_indptr, np.arange(data.shape[0])
    owners = np.concatenate([np.repeat(rows, np.diff(p)) for p in (data.train_indptr, data.test_indptr)])
    items = np.concatenate([data.train_items, data.test_items])[np.argsort(owners, kind="stable")]
    return HeldOut(users, jnp.asarray(pointers), jnp.asarray(items), jnp.zeros_like(pointers), jnp.zeros(0, jnp.int32))


def _names(ids: Shaped[np.ndarray, " n"] | None, numbers: np.ndarray) -> np.ndarray:
    return numbers if ids is None else ids[numbers]
