"""What is trained on what, and what is recorded of it.

All methods share the sampler, the loop and the evaluator; the seeds of a method are trained as one program.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from core.datasets.interactions import load
from core.early_stopping import Stopping, is_open, stop_by_validation
from core.errors import ConfigError, DataError
from core.fit import Fit, fit
from core.learner import LearnerLike, Params, replicate_seeds, seed_keys
from core.records import to_plain
from core.workdir import replacing
from experiments.dccf.config import (
    BASELINE,
    BEST_STEP,
    CLOSED_FORM,
    CURVES,
    DRAWS,
    GAINS,
    MAIN,
    PEER,
    PEER_EPOCHS,
    SIMULATED,
    STOPPED,
    VALIDATED,
    Config,
    noisy,
    tuned,
)  # fmt: skip
from experiments.lab import Context, Part, Place, cell_folder
from rec.baselines import closed_form
from rec.dccf import DCCF, VARIANTS, dccf_learner, weights_and_intents
from rec.dgcf import DGCF, dgcf_learner
from rec.diagnostics import auc, by_degree, mean_average_distance, purity, user_bootstrap
from rec.graph import RecData, RecGraph
from rec.graph_contrast import SimGCL, sgl_learner, simgcl_learner
from rec.intents import add_false_edges, simulate
from rec.lightgcn import LightGCN, lightgcn_learner
from rec.ranking import Ranking
from rec.samples import Draw, Sample, validation
from rec.sampling import steps_per_epoch

SEARCH_SEED = 1_000_000
"""Settings are chosen by this seed alone, which is none of a run's."""
SEARCHED: dict[str, dict[str, tuple[float, ...]]] = {
    "DCCF -Disen": {"ssl": (0.01,), "embedding_reg": (1e-4,)},
    "DCCF -SSL": {"embedding_reg": (1e-4,), "prototype_reg": (5e-2,), "intents": (16,)},
    "DCCF": {"ssl": (0.01,), "embedding_reg": (1e-4,), "prototype_reg": (5e-2,), "intents": (16,)},
    BASELINE: {"learning_rate": (3e-3,), "reg": (1e-3,)},
}
"""By how a method's name starts: the values beside the preset's of the settings that it has, among which held-out
training items choose, one setting after the other."""


def plan(config: Config, context: Context) -> Iterator[Part]:
    """A part for every method of every study, then the comparison of users."""
    config = available(config, context)
    for dataset, methods in studies(config):
        sample = functools.cache(functools.partial(drawn, config, dataset, tuple(context.seeds), context.data_dir))
        for method in methods:
            cells = [{"dataset": dataset, "method": method, "seed": seed} for seed in context.seeds]
            yield Part(functools.partial(measure, dataset=dataset, method=method, sample=sample), cells)
    if config.dataset != SIMULATED and BASELINE in config.methods:
        cells = [{"dataset": config.dataset, "method": f"over {BASELINE}"}]
        yield Part(functools.partial(compare_users, dataset=config.dataset), cells)


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
    yield tuned(config.dataset), config.tuned


def drawn(config: Config, dataset: str, seeds: tuple[int, ...], data_dir: Path | None) -> Sample:
    """The data of each seed: a draw of its own where they are simulated."""
    share = max(config.validation, config.held_out if dataset.endswith(tuned("")) else 0.0)
    if dataset.startswith(SIMULATED):
        found = [simulated(config, dataset, seed) for seed in seeds]
    else:
        found = [Draw(load(dataset.partition(",")[0], data_dir=data_dir))]
    found = [draw.held_out(share) if share else draw for draw in found]
    return Sample(seeds, tuple(found) * (len(seeds) // len(found)))


def simulated(config: Config, dataset: str, seed: int) -> Draw:
    """The generator's draw for a seed, with false edges if the name says so."""
    interactions, truth = simulate(seed, users=config.users, items=config.items)
    if dataset != noisy(config):
        return Draw(interactions, truth)
    corrupted, false_edges = add_false_edges(interactions, config.false_edges, seed)
    return Draw(corrupted, truth, false_edges)


def measure(config: Config, context: Context, *, dataset: str, method: str, sample: Callable[[], Sample]) -> None:
    """Trains a method for all missing seeds at once and records what came of it."""
    seeds: list[Any] = [cell["seed"] for cell in context.missing]
    missing = sample().of(tuple(seeds))
    place = context.at(dataset=dataset, method=method)
    if method in CLOSED_FORM:
        solve(missing, place)
        return
    if dataset.endswith(tuned("")):
        settings = dataclasses.replace(
            config, validation=config.held_out, steps=config.tuned_steps, dccf_steps=config.tuned_dccf_steps
        )
        config, chosen = searched(settings, drawn(settings, dataset, (SEARCH_SEED,), context.data_dir), place)
        for seed in missing.seeds:
            place.record_all(chosen, seed=seed)
    for part in missing.of_equal_shape():
        train(config, part, place)


def solve(sample: Sample, place: Place) -> None:
    """The methods in closed form; they do not depend on the seed but through the data."""
    name: Any = place.place["method"]
    for draw in sample.draws[:1] if sample.is_shared else sample.draws:
        model, score = closed_form(name, draw.learned)
        ranking = Ranking(draw.interactions, score=score)
        for seed, own in zip(sample.seeds, sample.draws, strict=True):
            if own is draw:
                final(place.at(seed=seed), draw, ranking, model)


class Training:
    """One program that trains a method for the seeds of a sample."""

    def __init__(self, config: Config, sample: Sample, place: Place, is_kept: bool = True):
        self.config, self.sample, self.place, self.is_kept = config, sample, place, is_kept
        self.data = sample.each(RecData.build)
        self.method = method_of(config, place.place["dataset"], place.place["method"], self.data[0])
        self.every = max(1, self.method.steps // config.evaluations)
        axes = None if sample.is_shared else 0
        self.learner = replicate_seeds(self.method.learner, len(sample.seeds), batch_axes=axes)

    def fit(self, learner: LearnerLike, data: Any, steps: int, per_update: int = 1, **options: Any) -> Fit:
        """Trains, and resumes what was interrupted; an update of the learner may be several steps."""
        cell = [*self.place.place.values(), *self.sample.seeds]
        show = self.place.context.progress(": ".join(map(str, self.place.place.values())))
        return fit(
            learner._replace(init=jax.jit(learner.init)), data, key=seed_keys(self.sample.seeds), steps=steps,
            workdir=folder(self.place, *self.sample.seeds) if self.is_kept else None,
            identity={"config": to_plain(self.config), "cell": cell},
            progress=lambda done, updates: show(done * per_update, updates * per_update), **options,
        )  # fmt: skip

    def for_all_steps(self, evaluate: Any) -> Params:
        """Trains for the fixed number of steps; the parameters of the last one. The curve is that of the test part."""
        data, steps = self.sample.stacked(self.data), self.method.steps
        result = self.fit(self.learner, data, steps, evaluate=evaluate, evaluate_every=self.every)
        for row in result.history:
            for metric, seed in ((metric, seed) for seed in self.sample.seeds for metric in CURVES):
                if f"{metric}/{seed}" in row:
                    self.place.record(metric, row[f"{metric}/{seed}"], seed=seed, step=row["step"])
        return result.state.params

    def until_validated(self) -> Stopping:
        """Trains until held-out training items are ranked no better; every seed's parameters at its best step."""
        graph = self.sample.stacked(self.data)
        score, held_out = validation(self.sample, self.method.model.apply, graph.graph, VALIDATED)
        rounds, patience = self.method.steps // self.every, self.config.patience
        learner = stop_by_validation(self.learner, score, every=self.every, rounds=rounds, patience=patience)
        return self.fit(learner, (graph, held_out), rounds, self.every, chunk=1).state

    def stopped(self) -> Params:
        """The parameters at the best step, of which are noted the way there and whether patience ended it."""
        state = self.until_validated()
        waiting = is_open(state, self.config.patience)
        scores, best, waiting = jax.device_get((state.scores, state.best_round, waiting))
        for index, seed in enumerate(self.sample.seeds):
            own = self.place.at(seed=seed)
            for done, value in enumerate(scores[:, index], start=1):
                if np.isfinite(value):
                    own.record(f"validation {VALIDATED}", value, step=done * self.every)
            own.record_all({BEST_STEP: int(best[index]) * self.every, STOPPED: not waiting[index]})
        return state.params


def train(config: Config, sample: Sample, place: Place) -> None:
    """One run of all seeds: the learning curve, the final metrics and what else the embeddings show."""
    training = Training(config, sample, place)
    graphs = [data.graph for data in training.data] * (len(sample.seeds) // len(training.data))
    rankings, model = [Ranking(draw.interactions) for draw in sample.draws], training.method.model
    apply = jax.jit(model.apply)

    def trained(params: Params, index: int) -> tuple[Params, Any]:
        own = jax.tree.map(lambda leaf: leaf[index], params)
        return own, apply(own, graphs[index])

    def evaluate(state: Any) -> dict[str, float]:
        means = {seed: rankings[i].means(trained(state.params, i)[1]) for i, seed in enumerate(sample.seeds)}
        return {f"{metric}/{seed}": value for seed, row in means.items() for metric, value in row.items()}

    params = training.stopped() if config.validation else training.for_all_steps(evaluate)
    for index, (seed, draw) in enumerate(zip(sample.seeds, sample.draws, strict=True)):
        (own, nodes), here = trained(params, index), place.at(seed=seed)
        final(here, draw, rankings[index], nodes)
        here.record("mad", jax.jit(mean_average_distance)(nodes, jax.random.key(0)))
        if isinstance(model, DCCF):
            intents(here, draw, model, own, graphs[index])


def searched(config: Config, sample: Sample, place: Place) -> tuple[Config, dict[str, float]]:
    """The settings that rank held-out training items best, found one after the other; and those that were chosen."""

    def score(settings: Config) -> float:
        return float(jnp.max(Training(settings, sample, place, is_kept=False).until_validated().best))

    name = str(place.place["method"])
    options = next((values for start, values in SEARCHED.items() if name.startswith(start)), {})
    best = score(config)
    for setting, values in options.items():
        for value in values:
            trial = dataclasses.replace(config, **{setting: value})
            if (reached := score(trial)) > best:
                config, best = trial, reached
    return config, {f"chosen {setting}": getattr(config, setting) for setting in options}


def final(place: Place, draw: Draw, ranking: Ranking, model: Any) -> None:
    """Notes all metrics and N@20 by the users' training items, and keeps N@20 of every user."""
    per_user = ranking.per_user(model)
    place.record_all({metric: np.mean(value, dtype=np.float64) for metric, value in per_user.items()})
    gains = np.asarray(per_user["ndcg@20"])
    degrees = np.diff(draw.interactions.train_indptr)[np.asarray(ranking.held_out.users)]
    for bucket, value in by_degree(gains, degrees).items():
        place.record("ndcg@20", value, degree=bucket)
    with replacing(folder(place) / "ndcg20.npy") as file:
        np.save(file, gains)


def intents(place: Place, draw: Draw, model: DCCF, params: Params, graph: RecGraph) -> None:
    """Notes how well a trained DCCF tells intents, noise and false edges, where the truth is known."""
    weights, shares = jax.device_get(jax.jit(functools.partial(weights_and_intents, model))(params, graph))
    if draw.false_edges is not None:
        place.record("auc of true edges", auc(weights, ~draw.false_edges[draw.kept]))
    elif draw.truth is not None:
        place.record("auc of wanted edges", auc(weights, ~draw.truth.train_noise[draw.kept]))
    if draw.truth is not None and shares is not None:
        place.record("purity", purity(shares.argmax(axis=1), draw.truth.user_intents.argmax(axis=1)))


def folder(place: Place, *seeds: int) -> Path:
    """The working folder of a method's seeds; that of the place's own seed if none is given."""
    return cell_folder(place.context, **place.place, **{"seeds": "-".join(map(str, seeds))} if seeds else {})


def compare_users(config: Config, context: Context, *, dataset: str) -> None:
    """Differences in N@20 on real data, seeds averaged, with bootstrap intervals over users.

    Raises:
      ConfigError: where N@20 of single users is not kept any more.
    """

    def gains(method: str) -> np.ndarray:
        paths = [folder(context.at(dataset=dataset, method=method, seed=s)) / "ndcg20.npy" for s in context.seeds]
        if not all(path.exists() for path in paths):
            raise ConfigError(
                f"N@20 of single users of {method} on {dataset} is not kept any more: --again measures it"
            )
        return np.mean([np.load(path) for path in paths], axis=0)

    pairs = [(name, BASELINE) for name in config.methods if name != BASELINE]
    for better, worse in (*pairs, (BASELINE, "BPR-MF"), ("DCCF", "SGL-ED")):
        if {better, worse} <= {*config.methods}:
            at = context.at(dataset=dataset, method=better, seed=context.seeds[0])
            found = user_bootstrap(gains(better) - gains(worse), draws=DRAWS)
            for part, value in zip(("mean", "low", "high"), found, strict=True):
                at.record(f"{GAINS} {worse}", value, part=part)


class Method(NamedTuple):
    """A model, how it is trained and for how long."""

    model: nn.Module
    learner: LearnerLike
    steps: int


def method_of(config: Config, dataset: Any, name: Any, data: RecData) -> Method:
    """A method by its name in tables."""
    is_simulated = dataset in (SIMULATED, noisy(config))
    if name.startswith("DCCF"):
        return dccf(on_simulated_data(config) if is_simulated else config, name)
    if name == PEER:
        steps = PEER_EPOCHS * steps_per_epoch(data.graph.user_item.num_edges, 2048)
        return Method(LightGCN(64, 3), lightgcn_learner(dim=64, layers=3, batch_size=2048), steps)
    cheap = name in ("BPR-MF", BASELINE)
    steps = config.simulated_steps if is_simulated else config.steps if cheap else config.costly_steps
    size: dict[str, Any] = {"dim": config.dim, "layers": 0 if name == "BPR-MF" else config.layers}
    shared: dict[str, Any] = {"batch_size": config.batch_size, "learning_rate": config.learning_rate}
    every: dict[str, Any] = size | shared | {"reg": config.reg}
    match name:
        case "SGL-ED":
            return Method(LightGCN(**size), sgl_learner(**every, ssl=config.sgl_weight), steps)
        case "SimGCL":
            return Method(SimGCL(**size), simgcl_learner(**every, ssl=config.simgcl_weight), steps)
        case "DGCF":
            return Method(DGCF(config.dim, 1), dgcf_learner(dim=config.dim, **shared), steps)
        case "BPR-MF" | "LightGCN":
            return Method(LightGCN(**size), lightgcn_learner(**every), steps)
    raise ConfigError(f"there is no method {name!r}; possible: {', '.join((*MAIN, PEER, *VARIANTS))}, DCCF K=<number>")


def on_simulated_data(config: Config) -> Config:
    """DCCF's settings for the generator in the place of those for real data."""
    names = {"dccf_steps": "simulated_dccf_steps"} | {n: f"simulated_{n}" for n in ("intents", "ssl", "embedding_reg")}
    return dataclasses.replace(config, **{name: getattr(config, other) for name, other in names.items()})


def dccf(config: Config, name: str) -> Method:
    """DCCF or one of its variants; "DCCF K=4" has four intents."""
    variant_name, fixed, number = name.partition(" K=")
    variant, intents = VARIANTS[variant_name], int(number) if fixed else config.intents
    learner = dccf_learner(
        dim=config.dim, layers=config.layers, intents=intents, batch_size=config.dccf_batch_size,
        learning_rate=config.dccf_learning_rate, variant=variant, ssl=config.ssl,
        embedding_reg=config.embedding_reg * 10240 / config.dccf_batch_size, prototype_reg=config.prototype_reg,
        tau=config.temperature,
    )  # fmt: skip
    return Method(DCCF(config.dim, config.layers, intents, variant.views), learner, config.dccf_steps)
