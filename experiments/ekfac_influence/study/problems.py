"""Trained networks with their data: what the comparisons of attribution methods run on."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from core.batches import epoch_sampler
from core.datasets import mnist, uci
from core.errors import DataError
from core.learner import gradient_learner, with_sampler
from core.lm import Decoder, DecoderConfig
from experiments.ekfac_influence.config import TINY_FACTS, Config
from interp.likelihoods import Task, categorical, gaussian
from interp.planted_facts import PlantedFacts, planted_facts

CHECKPOINTS = 4
"""Parameters kept along training, for TracIn."""
RATE = 3e-3


@dataclasses.dataclass(frozen=True)
class Problem:
    """A network trained on some examples, and others that ask."""

    name: str
    data: str
    """Where the examples come from."""
    task: Task
    init: Callable[[Array], PyTree]
    features: Callable[[PyTree, Any], Array]
    """Of one example: the last hidden layer."""
    train: PyTree
    queries: PyTree
    steps: int
    params: PyTree = None
    checkpoints: tuple[PyTree, ...] = ()
    exact: bool = False
    """Whether its Gauss-Newton matrix fits in memory."""

    @property
    def rows(self) -> int:
        """Training examples."""
        return len(jax.tree.leaves(self.train)[0])


Parts = tuple[Task, Callable[[Array], PyTree], Callable[[PyTree, Any], Array]]
"""Of a problem: task, initialisation, features."""


class Mlp(nn.Module):
    """Two tanh layers; ``features`` are the second."""

    width: int
    outputs: int

    def setup(self):  # noqa: D102
        self.layers = [nn.Dense(self.width), nn.Dense(self.width)]
        self.head = nn.Dense(self.outputs)

    def __call__(self, x):  # noqa: D102
        return self.head(self.features(x))

    def features(self, x):
        """The last hidden layer."""
        for layer in self.layers:
            x = nn.tanh(layer(x))
        return x


def build(name: str, config: Config, key: Array, data_dir: Path | None) -> Problem:
    """A trained problem by name."""
    data_key, train_key = jax.random.split(key)
    made = {"regression": regression, "image": image, "language": language}[name](config, data_key, data_dir)
    return trained(made, train_key)


def regression(config: Config, key: Array, data_dir: Path | None) -> Problem:
    """Strength of concrete, standardised; a generator of the same shape where the table is not at hand."""
    try:
        table = uci.load("concrete", data_dir)
        x, y, data = table.inputs, table.targets, "Concrete"
    except DataError:
        x, y = _simulated_table(np.random.default_rng(0))
        data = "simulated table"
    order = np.asarray(jax.random.permutation(key, len(x)))
    x, y = x[order], y[order]
    n = round(0.8 * len(x))
    scaled = [(v - v[:n].mean(0)) / v[:n].std(0) for v in (x, y)]
    train = {"x": scaled[0][:n], "y": scaled[1][:n]}
    queries = {"x": scaled[0][n : n + config.queries], "y": scaled[1][n : n + config.queries]}
    return mlp_problem("regression", data, train, queries, 1, config.width, config.regression_steps, exact=True)


def _simulated_table(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = rng.normal(size=(400, uci.INPUTS)).astype(np.float32)
    y = np.sin(x[:, :2]).sum(1) + 0.5 * x[:, 2] * x[:, 3] + 0.3 * rng.normal(size=400)
    return x, y[:, None].astype(np.float32)


def image(config: Config, key: Array, data_dir: Path | None) -> Problem:
    """Digits at half resolution; blurred random prototypes where MNIST is not at hand."""
    x, y, data = digits(data_dir, config.image_train + config.queries, key)
    n = config.image_train
    train, queries = {"x": x[:n], "y": y[:n]}, {"x": x[n:], "y": y[n:]}
    return mlp_problem("image", data, train, queries, mnist.CLASSES, config.image_width, config.image_steps)


def digits(data_dir: Path | None, count: int, key: Array) -> tuple[np.ndarray, np.ndarray, str]:
    """Images of 14 x 14 pixels between 0 and 1, flattened; labels; and where they are from."""
    try:
        found = mnist.load("test", data_dir)
        chosen = np.asarray(jax.random.permutation(key, len(found.labels)))[:count]
        pooled = found.images[chosen].reshape(-1, 14, 2, 14, 2).mean((2, 4)) / 255
        return pooled.reshape(-1, 196).astype(np.float32), found.labels[chosen], "MNIST 14 x 14"
    except DataError:
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        labels = rng.integers(0, mnist.CLASSES, count).astype(np.int32)
        prototypes = np.random.default_rng(0).uniform(size=(mnist.CLASSES, 196))
        noisy = prototypes[labels] + rng.normal(scale=0.8, size=(count, 196))
        return noisy.astype(np.float32), labels, "simulated digits"


def mlp_problem(name, data, train, queries, outputs: int, width: int, steps: int, exact: bool = False) -> Problem:
    """An untrained tanh network on arrays ``x`` and ``y``; one output means regression."""
    return Problem(name, data, *mlp(train["x"].shape[1], width, outputs), train, queries, steps, exact=exact)


@functools.cache
def mlp(inputs: int, width: int, outputs: int) -> Parts:
    """Task, initialisation and features; the same functions for the same sizes, so that each compiles once."""
    model = Mlp(width, outputs)
    likelihood = gaussian(lambda e: e["y"]) if outputs == 1 else categorical(lambda e: e["y"])
    return (
        Task(lambda p, e: model.apply({"params": p}, e["x"]), likelihood),
        lambda key: model.init(key, jnp.zeros(inputs))["params"],
        lambda p, e: model.bind({"params": p}).features(e["x"]),
    )


def language(config: Config, key: Array, data_dir: Path | None) -> Problem:
    """A small decoder on sequences of the planted corpus, as training examples and as queries."""
    del data_dir
    settings = dataclasses.replace(TINY_FACTS, fillers=config.language_train + config.queries)
    corpus_key, order_key = jax.random.split(key)
    sequences = planted_facts(corpus_key, settings).sequences
    total = config.language_train + config.queries
    chosen = jax.random.permutation(order_key, len(sequences.tokens))[:total]
    rows = {"tokens": sequences.tokens[chosen], "mask": sequences.mask[chosen]}
    n = config.language_train
    split = [jax.tree.map(lambda leaf, part=part: leaf[part], rows) for part in (slice(n), slice(n, None))]
    parts = language_model(settings, config.language_width)
    return Problem("language", "planted corpus", *parts, split[0], split[1], config.language_steps)


@functools.cache
def language_model(settings: PlantedFacts, width: int) -> Parts:
    """The same of a decoder of one block."""
    model, length = decoder(settings, width, 1), settings.length
    return (
        sequence_task(model),
        lambda key: model.init(key, jnp.zeros(length - 1, jnp.int32))["params"],
        lambda p, e: jnp.mean(model.bind({"params": p}).hidden(e["tokens"][:-1]), axis=0),
    )


def decoder(settings: PlantedFacts, width: int, layers: int) -> Decoder:
    """A decoder for the planted corpus."""
    heads = max(1, width // 16)
    return Decoder(DecoderConfig(settings.vocabulary, width, layers, heads, max_length=settings.length))


def sequence_task(model: Decoder) -> Task:
    """Next-token prediction where the mask is set; examples are {"tokens" [T], "mask" [T]}."""
    return Task(
        lambda params, e: model.apply({"params": params}, e["tokens"][:-1]),
        categorical(lambda e: e["tokens"][1:], lambda e: e["mask"][1:]),
    )


def trained(problem: Problem, key: Array) -> Problem:
    """The problem with parameters at the end of training and at earlier points."""
    task, steps, train = problem.task, problem.steps, jax.tree.map(jnp.asarray, problem.train)
    state = _start(problem.init, steps, key)
    checkpoints = []
    for _ in range(CHECKPOINTS):
        state = _descend(task, steps, steps // CHECKPOINTS, train, jnp.ones(problem.rows), state)
        checkpoints.append(state[0])
    return dataclasses.replace(problem, params=checkpoints[-1], checkpoints=tuple(checkpoints))


def retrain(init: Callable[[Array], PyTree], task: Task, steps: int, train: PyTree):
    """``(key, weights) -> params``: training from scratch on weighted examples, as a pure function."""
    return lambda key, weights: _descend(task, steps, steps, train, weights, _start(init, steps, key))[0]


def _optimizer(steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(RATE, steps, alpha=0.1))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _start(init: Callable[[Array], PyTree], steps: int, key: Array):
    params = init(key)
    return params, _optimizer(steps).init(params)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _descend(task: Task, steps: int, taken: int, train: PyTree, weights: Array, state: Any):
    """So many steps down the weighted loss of all examples."""

    def loss(params):
        each = jax.vmap(lambda e: task.loss(params, e))(train)
        return jnp.sum(weights * each) / jnp.sum(weights)

    def step(_, state):
        params, opt_state = state
        updates, opt_state = _optimizer(steps).update(jax.grad(loss)(params), opt_state)
        return optax.apply_updates(params, updates), opt_state

    return jax.lax.fori_loop(0, taken, step, state)


def batch_learner(task: Task, init: Callable[[Array], PyTree], steps: int, batch_size: int, rate: float = RATE):
    """The learner of a task on batches drawn from arrays, with a warm-up and a cosine schedule."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, max(1, steps // 20), steps)

    def loss(params, key, batch):
        del key
        return jnp.mean(jax.vmap(lambda e: task.loss(params, e))(batch)), {}

    learner = gradient_learner(
        lambda key, batch: init(key), loss, optax.adamw(schedule, weight_decay=1e-2), batch_axes=0
    )
    return with_sampler(learner, epoch_sampler(batch_size))
