"""The runs of the DCCF comparison: what is trained on what, and what is recorded of it."""

import dataclasses
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from core.datasets.interactions import Interactions, hold_out, load
from core.early_stopping import Stopping, is_open, stop_by_validation
from core.errors import ConfigError, DataError
from core.fit import Fit, fit
from core.learner import Learner, Params, State, replicate_seeds, seed_keys
from core.records import Scalar, to_plain
from core.stats import summary
from experiments.dccf.config import (
    BASELINE,
    BEST_STEP,
    CLOSED_FORM,
    CURVES,
    SIMULATED,
    STOPPED,
    VALIDATED,
    Config,
    noisy,
)
from experiments.dccf.study.methods import method_of
from experiments.lab.files import replacing
from experiments.lab.system import Context
from rec.baselines import ease, history_score, item_knn, popularity, popularity_score
from rec.dccf import DCCF, Layer, alphas
from rec.diagnostics import auc, by_degree, mean_average_distance, purity
from rec.graph import RecData, RecGraph
from rec.intents import Intents, add_false_edges, simulate
from rec.ranking import HeldOut, Ranking, Score


class Draw(NamedTuple):
    """A data set, with what is known about it."""

    interactions: Interactions
    truth: Intents | None = None
    false_edges: Bool[np.ndarray, " train"] | None = None
    split: Interactions | None = None
    """The training items apart, some of them as test part, where these choose when to stop."""
    kept: Bool[np.ndarray, " train"] | slice = slice(None)
    """Which of the training items are learned from."""

    @property
    def learned(self) -> Interactions:
        """What models are trained on."""
        return self.split or self.interactions

    @property
    def shape(self) -> tuple[int, ...]:
        """Draws of equal shape can be stacked."""
        if self.split is None:
            return (len(self.interactions.train_items),)
        learned, held_out = np.diff(self.split.train_indptr), np.diff(self.split.test_indptr)
        return int(learned.sum()), int(learned.max()).bit_length(), int(np.count_nonzero(held_out)), int(held_out.sum())

    def held_out(self, share: float) -> "Draw":
        """The same data with a share of the training items held out, the same for all seeds of one data set."""
        split, kept = hold_out(self.interactions, share)
        return self._replace(split=split, kept=kept)


class Sample(NamedTuple):
    """The data of some seeds: each its own draw of equal shape, or all the same."""

    seeds: tuple[int, ...]
    draws: tuple[Draw, ...]

    @property
    def is_shared(self) -> bool:
        """Whether all seeds train on the same data."""
        return all(draw is self.draws[0] for draw in self.draws)

    def of(self, seeds: tuple[int, ...]) -> "Sample":
        """The part of some seeds."""
        return Sample(seeds, tuple(self.draws[self.seeds.index(seed)] for seed in seeds))

    def of_equal_shape(self) -> list["Sample"]:
        """The seeds that one program can train together: false edges and held-out items may differ in number."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for seed, draw in zip(self.seeds, self.draws, strict=True):
            groups.setdefault(draw.shape, []).append(seed)
        return [self.of(tuple(seeds)) for seeds in groups.values()]


def run(config: Config, context: Context) -> None:
    """Trains and measures every method of every study that is not done yet."""
    config = available(config, context)
    context.cells(
        {"dataset": dataset, "method": method, "seed": seed}
        for dataset, methods in studies(config)
        for method in methods
        for seed in context.seeds
    )
    for dataset, methods in studies(config):
        sample = Sample(tuple(context.seeds), draws(config, context, dataset)) if methods else None
        for method in methods:
            missing = tuple(s for s in context.seeds if not context.done(dataset=dataset, method=method, seed=s))
            if missing and sample:
                measure(config, context, dataset, sample.of(missing), method)
    compare_users(config, context)


def available(config: Config, context: Context) -> Config:
    """The configuration, with the generator in the place of a data set that is not there."""
    if config.dataset == SIMULATED or not config.simulate_if_missing:
        return config
    try:
        load(config.dataset, data_dir=context.data_dir)
    except DataError as error:
        context.say(f"{error}\nThe main comparison is made on simulated intents instead.")
        return dataclasses.replace(config, dataset=SIMULATED)
    return config


def studies(config: Config) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Data sets and the methods to compare on each."""
    yield config.dataset, config.methods
    yield SIMULATED, tuple(dict.fromkeys((*config.ablations, *config.robust)))
    yield noisy(config), config.robust


def draws(config: Config, context: Context, dataset: str) -> tuple[Draw, ...]:
    """The data of each seed: a draw of its own where they are simulated."""
    is_simulated = dataset.startswith(SIMULATED)
    found = [simulated(config, dataset, seed) for seed in context.seeds] if is_simulated else []
    found = found or [Draw(load(dataset, data_dir=context.data_dir))]
    found = [draw.held_out(config.validation) if config.validation else draw for draw in found]
    return tuple(found) * (1 if is_simulated else len(context.seeds))


def simulated(config: Config, dataset: str, seed: int) -> Draw:
    """The generator's draw for a seed, with false edges if the name says so."""
    interactions, truth = simulate(seed, users=config.users, items=config.items)
    if dataset == SIMULATED:
        return Draw(interactions, truth)
    corrupted, false_edges = add_false_edges(interactions, config.false_edges, seed)
    return Draw(corrupted, truth, false_edges)


def measure(config: Config, context: Context, dataset: str, sample: Sample, name: str) -> None:
    """Trains a method for all seeds of the sample at once and records what came of it."""
    context.say(f"{dataset}: {name}, seeds {', '.join(map(str, sample.seeds))}")
    note = Notes(context, dataset, name)
    if name in CLOSED_FORM:
        solve(sample, name, note)
    else:
        for part in sample.of_equal_shape():
            train(config, part, note)
    for seed in sample.seeds:
        context.finish(dataset=dataset, method=name, seed=seed)


def solve(sample: Sample, name: str, note: "Notes") -> None:
    """The methods in closed form; they do not depend on the seed but through the data."""
    for draw in sample.draws[:1] if sample.is_shared else sample.draws:
        model, score = closed_form(draw.learned, name)
        ranking = Ranking(draw.interactions, score=score)
        for seed, own in zip(sample.seeds, sample.draws, strict=True):
            if own is draw:
                note.final(seed, draw, ranking, model)


def closed_form(interactions: Interactions, name: str) -> tuple[Any, Score]:
    """A model without training, and how it scores."""
    match name:
        case "Popularity":
            return jnp.asarray(popularity(interactions)), popularity_score
        case "EASE":
            weights = ease(interactions)
        case "Item-kNN":
            weights = item_knn(interactions)
        case _:
            raise ConfigError(f"there is no closed form of {name!r}; possible: {', '.join(CLOSED_FORM)}")
    return (RecGraph.build(interactions), jnp.asarray(weights)), history_score


def train(config: Config, sample: Sample, note: "Notes") -> None:
    """One run of all seeds: the learning curve, the final metrics and what else the embeddings show."""
    each = [RecData.build(draw.learned) for draw in sample.draws[: 1 if sample.is_shared else None]]
    each *= len(sample.seeds) if sample.is_shared else 1
    rankings = [Ranking(draw.interactions) for draw in sample.draws]
    method = method_of(config, note.dataset, note.method, each[0])
    apply = jax.jit(method.model.apply)

    def trained(params: Params, index: int) -> tuple[Params, Any]:
        own = jax.tree.map(lambda leaf: leaf[index], params)
        return own, apply(own, each[index].graph)

    def evaluate(state: State) -> dict[str, float]:
        means = {seed: rankings[i].means(trained(state.params, i)[1]) for i, seed in enumerate(sample.seeds)}
        return {f"{metric}/{seed}": value for seed, row in means.items() for metric, value in row.items()}

    shared = sample.is_shared
    data = each[0] if shared else _stacked(each)
    training = Training(
        replicate_seeds(method.learner, len(sample.seeds), batch_axes=None if shared else 0), data, method.steps
    )
    if config.validation:
        params = train_until_validated(config, sample, note, training, method.model.apply)
    else:
        params = train_all_steps(config, sample, note, training, evaluate)
    for index, (seed, draw) in enumerate(zip(sample.seeds, sample.draws, strict=True)):
        own, nodes = trained(params, index)
        note.final(seed, draw, rankings[index], nodes)
        note("mad", seed, float(jax.jit(mean_average_distance)(nodes, jax.random.key(0))))
        if isinstance(method.model, DCCF):
            note.intents(seed, draw, method.model, own, each[index].graph)


class Training(NamedTuple):
    """What is trained, on what and for how long."""

    learner: Learner
    """Of all seeds, stacked."""
    data: Any
    """Shared by the seeds, or stacked."""
    steps: int

    def fit(self, config: Config, sample: Sample, note: "Notes", per_update: int = 1, **options: Any) -> Fit:
        """Trains, and resumes what was interrupted; an update of the learner may be several steps."""
        show = note.context.progress(f"{note.dataset}: {note.method}")
        return fit(
            self.learner._replace(init=jax.jit(self.learner.init)),
            self.data,
            key=seed_keys(sample.seeds),
            steps=self.steps,
            workdir=note.folder(*sample.seeds),
            identity={"config": to_plain(config), "cell": [note.dataset, note.method, *sample.seeds]},
            progress=lambda done, updates: show(done * per_update, updates * per_update),
            **options,
        )


def train_all_steps(config: Config, sample: Sample, note: "Notes", training: Training, evaluate: Any) -> Params:
    """Trains for the fixed number of steps; the parameters of the last one. The curve is that of the test part."""
    every = max(1, training.steps // config.evaluations)
    result = training.fit(config, sample, note, evaluate=evaluate, evaluate_every=every)
    for row in result.history:
        note.curve(row)
    return result.state.params


def train_until_validated(config: Config, sample: Sample, note: "Notes", training: Training, apply: Any) -> Params:
    """Trains until held-out training items are ranked no better; every seed's parameters at its best step."""
    held_out = [HeldOut.build(draw.learned) for draw in sample.draws[: 1 if sample.is_shared else None]]
    ranking = Ranking(sample.draws[0].learned)
    data = training.data.graph, held_out[0] if sample.is_shared else _stacked(held_out)

    def one(own: Any) -> Float[Array, ""]:
        params, (graph, held_out) = own
        return jnp.mean(ranking.on_device(apply(params, graph), held_out)[VALIDATED])

    def score(params: Params, data: Any) -> Float[Array, " seeds"]:
        if sample.is_shared:
            return jax.lax.map(lambda own: one((own, data)), params)
        return jax.lax.map(one, (params, data))

    every = max(1, training.steps // config.evaluations)
    rounds = training.steps // every
    learner = stop_by_validation(training.learner, score, every=every, rounds=rounds, patience=config.patience)
    result = Training(learner, (training.data, data), rounds).fit(config, sample, note, every, chunk=1)
    note.stopping(sample.seeds, result.state, every, config.patience)
    return result.state.params


def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@dataclasses.dataclass(frozen=True)
class Notes:
    """Where the measurements of one method on one data set go."""

    context: Context
    dataset: str
    method: str

    def __call__(self, metric: str, seed: int, value: float, **coords: Scalar) -> None:
        """Notes one number."""
        self.context.record(dataset=self.dataset, method=self.method, metric=metric, seed=seed, value=value, **coords)

    def folder(self, *seeds: int) -> Path:
        """The working folder of a run of these seeds."""
        name = "-".join((self.dataset, self.method, *map(str, seeds)))
        return self.context.workdir / "".join(c if c.isalnum() or c in "-=." else "_" for c in name)

    def curve(self, row: Mapping[str, Any]) -> None:
        """Notes the metrics of all seeds at a step, ``{"recall@20/0": value}``."""
        for name, value in row.items():
            metric, slash, seed = name.partition("/")
            if slash and metric in CURVES:
                self(metric, int(seed), value, step=row["step"])

    def stopping(self, seeds: tuple[int, ...], state: Stopping, every: int, patience: int) -> None:
        """Notes each seed's validation curve, its best step, and whether it stopped before its steps were used up."""
        scores, best, waiting = jax.device_get((state.scores, state.best_round, is_open(state, patience)))
        for index, seed in enumerate(seeds):
            for done, value in enumerate(scores[:, index], start=1):
                if np.isfinite(value):
                    self(f"validation {VALIDATED}", seed, float(value), step=done * every)
            self(BEST_STEP, seed, int(best[index]) * every)
            self(STOPPED, seed, float(not waiting[index]))

    def final(self, seed: int, draw: Draw, ranking: Ranking, model: Any) -> None:
        """Notes all metrics and N@20 by the users' training items, and keeps N@20 of every user."""
        per_user = ranking.per_user(model)
        for metric, value in per_user.items():
            self(metric, seed, float(np.mean(value, dtype=np.float64)))
        gains = np.asarray(per_user["ndcg@20"])
        degrees = np.diff(draw.interactions.train_indptr)[np.asarray(ranking.held_out.users)]
        for bucket, value in by_degree(gains, degrees).items():
            self("ndcg@20", seed, value, degree=bucket)
        with replacing(self.folder(seed) / "ndcg20.npy") as file:
            np.save(file, gains)

    def intents(self, seed: int, draw: Draw, model: DCCF, params: Params, graph: RecGraph) -> None:
        """Notes how well a trained DCCF tells intents, noise and false edges, where the truth is known."""
        weights, shares = jax.device_get(jax.jit(partial(seen_by, model))(params, graph))
        if draw.false_edges is not None:
            self("auc of true edges", seed, auc(weights, ~draw.false_edges[draw.kept]))
        elif draw.truth is not None:
            self("auc of wanted edges", seed, auc(weights, ~draw.truth.train_noise[draw.kept]))
        if draw.truth is not None and shares is not None:
            self("purity", seed, purity(shares.argmax(axis=1), draw.truth.user_intents.argmax(axis=1)))


def seen_by(model: DCCF, params: Params, graph: RecGraph) -> tuple[Float[Array, " edges"], Any]:
    """The local view's weights alpha of all edges and the intent shares P of all users, averaged over layers."""
    encoded: Any = model.apply(params, graph, method=DCCF.encode)
    layers: tuple[Layer, ...] = encoded[1]
    weights = [alphas(graph.user_item, layer.z) for layer in layers]
    shares = [layer.p[0] for layer in layers if layer.p is not None]
    return jnp.mean(jnp.stack(weights), axis=0), jnp.mean(jnp.stack(shares), axis=0) if shares else None


def compare_users(config: Config, context: Context) -> None:
    """Differences in N@20 to the baseline on real data, seeds averaged, with intervals over users."""
    cell = {"dataset": config.dataset, "method": f"over {BASELINE}"}
    if config.dataset == SIMULATED or BASELINE not in config.methods:
        return
    if context.done(**cell):
        context.cells([cell])
        return
    files = {name: _gains(config, context, name) for name in config.methods}
    if not all(path.exists() for paths in files.values() for path in paths):
        return
    context.cells([cell])
    gains = {name: np.mean([np.load(path) for path in paths], axis=0) for name, paths in files.items()}
    for name in gains.keys() - {BASELINE}:
        found = summary(gains[name] - gains[BASELINE], unit="users")
        for part, value in zip(("mean", "low", "high"), (found.value, *found.interval), strict=True):
            context.record(
                dataset=config.dataset,
                method=name,
                metric=f"ndcg@20 over {BASELINE}",
                seed=context.seeds[0],
                value=value,
                part=part,
            )
    context.finish(**cell)


def _gains(config: Config, context: Context, name: str) -> list[Path]:
    note = Notes(context, config.dataset, name)
    return [note.folder(seed) / "ndcg20.npy" for seed in context.seeds]
