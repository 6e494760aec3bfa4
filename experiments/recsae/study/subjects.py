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
from experiments.lab import Context
from experiments.recsae.config import WALKS, Config
from rec.sequential import (
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
    neighbour_score,
    popularity,
    popularity_score,
    queries_after,
    sequence_data,
    sequential_learner,
    shared_negatives,
    states_at_places,
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
    walks = functools.lru_cache(maxsize=1)(functools.partial(planted, config))
    if not config.dataset:
        return [walks]
    try:
        real = amazon(config, context)
    except DataError as error:
        context.say(f"{error}\nPlanted walks are used alone.")
        return [walks]
    return [lambda seed: real, walks]


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


def rank(config: Config, context: Context, corpus: Callable[[int], Corpus], method: str, seed: int) -> None:
    """Trains or counts, ranks all items for the users' last choices and notes the metrics."""
    here = corpus(seed)
    if method in COUNTING:
        metrics = counted(corpus, method, config.length, seed if here.name == WALKS else 0)
    else:
        module, model = trained(config, context, here, method, seed)
        examples = leave_one_out(here.sequences, length=config.length)
        metrics = NextItemRanking(examples, score=functools.partial(item_scores, module)).means(model)
    context.at(dataset=here.name, method=method, seed=seed).record_all(metrics)


@functools.lru_cache(maxsize=8)
def counted(corpus: Callable[[int], Corpus], method: str, length: int, seed: int) -> dict[str, float]:
    """Metrics of a model that counts; on real data they are the same for all seeds."""
    sequences = corpus(seed).sequences
    model, score = COUNTING[method](training_rows(sequences), sequences.shape[1])
    return NextItemRanking(leave_one_out(sequences, length=length), score=score).means(model)


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
    states, last = states_at_places(module, params, data.rows.items, data.rows.segments)
    examples = leave_one_out(corpus.sequences, length=config.length)
    queries = queries_after(module, params, examples.histories)
    return Subject(module, params, states, last, examples, queries, module.apply(params, method=module.table))  # type: ignore[arg-type]
