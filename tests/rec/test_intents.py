"""Simulated interactions end, whatever is asked for, and are what repeated drawing would give."""

import numpy as np
import pytest
import scipy.stats

from core.errors import ConfigError
from rec import intents
from rec.intents import add_false_edges, simulate

MIXTURE, ITEM_INTENTS = np.array([0.7, 0.3, 0.0]), np.array([0, 0, 1, 1, 0])
POPULARITY = np.array([1.0, 2.0, 1.0, 3.0, 0.5])


def orders(draws, count, noise):
    """Which items came, in which order, and whether the first was noise."""
    rng, within = np.random.default_rng(0), intents._choices_within(ITEM_INTENTS, POPULARITY, 3)
    return [intents._draw(rng, MIXTURE, within, count, noise) for _ in range(draws)]


def test_the_exact_draw_has_the_distribution_of_drawing_until_items_are_distinct(monkeypatch):
    repeated = orders(6_000, 3, 0.4)
    monkeypatch.setattr(intents, "ROUNDS", 0)
    exact = orders(6_000, 3, 0.4)
    for of in (lambda items, noisy: tuple(items), lambda items, noisy: (items[1], noisy[1])):
        kinds = sorted({of(*drawn) for drawn in repeated + exact})
        table = [[sum(of(*drawn) == kind for drawn in part) for kind in kinds] for part in (repeated, exact)]
        table = np.array(table)[:, np.sum(table, axis=0) >= 10]
        assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "world",
    [
        {"users": 20, "items": 12, "base": 12, "extra": 0.0},  # every item
        {"users": 50, "items": 40, "alpha": 1e-3, "noise": 0.0},  # users of one intent only
        {"users": 30, "items": 30, "intents": 30, "base": 4, "extra": 4.0},  # intents without items
        {"users": 1, "items": 1, "base": 1, "extra": 0.0},
        {"users": 5, "items": 9, "base": 0, "extra": 0.0},  # nothing at all
    ],
)
def test_every_world_that_can_be_is_drawn(world):
    data, truth = simulate(0, **world)
    np.testing.assert_allclose(truth.user_intents.sum(1), 1.0, rtol=1e-12)
    for user in range(world["users"]):
        train = data.train_items[data.train_indptr[user] : data.train_indptr[user + 1]]
        test = data.test_items[data.test_indptr[user] : data.test_indptr[user + 1]]
        assert len(np.union1d(train, test)) == len(train) + len(test) >= world.get("base", 8)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "wrong", [{"items": 12}, {"users": 0}, {"items": 1}, {"intents": 0}, {"noise": 2.0}, {"base": -1}]
)
def test_worlds_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        simulate(0, **({"users": 20, "items": 100} | wrong))


@pytest.mark.timeout(60)
def test_false_edges_fill_what_is_free_and_no_more():
    data, _ = simulate(0, users=10, items=40)
    free = 10 * 40 - len(data.train_items) - len(data.test_items)
    for share in (0.1, free / len(data.train_items)):
        noisy, false = add_false_edges(data, share, seed=1)
        assert false.sum() == round(share * len(data.train_items)) == len(noisy.train_items) - len(data.train_items)
        users = np.repeat(np.arange(10), np.diff(noisy.train_indptr))
        test = set(zip(np.repeat(np.arange(10), np.diff(data.test_indptr)), data.test_items, strict=True))
        pairs = set(zip(users, noisy.train_items, strict=True))
        assert len(pairs) == len(users)
        assert not pairs & test
    with pytest.raises(ConfigError, match=f"only {free} of 10 users and 40 items are free"):
        add_false_edges(data, (free + 1) / len(data.train_items), seed=1)
    with pytest.raises(ConfigError, match="share"):
        add_false_edges(data, -0.1, seed=1)
