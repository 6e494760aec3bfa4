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

from core.datasets.interactions import Interactions, load
from core.errors import DataError
from core.fit import fit
from core.learner import Params, State, replicate_seeds, seed_keys
from core.records import Scalar, to_plain
from core.stats import summary
from experiments.graph_recommenders.config import BASELINE, CLOSED_FORM, CURVES, SIMULATED, Config, noisy
from experiments.graph_recommenders.methods import method_of
from experiments.system import Context
from rec.baselines import ease, history_score, item_knn, popularity, popularity_score
from rec.dccf import DCCF, Layer, alphas
from rec.diagnostics import auc, by_degree, mean_average_distance, purity
from rec.graph import RecData, RecGraph
from rec.intents import Intents, add_false_edges, simulate
from rec.ranking import Ranking, Score


class Draw(NamedTuple):
    """A data set, with what is known about it."""

    interactions: Interactions
    truth: Intents | None = None
    false_edges: Bool[np.ndarray, " train"] | None = None


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
    if not dataset.startswith(SIMULATED):
        return (Draw(load(dataset, data_dir=context.data_dir)),) * len(context.seeds)
    return tuple(simulated(config, dataset, seed) for seed in context.seeds)


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
        train(config, sample, note)
    for seed in sample.seeds:
        context.finish(dataset=dataset, method=name, seed=seed)


def solve(sample: Sample, name: str, note: "Notes") -> None:
    """The methods in closed form; they do not depend on the seed but through the data."""
    for draw in sample.draws[:1] if sample.is_shared else sample.draws:
        model, score = closed_form(draw.interactions, name)
        ranking = Ranking(draw.interactions, score=score)
        for seed, own in zip(sample.seeds, sample.draws, strict=True):
            if own is draw:
                note.final(seed, draw, ranking, model)


def closed_form(interactions: Interactions, name: str) -> tuple[Any, Score]:
    """A model without training, and how it scores."""
    if name == "Popularity":
        return jnp.asarray(popularity(interactions)), popularity_score
    weights = ease(interactions) if name == "EASE" else item_knn(interactions)
    return (RecGraph.build(interactions), jnp.asarray(weights)), history_score


def train(config: Config, sample: Sample, note: "Notes") -> None:
    """One run of all seeds: the learning curve, the final metrics and what else the embeddings show."""
    each = [RecData.build(draw.interactions) for draw in sample.draws[: 1 if sample.is_shared else None]]
    each *= len(sample.seeds) if sample.is_shared else 1
    data = each[0] if sample.is_shared else jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    rankings = [Ranking(draw.interactions) for draw in sample.draws]
    method = method_of(config, note.dataset, note.method, each[0])
    apply = jax.jit(method.model.apply)

    def trained(state: State, index: int) -> tuple[Params, Any]:
        params = jax.tree.map(lambda leaf: leaf[index], state.params)
        return params, apply(params, each[index].graph)

    def evaluate(state: State) -> dict[str, float]:
        means = {seed: rankings[i].means(trained(state, i)[1]) for i, seed in enumerate(sample.seeds)}
        return {f"{metric}/{seed}": value for seed, row in means.items() for metric, value in row.items()}

    learner = replicate_seeds(method.learner, len(sample.seeds), batch_axes=None if sample.is_shared else 0)
    result = fit(
        learner._replace(init=jax.jit(learner.init)),
        data,
        key=seed_keys(sample.seeds),
        steps=method.steps,
        workdir=note.folder(*sample.seeds),
        evaluate=evaluate,
        evaluate_every=max(1, method.steps // config.evaluations),
        identity={"config": to_plain(config), "cell": [note.dataset, note.method, *sample.seeds]},
        progress=note.context.progress(f"{note.dataset}: {note.method}"),
    )
    for row in result.history:
        note.curve(row)
    for index, (seed, draw) in enumerate(zip(sample.seeds, sample.draws, strict=True)):
        params, nodes = trained(result.state, index)
        note.final(seed, draw, rankings[index], nodes)
        note("mad", seed, float(jax.jit(mean_average_distance)(nodes, jax.random.key(0))))
        if isinstance(method.model, DCCF):
            note.intents(seed, draw, method.model, params, each[index].graph)


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

    def final(self, seed: int, draw: Draw, ranking: Ranking, model: Any) -> None:
        """Notes all metrics and N@20 by the users' training items, and keeps N@20 of every user."""
        per_user = ranking.per_user(model)
        for metric, value in per_user.items():
            self(metric, seed, float(np.mean(value, dtype=np.float64)))
        gains = np.asarray(per_user["ndcg@20"])
        degrees = np.diff(draw.interactions.train_indptr)[np.asarray(ranking.held_out.users)]
        for bucket, value in by_degree(gains, degrees).items():
            self("ndcg@20", seed, value, degree=bucket)
        self.folder(seed).mkdir(parents=True, exist_ok=True)
        np.save(self.folder(seed) / "ndcg20.npy", gains)

    def intents(self, seed: int, draw: Draw, model: DCCF, params: Params, graph: RecGraph) -> None:
        """Notes how well a trained DCCF tells intents, noise and false edges, where the truth is known."""
        weights, shares = jax.device_get(jax.jit(partial(seen_by, model))(params, graph))
        if draw.false_edges is not None:
            self("auc of true edges", seed, auc(weights, ~draw.false_edges))
        elif draw.truth is not None:
            self("auc of wanted edges", seed, auc(weights, ~draw.truth.train_noise))
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
    """Differences in N@20 to the baseline on real data, seeds averaged, with intervals from resampled users."""
    cell = {"dataset": config.dataset, "method": f"over {BASELINE}"}
    files = {name: _gains(config, context, name) for name in config.methods}
    if config.dataset == SIMULATED or not all(path.exists() for paths in files.values() for path in paths):
        return
    if BASELINE not in files:
        return
    context.cells([cell])
    if context.done(**cell):
        return
    gains = {name: np.mean([np.load(path) for path in paths], axis=0) for name, paths in files.items()}
    for name in gains.keys() - {BASELINE}:
        found = summary(gains[name] - gains[BASELINE], method="bootstrap")
        for part in ("mean", "low", "high"):
            context.record(
                dataset=config.dataset,
                method=name,
                metric=f"ndcg@20 over {BASELINE}",
                seed=context.seeds[0],
                value=getattr(found, part),
                part=part,
            )
    context.finish(**cell)


def _gains(config: Config, context: Context, name: str) -> list[Path]:
    note = Notes(context, config.dataset, name)
    return [note.folder(seed) / "ndcg20.npy" for seed in context.seeds]
