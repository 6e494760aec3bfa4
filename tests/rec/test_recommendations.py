"""Recommendations are the best of the items that a user does not have, in the names of the data."""

import jax.numpy as jnp
import numpy as np
import pytest

from core.datasets.interactions import from_rows
from core.errors import ConfigError
from rec.baselines import popularity_score
from rec.recommendations import recommendations

DATA = from_rows(
    [np.array([0, 1]), np.array([2]), np.arange(4)], [np.array([2]), np.array([0, 3]), np.zeros(0, int)], 4, ""
)
NAMED = DATA._replace(user_ids=np.array(["ann", "bob", "cy"]), item_ids=np.array(["w", "x", "y", "z"]))
SCORES = jnp.array([4.0, 3.0, 2.0, 1.0])


def test_items_that_a_user_has_in_either_part_are_left_out():
    found = recommendations(SCORES, DATA, score=popularity_score, k=4)
    assert found[["user", "item", "rank", "score"]].values.tolist() == [[0, 3, 1, 1], [1, 1, 1, 3]]


def test_names_are_those_of_the_data_and_blocks_make_no_difference():
    nodes = jnp.eye(3, 2), jnp.array([[1.0, 4], [2, 3], [3, 2], [4, 1]])
    found = recommendations(nodes, NAMED, k=2, block=1)
    assert found[["user", "item"]].values.tolist() == [["ann", "z"], ["bob", "x"]]
    assert found.equals(recommendations(nodes, NAMED, k=2))
    assert recommendations(nodes, NAMED, users=["bob"])["item"].tolist() == ["x"]
    assert recommendations(nodes, NAMED, users=["cy"]).empty


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (
            SCORES,
            {"users": ["dan"], "score": popularity_score},
            "'dan' is no user of the data, whose ids are like 'ann'",
        ),
        (SCORES, {"users": [], "score": popularity_score}, "users: there are none"),
        (SCORES[:3], {"score": popularity_score}, "the model scores 3 items, the data have 4"),
        (SCORES.at[1].set(jnp.nan), {"score": popularity_score}, r"the model has nan at \[1\]"),
        ((jnp.ones((2, 2)), jnp.ones((4, 2))), {}, "the model has 2 users, the data have 3"),
        (SCORES, {"k": 0, "score": popularity_score}, "k must be"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(model, options, message):
    with pytest.raises(ConfigError, match=message):
        recommendations(model, NAMED, **options)
