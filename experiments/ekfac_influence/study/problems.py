"""Trained networks with their data: what the comparisons of attribution methods run on."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from core.datasets import mnist, uci
from core.errors import DataError
from core.lm import Decoder, DecoderConfig
from experiments.ekfac_influence.config import TINY_FACTS, Config
from interp.attribution import checkpoints
from interp.attribution.networks import Parts, mlp
from interp.likelihoods import Task, next_token_task
from interp.planted_facts import PlantedFacts, planted_facts


@dataclasses.dataclass(frozen=True)
class Problem:
    """A network trained on some examples, and others that ask."""

    name: str
    task: Task
    init: Callable[[Array], PyTree]
    features: Callable[[PyTree, Any], Array]
    train: PyTree
    queries: PyTree
    steps: int
    exact: bool = False
    """Whether its Gauss-Newton matrix fits in memory, and it can be trained again many times."""
    checkpoints: tuple[PyTree, ...] = ()
    """Parameters along the training, the last at its end."""

    @property
    def params(self) -> PyTree:
        """At the end of training."""
        return self.checkpoints[-1]

    @property
    def rows(self) -> int:
        """Training examples."""
        return len(jax.tree.leaves(self.train)[0])

    @property
    def on_device(self) -> tuple[Any, Any]:
        """Training examples and queries as arrays of the device."""
        return jax.tree.map(jnp.asarray, (self.train, self.queries))


def build(name: str, config: Config, key: Array, data_dir: Path | None) -> Problem:
    """A trained problem by name."""
    data_key, train_key = jax.random.split(key)
    made = {"regression": regression, "image": image, "language": language}[name](config, data_key, data_dir)
    found = checkpoints(made.task, made.init, made.steps, jax.tree.map(jnp.asarray, made.train), train_key)
    return dataclasses.replace(made, checkpoints=found)


def regression(config: Config, key: Array, data_dir: Path | None) -> Problem:
    """Strength of concrete, standardised; a generator of the same shape where the table is not at hand."""
    try:
        table = uci.load("concrete", data_dir)
        x, y = table.inputs, table.targets
    except DataError:
        x, y = _simulated_table(np.random.default_rng(0))
    order = np.asarray(jax.random.permutation(key, len(x)))
    x, y = x[order], y[order]
    n = round(0.8 * len(x))
    scaled = [(v - v[:n].mean(0)) / v[:n].std(0) for v in (x, y)]
    train, queries = ({"x": scaled[0][rows], "y": scaled[1][rows]} for rows in (slice(n), slice(n, n + config.queries)))
    parts = mlp(x.shape[1], config.width, 1)
    return Problem("regression", *parts, train, queries, config.regression_steps, exact=True)


def _simulated_table(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = rng.normal(size=(400, uci.INPUTS)).astype(np.float32)
    y = np.sin(x[:, :2]).sum(1) + 0.5 * x[:, 2] * x[:, 3] + 0.3 * rng.normal(size=400)
    return x, y[:, None].astype(np.float32)


def image(config: Config, key: Array, data_dir: Path | None) -> Problem:
    """Digits at half resolution; blurred random prototypes where MNIST is not at hand."""
    x, y = digits(data_dir, config.image_train + config.queries, key)
    n = config.image_train
    train, queries = {"x": x[:n], "y": y[:n]}, {"x": x[n:], "y": y[n:]}
    parts = mlp(196, config.image_width, mnist.CLASSES)
    return Problem("image", *parts, train, queries, config.image_steps, exact=True)


def digits(data_dir: Path | None, count: int, key: Array) -> tuple[np.ndarray, np.ndarray]:
    """Images of 14 x 14 pixels between 0 and 1, flattened, and labels."""
    try:
        found = mnist.load("test", data_dir)
        chosen = np.asarray(jax.random.permutation(key, len(found.labels)))[:count]
        pooled = found.images[chosen].reshape(-1, 14, 2, 14, 2).mean((2, 4)) / 255
        return pooled.reshape(-1, 196).astype(np.float32), found.labels[chosen]
    except DataError:
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        labels = rng.integers(0, mnist.CLASSES, count).astype(np.int32)
        prototypes = np.random.default_rng(0).uniform(size=(mnist.CLASSES, 196))
        return (prototypes[labels] + rng.normal(scale=0.8, size=(count, 196))).astype(np.float32), labels


def language(config: Config, key: Array, data_dir: Path | None) -> Problem:
    """A small decoder on sequences of the planted corpus, as training examples and as queries."""
    del data_dir
    total, n = config.language_train + config.queries, config.language_train
    settings = dataclasses.replace(TINY_FACTS, fillers=total)
    corpus_key, order_key = jax.random.split(key)
    sequences = planted_facts(corpus_key, settings).sequences
    chosen = jax.random.permutation(order_key, len(sequences.tokens))[:total]
    rows = {"tokens": sequences.tokens[chosen], "mask": sequences.mask[chosen]}
    split = [jax.tree.map(lambda leaf, part=part: leaf[part], rows) for part in (slice(n), slice(n, None))]
    parts = language_model(settings, config.language_width)
    return Problem("language", *parts, split[0], split[1], config.language_steps)


@functools.cache
def language_model(settings: PlantedFacts, width: int) -> Parts:
    """The same of a decoder of one block."""
    model, length = decoder(settings, width, 1), settings.length
    return (
        next_token_task(model),
        lambda key: model.init(key, jnp.zeros(length - 1, jnp.int32))["params"],
        lambda p, e: jnp.mean(model.bind({"params": p}).hidden(e["tokens"][:-1]), axis=0),
    )


def decoder(settings: PlantedFacts, width: int, layers: int) -> Decoder:
    """A decoder for the planted corpus."""
    heads = max(1, width // 16)
    return Decoder(DecoderConfig(settings.vocabulary, width, layers, heads, max_length=settings.length))
