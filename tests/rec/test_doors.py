"""What recommenders are given is checked where it enters: one error that names it, before any work."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from core.datasets.interactions import Interactions, Sequences, from_rows
from core.errors import ConfigError, DataError
from rec import baselines, dccf, dgcf, diagnostics, graph_contrast, lightgcn, metrics, sampling
from rec.graph import RecData, RecGraph
from rec.ranking import Ranking
from rec.sequential import (
    NextItemRanking,
    SASRec,
    World,
    binary,
    draw_walks,
    item_neighbours,
    leave_one_out,
    of_users,
    own_negatives,
    sequence_data,
    sequential_learner,
    training_rows,
)

DATA = from_rows([np.array([0, 1]), np.array([2])], [np.array([2]), np.array([0, 3])], 4, "here")
FULL = from_rows([np.arange(3)] * 2, [np.zeros(0, int)] * 2, 3, "here")
BROKEN = Interactions(np.array([0, 2]), np.array([0, 1, 2]), np.array([0, 0]), np.zeros(0, int), (1, 3))
HITS = jnp.ones((1, 2), bool)
NODES = jnp.ones((2, 3)), jnp.ones((4, 3))
ORDERED = Sequences(np.array([0, 4, 8]), np.array([0, 1, 2, 3] * 2), np.array([2, 2]), (2, 5))


def neighbours(count):
    return item_neighbours(training_rows(ORDERED), 5, neighbours=count)


def next_items(model):
    return NextItemRanking(leave_one_out(ORDERED), score=lambda model, h: jnp.ones((h.shape[0], 1)) * model).means(
        model
    )


REFUSED = {
    "a dimension of 0": (lambda: lightgcn.lightgcn_learner(dim=0), "dim"),
    "a rate below 0": (lambda: lightgcn.lightgcn_learner(learning_rate=-1.0), "learning_rate"),
    "a module of dimension 0": (lambda: lightgcn.LightGCN(dim=0), "dim"),
    "no views": (lambda: dccf.DCCF(views=("H_beta",)), "views at place 0 must be one of"),
    "temperature 0": (lambda: dccf.dccf_learner(tau=0.0), "tau"),
    "a contrast of what is not there": (
        lambda: dccf.dccf_learner(variant=dccf.Variant(views=("r",), contrasted=("r", "h_beta"))),
        "contrasted has h_beta",
    ),
    "factors that do not divide": (
        lambda: dgcf.dgcf_learner(dim=6, factors=4).init(KEY, RecData.build(DATA)),
        "do not divide into 4 factors",
    ),
    "every edge dropped": (lambda: graph_contrast.sgl_learner(drop=1.0), "drop"),
    "no layers to average": (lambda: graph_contrast.simgcl_learner(layers=0), "layers"),
    "a batch of 0": (lambda: sampling.triple_sampler(0), "batch_size"),
    "no item to compare": (lambda: lightgcn.lightgcn_learner(dim=2).init(KEY, RecData.build(FULL)), "no user has both"),
    "cut-off 0": (lambda: Ranking(DATA, ks=(0,)), "ks at place 0"),
    "no cut-off": (lambda: Ranking(DATA, ks=()), "ks is empty"),
    "NaN embeddings": (lambda: Ranking(DATA).means((NODES[0].at[1, 2].set(jnp.nan), NODES[1])), r"\[1, 2\]"),
    "fewer users": (lambda: Ranking(DATA).means((NODES[0][:1], NODES[1])), "the model has 1 users, the data have 2"),
    "fewer items": (lambda: Ranking(DATA).means((NODES[0], NODES[1][:3])), "scores 3 items, the data have 4"),
    "fewer items, traced": (
        lambda: jax.jit(lambda m, r: Ranking(DATA).on_device(m, r))((NODES[0], NODES[1][:3]), Ranking(DATA).held_out),
        "scores 3 items",
    ),
    "a metric that is none": (lambda: metrics.all_metrics(HITS, jnp.ones(1, int), (1,), ("HR",)), "'hr'"),
    "reg 0": (lambda: baselines.ease(DATA, 0.0), "reg"),
    "reg -1": (lambda: baselines.ease(DATA, -1.0), "reg"),
    "neighbours -1": (lambda: baselines.item_knn(DATA, -1), "neighbours"),
    "neighbours of sequences -1": (lambda: neighbours(-1), "neighbours"),
    "length 0": (lambda: sequence_data(ORDERED, length=0), "length"),
    "held -1": (lambda: sequence_data(ORDERED, held=-1), "held"),
    "a part that is none": (lambda: leave_one_out(ORDERED, "Test"), "did you mean 'test'"),
    "users who are not there": (lambda: of_users(ORDERED, np.array([0, 2])), r"users\[1\] is 2"),
    "a user with every item": (
        lambda: sequential_learner(
            SASRec(2, 2), tx=optax.sgd(1.0), batch_size=1, criterion=binary, negatives=own_negatives(1)
        ).init(KEY, sequence_data(ORDERED._replace(items=np.array([0, 1, 0, 1] * 2), shape=(2, 2)))),
        "user 0 has every item",
    ),
    "no negatives": (lambda: own_negatives(0), "count"),
    "fewer next items": (lambda: next_items(jnp.ones(2)), "the model scores 2 items, but items up to number 3 occur"),
    "NaN scores": (lambda: next_items(jnp.full(5, jnp.nan)), "nan"),
    "a world of nobody": (lambda: draw_walks(KEY, World(users=0)), "users"),
    "scores NaN": (lambda: diagnostics.auc(np.array([0.1, np.nan]), np.array([True, False])), "nan"),
    "one kind of example": (lambda: diagnostics.auc(np.array([0.1, 0.2]), np.array([True, True])), "both kinds"),
}  # fmt: skip
KEY = jax.random.key(0)


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_named(case):
    call, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize(
    "door", [RecGraph.build, RecData.build, Ranking, baselines.ease, baselines.item_knn, baselines.popularity]
)
def test_interactions_that_were_not_validated_are_refused_by_name(door):
    with pytest.raises(DataError, match="interactions: field 'train_indptr'"):
        door(BROKEN)


def test_sequences_that_were_not_validated_are_refused_by_name():
    with pytest.raises(DataError, match="sequences: field 'items', element 0 is 7"):
        leave_one_out(ORDERED._replace(items=np.array([7, 1, 2, 3] * 2)))


def test_the_part_of_leave_one_out_is_the_one_asked_for():
    test, dev = (np.asarray(leave_one_out(ORDERED, part).targets) for part in ("test", "dev"))
    np.testing.assert_array_equal(test, [3, 3])
    np.testing.assert_array_equal(dev, [2, 2])
