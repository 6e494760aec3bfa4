"""Sequential recommendation: what will a user choose next, after what she chose so far.

::

    data = sequence_data(load_sequences("amazon_beauty"), length=20)
    module = SASRec(num_items=12101, dim=64, dropout=0.3)
    state, _ = fit(sequential_learner(module, tx=optax.adam(1e-3)), data, key=key, steps=3000)
    ranking = NextItemRanking(leave_one_out(sequences), score=partial(item_scores, module))
    ranking.means(state.params)                                  # {"hr@10": ..., "ndcg@10": ..., "mrr@10": ...}

A history is a row of item numbers from 0, left-padded with ``PAD``; a model is a module whose state at a place is the
query for what follows. Models that count instead of learning share the ranking.
"""

from rec.baselines import popularity_score
from rec.sequential.counting import (
    ItemWeights,
    item_neighbours,
    neighbour_score,
    popularity,
    transition_score,
    transitions,
)
from rec.sequential.histories import (
    PAD,
    NextItems,
    Rows,
    SequenceData,
    leave_one_out,
    left_padded,
    next_item_examples,
    of_users,
    pack,
    sequence_data,
    training_rows,
    user_rows,
)
from rec.sequential.learning import (
    EVERY_ITEM,
    SAMPLED,
    Batch,
    Negatives,
    binary,
    bpr_max,
    own_negatives,
    row_sampler,
    sequence_loss,
    sequential_learner,
    shared_negatives,
    softmax,
)
from rec.sequential.models import (
    Bert4Rec,
    GRU4Rec,
    SASRec,
    SASRecPreNorm,
    Sequential,
    item_scores,
    queries_after,
    states_at_places,
)
from rec.sequential.ranking import (
    NextItemRanking,
    metrics_of,
    most_seen,
    query_ranking,
    ranks,
    ranks_by_item_blocks,
    recommended,
    top_items,
)
from rec.sequential.walks import Walks, World, as_sequences, draw_walks

__all__ = [
    "EVERY_ITEM",
    "PAD",
    "SAMPLED",
    "Batch",
    "Bert4Rec",
    "GRU4Rec",
    "ItemWeights",
    "Negatives",
    "NextItemRanking",
    "NextItems",
    "Rows",
    "SASRec",
    "SASRecPreNorm",
    "SequenceData",
    "Sequential",
    "Walks",
    "World",
    "as_sequences",
    "binary",
    "bpr_max",
    "draw_walks",
    "item_neighbours",
    "item_scores",
    "leave_one_out",
    "left_padded",
    "metrics_of",
    "most_seen",
    "neighbour_score",
    "next_item_examples",
    "of_users",
    "own_negatives",
    "pack",
    "popularity",
    "popularity_score",
    "queries_after",
    "query_ranking",
    "ranks",
    "ranks_by_item_blocks",
    "recommended",
    "row_sampler",
    "sequence_data",
    "sequence_loss",
    "sequential_learner",
    "shared_negatives",
    "softmax",
    "states_at_places",
    "top_items",
    "training_rows",
    "transition_score",
    "transitions",
    "user_rows",
]
