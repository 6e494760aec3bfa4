"""The recommenders that RecSAE looks into, and what they are compared with."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from core.datasets import attributes
from core.datasets.attributes import tabulated
from core.datasets.interactions import Sequences, load_sequences
from core.errors import DataError
from core.fit import fit
from core.records import to_plain
from experiments.lab.system import Context
from experiments.recsae.config import WALKS, Config
from rec.ranking import mask_seen
from rec.sequential import (
    PAD,
    Bert4Rec,
    GRU4Rec,
    NextItemRanking,
    NextItems,
    SASRec,
    Sequential,
    World,
    as_sequences,
    draw_walks,
    item_neighbours,
    item_scores,
    leave_one_out,
    most_seen,
    neighbour_score,
    popularity,
    popularity_score,
    sequence_data,
    sequential_learner,
    shared_negatives,
    training_rows,
    transition_score,
    transitions,
)
from rec.sequential.ranking import Score

ROW_LENGTH = 32


class Corpus(NamedTuple):
    """A data set with what is known about its items."""

    name: str
    sequences: Sequences
    names: tuple[str, ...]
    present: Any
    """Items by attributes."""
    classes: Int[np.ndarray, " items"]
    """Category of the second level, or the planted group."""
    texts: tuple[str, ...]

    @property
    def num_items(self) -> int:
        """Items of the catalogue."""
        return self.sequences.shape[1]


class Subject(NamedTuple):
    """A trained recommender with the states that a dictionary learns on, and those it is tested on."""

    module: Sequential
    params: Any
    states: Float[np.ndarray, "places d"]
    """At all places of the training sequences."""
    last: Int[np.ndarray, " places"]
    """The item at each place."""
    examples: NextItems
    queries: Float[np.ndarray, "users d"]
    """After the test histories."""
    table: Float[Array, "items d"]


def corpora(config: Config, context: Context) -> list[Callable[[int], Corpus]]:
    """Functions of the seed: real data are the same for all, walks are drawn anew."""
    found: list[Callable[[int], Corpus]] = []
    if config.dataset:
        try:
            real = amazon(config, context)
            found.append(lambda seed: real)
        except DataError as error:
            context.say(f"{error}\nPlanted walks are used alone.")
    return [*found, functools.partial(planted, config)]


def amazon(config: Config, context: Context) -> Corpus:
    """Purchases with categories, brands and words of titles."""
    sequences = load_sequences(config.dataset, context.data_dir)
    found = attributes.load(config.dataset, context.data_dir)
    return Corpus(config.dataset, sequences, found.names, found.present, found.second_level, found.texts)


def planted(config: Config, seed: int) -> Corpus:
    """Walks over groups; attributes are the groups, and as many random ones that mean nothing."""
    world = World(config.walk_users, config.walk_items, config.walk_groups)
    walks = draw_walks(jax.random.key(seed), world)
    groups = np.asarray(walks.groups)
    rng = np.random.default_rng(seed)
    pairs = [(item, f"group {group}") for item, group in enumerate(groups.tolist())]
    size = world.items // world.groups
    for tag in range(world.groups):
        pairs += [(int(item), f"tag {tag}") for item in rng.choice(world.items, size, replace=False)]
    names, present = tabulated(pairs, world.items)
    texts = tuple(f"item {item} of group {group}" for item, group in enumerate(groups.tolist()))
    return Corpus(WALKS, as_sequences(walks.items, world.items), names, present, groups, texts)


def rank(config: Config, context: Context, corpus: Corpus, method: str, seed: int, counted: dict) -> None:
    """Trains or counts, ranks all items for the users' last choices and notes the metrics.

    ``counted`` keeps those of models that count: on real data they are the same for all seeds.
    """
    examples, key = leave_one_out(corpus.sequences, length=config.length), (corpus.name, method)
    if method in COUNTING and (corpus.name == WALKS or key not in counted):
        model, score = COUNTING[method](training_rows(corpus.sequences), corpus.num_items)
        counted[key] = NextItemRanking(examples, score=score).means(model)
    if method in COUNTING:
        metrics = counted[key]
    else:
        module, model = trained(config, context, corpus, method, seed)
        metrics = NextItemRanking(examples, score=functools.partial(item_scores, module)).means(model)
    for metric, value in metrics.items():
        context.record(dataset=corpus.name, method=method, metric=metric, seed=seed, value=value)


COUNTING: dict[str, Callable[[list[np.ndarray], int], tuple[Any, Score]]] = {
    "Popularity": lambda rows, items: (jnp.asarray(popularity(rows, items)), popularity_score),
    "Item-kNN": lambda rows, items: (item_neighbours(rows, items), neighbour_score),
    "Markov chain": lambda rows, items: (transitions(rows, items), transition_score),
}


def module_of(config: Config, corpus: Corpus, method: str) -> Sequential:
    """A model at the sizes of the configuration."""
    kind = {"SASRec": SASRec, "GRU4Rec": GRU4Rec, "BERT4Rec": Bert4Rec}[method]
    dim = config.walk_dim if corpus.name == WALKS else config.dim
    return kind(corpus.num_items, dim, dropout=config.dropout, length=config.length)


def trained(config: Config, context: Context, corpus: Corpus, method: str, seed: int) -> tuple[Sequential, Any]:
    """A model and its parameters; a run that was finished before is read back."""
    module = module_of(config, corpus, method)
    hide = 0.3 if method == "BERT4Rec" else None
    data = sequence_data(corpus.sequences, length=config.length, row_length=ROW_LENGTH, cloze=hide is not None)
    rows = min(config.batch_rows, data.rows.items.shape[0])
    per_epoch = data.rows.items.shape[0] // rows
    epochs = config.walk_epochs if corpus.name == WALKS else config.epochs
    learner = sequential_learner(
        module,
        tx=optax.adam(config.learning_rate),
        batch_size=rows,
        negatives=shared_negatives(config.negatives),
        hide=hide,
    )
    done = fit(
        learner._replace(init=jax.jit(learner.init)),
        data,
        key=jax.random.key(seed),
        steps=epochs * per_epoch,
        chunk=per_epoch,
        workdir=context.workdir / f"{corpus.name.replace(' ', '-')}-{method}-{seed}",
        identity={"config": to_plain(config), "method": method},
        progress=context.progress(f"{corpus.name}: {method}, seed {seed}"),
    )
    return module, done.state.params


def subject(config: Config, context: Context, corpus: Corpus, method: str, seed: int) -> Subject:
    """A trained recommender with its states at all places of the training sequences and after the test histories."""
    module, params = trained(config, context, corpus, method, seed)
    data = sequence_data(corpus.sequences, length=config.length, row_length=ROW_LENGTH)
    states = _by_blocks(jax.jit(module.apply), params, data.rows.items, data.rows.segments)
    items = np.asarray(data.rows.items)
    examples = leave_one_out(corpus.sequences, length=config.length)
    query = jax.jit(functools.partial(module.apply, method=module.query))
    queries = _by_blocks(query, params, examples.histories)
    table = module.apply(params, method=module.table)
    return Subject(module, params, states[items != PAD], items[items != PAD], examples, queries, table)  # type: ignore[arg-type]


def _by_blocks(apply: Callable, params: Any, *inputs: Array, block: int = 512) -> np.ndarray:
    """``apply(params, *inputs)`` in equal blocks, the last one padded."""
    count = inputs[0].shape[0]
    parts = []
    for start in range(0, count, block):
        part = [np.asarray(leaf[start : start + block]) for leaf in inputs]
        padded = [np.pad(leaf, ((0, block - len(leaf)), (0, 0)), mode="edge") for leaf in part]
        parts.append(np.asarray(apply(params, *padded))[: len(part[0])])
    return np.concatenate(parts)


def dot(model: tuple[Float[Array, "n d"], Float[Array, "items d"]], rows: Int[Array, "b 1"]) -> Float[Array, "b items"]:
    """<query, E_i>: a ``score`` for queries that are there already, whose numbers stand for the histories."""
    queries, table = model
    return queries[rows[:, 0]] @ table.T


def query_ranking(examples: NextItems) -> NextItemRanking:
    """The ranking of models ``(queries, item embeddings)``: one program for all edits of the queries."""
    numbered = examples._replace(histories=jnp.arange(examples.targets.shape[0])[:, None])
    return NextItemRanking(numbered, score=dot)


def top_items(
    queries: Float[np.ndarray, "r d"], table: Array, examples: NextItems, rows: Int[np.ndarray, " r"], k: int = 10
) -> Int[np.ndarray, "r k"]:
    """The recommended items of some users, given their queries."""
    block = 256
    padding = -len(rows) % block
    padded = np.pad(np.asarray(queries), ((0, padding), (0, 0)))
    users = np.pad(rows, (0, padding), mode="edge")
    found = _tops(padded, table, examples.held_out, users, k, block, most_seen(examples.held_out))
    return np.asarray(found)[: len(rows)]


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _tops(queries, table, held_out, rows, k: int, block: int, seen: int):
    def one(part):
        query, users = part
        return jax.lax.top_k(mask_seen(query @ table.T, held_out, users, seen), k)[1]

    parts = queries.reshape(-1, block, queries.shape[1]), rows.reshape(-1, block)
    return jax.lax.map(one, parts).reshape(-1, k)
