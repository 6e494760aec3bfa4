"""SCAN: symbols grounded in the latents of a frozen beta-VAE, and their logical recombination.

A second small VAE over k-hot symbols y shares the latent space of the first:

    loss = E_{q(z|y)}[ BCE(y, dec(z)) ] + beta_y KL(q(z|y) || N(0, I)) + lambda KL(q(z|x) || q(z|y))

The forward divergence makes q(z|y) cover all examples of a concept: latents on which they differ keep the prior's
width, those which carry the concept become narrow or move. Higgins et al., SCAN: Learning Hierarchical Compositional
Visual Concepts, ICLR 2018.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from core.checks import Count, Fraction, NonNegative, checked
from core.learner import GradientLearner, Params, example_keys, gradient_learner, step_key
from latent.scan_eeg.gaussian import Gaussian, kl, kl_to_prior

AND, IN_COMMON, IGNORE = range(3)
"""The operators: the union of two concepts' symbols, their intersection, and the first without the second."""
OPERATORS = ("AND", "IN COMMON", "IGNORE")


class Grounded(NamedTuple):
    """A batch: what a frozen beta-VAE makes of recordings, and the labels of their owners."""

    posterior: Gaussian
    labels: Int[Array, "b labels"]
    """0 or 1 per label."""


def symbols_of(labels: Int[Array, "*b labels"], mentioned: Float[Array, "*b labels"]) -> Float[Array, "*b symbols"]:
    """k-hot: two symbols per label, (is 0, is 1), both 0 where the label is not mentioned."""
    hot = jax.nn.one_hot(labels, 2) * mentioned[..., None]
    return hot.reshape(*hot.shape[:-2], -1)


@checked
class SymbolVae(nn.Module):
    """Encoder and decoder of symbols, one hidden layer each."""

    symbols: Count
    latents: Count = 10
    hidden: Count = 64

    def setup(self):
        """Declares both networks."""
        self.encoder = nn.Sequential([nn.Dense(self.hidden), nn.relu, nn.Dense(2 * self.latents)])
        self.decoder = nn.Sequential([nn.Dense(self.hidden), nn.relu, nn.Dense(self.symbols)])

    def encode(self, y: Float[Array, "b symbols"]) -> Gaussian:
        """q(z|y)."""
        return Gaussian(*jnp.split(self.encoder(y), 2, axis=-1))

    def decode(self, z: Float[Array, "b latents"]) -> Float[Array, "b symbols"]:
        """Logits of the symbols."""
        return self.decoder(z)

    def __call__(self, y, noise):
        """q(z|y) and the logits of a sample."""
        concept = self.encode(y)
        return concept, self.decode(concept.at(noise))


@checked
def scan_loss(posterior: Gaussian, concept: Gaussian, logits, y, beta_y: NonNegative, lam: NonNegative):
    """The loss and its parts, means over the batch."""
    parts = {
        "symbols": jnp.sum(optax.sigmoid_binary_cross_entropy(logits, y), axis=-1),
        "kl": jnp.sum(kl_to_prior(concept), axis=-1),
        "grounding": jnp.sum(kl(posterior, concept), axis=-1),
    }
    parts = {name: jnp.mean(value) for name, value in parts.items()}
    return parts["symbols"] + beta_y * parts["kl"] + lam * parts["grounding"], parts


@checked
def scan_learner(
    model: SymbolVae,
    tx: optax.GradientTransformation,
    *,
    beta_y: NonNegative = 1.0,
    lam: NonNegative = 10.0,
    keep: Fraction = 0.5,
) -> GradientLearner:
    """Trains SCAN on :class:`Grounded`; each label of an example is mentioned with probability ``keep``."""

    def init(key, batch: Grounded):
        return model.init(key, jnp.zeros((1, model.symbols)), jnp.zeros((1, model.latents)))

    def loss(params: Params, key, batch: Grounded):
        def draw(key, labels):
            mention_key, noise_key = jax.random.split(key)
            mentioned = jax.random.bernoulli(mention_key, keep, labels.shape)
            return symbols_of(labels, mentioned), jax.random.normal(noise_key, (model.latents,))

        y, noise = jax.vmap(draw)(example_keys(key, batch.labels.shape[0]), batch.labels)
        concept, logits = model.apply(params, y, noise)  # pyright: ignore[reportGeneralTypeIssues]
        return scan_loss(batch.posterior, concept, logits, y, beta_y, lam)

    return gradient_learner(init, loss, tx, key_of=step_key, batch_axes=0)


def classify(decode: Callable[[Array], Array], means: Float[Array, "n latents"]) -> Float[Array, "n labels"]:
    """Log odds of 1 against 0 of every label: x -> mu(x) -> symbols."""
    logits = decode(means).reshape(means.shape[0], -1, 2)
    return logits[..., 1] - logits[..., 0]


@checked
def single_symbols(labels: Count) -> Float[Array, "labels 2 symbols"]:
    """The concepts which mention one label."""
    return jnp.eye(2 * labels).reshape(labels, 2, 2 * labels)


@checked
def marker_strength(encode: Callable[[Array], Gaussian], labels: Count) -> Float[Array, "labels latents"]:
    """|mu_y(c = 1) - mu_y(c = 0)|: how far naming a label moves each latent."""
    concepts = encode(single_symbols(labels).reshape(2 * labels, -1)).mean.reshape(labels, 2, -1)
    return jnp.abs(concepts[:, 1] - concepts[:, 0])


@checked
class Recombination(nn.Module):
    """An operator on two concepts: a convolution of kernel 1 along the latents, with weights chosen by the operator."""

    hidden: Count = 16

    @nn.compact
    def __call__(self, first: Gaussian, second: Gaussian, operator: Int[Array, " b"]) -> Gaussian:
        """The recombined concept, as a correction of the first."""
        features = jnp.stack([*first, *second], axis=-1)
        weights = nn.initializers.variance_scaling(1.0, "fan_in", "normal", batch_axis=0)
        zeros, n = nn.initializers.zeros, len(OPERATORS)
        inner = self.param("inner", weights, (n, 4, self.hidden))
        shift = self.param("shift", zeros, (n, self.hidden))
        outer = self.param("outer", weights, (n, self.hidden, 2))
        hidden = nn.relu(jnp.einsum("blf,bfh->blh", features, inner[operator]) + shift[operator][:, None])
        change = jnp.einsum("blh,bhg->blg", hidden, outer[operator])
        return Gaussian(first.mean + change[..., 0], first.logvar + change[..., 1])


def recombined(
    first: Float[Array, "b labels"], second: Float[Array, "b labels"], operator: Int[Array, " b"]
) -> Float[Array, "b labels"]:
    """Which labels the recombination of two concepts mentions."""
    outcomes = jnp.stack([jnp.maximum(first, second), first * second, first * (1 - second)])
    return jnp.take_along_axis(outcomes, operator[None, :, None], axis=0)[0]


class Recombined(NamedTuple):
    """Two concepts which agree where both speak, an operator, and the concept that it should give."""

    first: Float[Array, "b symbols"]
    second: Float[Array, "b symbols"]
    operator: Int[Array, " b"]
    result: Float[Array, "b symbols"]


def draw_recombinations(key: Any, labels: Int[Array, "b labels"]) -> Recombined:
    """Random pairs of concepts whose result is true of every person; each mentions each label with probability 1/2.

    What the result does not mention is drawn apart from the person: one of whom both concepts were true would be an
    example of their union, whatever the operator.
    """

    def draw(key):
        concept_key, operator_key = jax.random.split(key)
        parts = jax.random.bernoulli(concept_key, shape=(3, labels.shape[1])).astype(jnp.float32)
        return parts, jax.random.randint(operator_key, (), 0, len(OPERATORS))

    parts, operator = jax.vmap(draw, out_axes=(1, 0))(example_keys(key, labels.shape[0]))
    first, second, free = parts
    result = recombined(first, second, operator)
    named = jnp.where(result == 1, labels, free.astype(labels.dtype))
    first_y, second_y, result_y = (symbols_of(named, mentioned) for mentioned in (first, second, result))
    return Recombined(first_y, second_y, operator, result_y)


def recombination_learner(
    model: Recombination, encode: Callable[[Params, Array], Gaussian], tx: optax.GradientTransformation
) -> GradientLearner:
    """Trains the operators on :class:`Instructed`: KL(q(z|x) || q(z|y1, operator, y2)), x examples of the result.

    Args:
      model: the operators.
      encode: ``(params, symbols) -> q(z|y)`` of the frozen SCAN.
      tx: the optimiser.
    """

    def init(key, batch: "Instructed"):
        return model.init(key, *_first_row(batch.grounded.posterior), jnp.zeros(1, jnp.int32))

    def loss(params: Params, key, batch: "Instructed"):
        drawn = draw_recombinations(key, batch.grounded.labels)
        first, second = (encode(batch.scan, y) for y in (drawn.first, drawn.second))
        concept: Any = model.apply(params, first, second, drawn.operator)
        return jnp.mean(jnp.sum(kl(batch.grounded.posterior, concept), axis=-1)), {}

    return gradient_learner(init, loss, tx, key_of=step_key, batch_axes=INSTRUCTED_AXES)


def _first_row(posterior: Gaussian) -> tuple[Gaussian, Gaussian]:
    row = Gaussian(posterior.mean[:1], posterior.logvar[:1])
    return row, row


class Instructed(NamedTuple):
    """Grounded examples and the frozen SCAN's parameters, which all examples share."""

    grounded: Grounded
    scan: Params


INSTRUCTED_AXES: Any = Instructed(0, None)  # pyright: ignore[reportArgumentType]
"""What of a batch holds examples, and what all of them share."""


@checked
def recombination_divergences(
    key: Any, encode: Callable[[Array], Gaussian], operators: Params, labels: Int[Array, "n labels"]
) -> dict[tuple[str, str], float]:
    """Mean KL from SCAN's concept of the result over random pairs of concepts, by operator and method.

    Methods are the recombination and, beside it, leaving the first concept as it is.

    Args:
      key: of the pairs.
      encode: symbols to concepts, by one SCAN.
      operators: parameters of :class:`Recombination`.
      labels: of the people whose concepts are drawn, a pair for each.
    """
    drawn = draw_recombinations(key, labels)
    first, second, result = (encode(y) for y in (drawn.first, drawn.second, drawn.result))
    got: Any = Recombination().apply(operators, first, second, drawn.operator)
    found = {"recombination": kl(result, got).sum(-1), "first concept": kl(result, first).sum(-1)}
    return {
        (name, method): float(values[np.asarray(drawn.operator) == k].mean())
        for method, values in found.items()
        for k, name in enumerate(OPERATORS)
    }
