"""Posteriors of several modalities made into one: each modality is an expert on some of the latents of some trials."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Partition(NamedTuple):
    """How many latents belong to whom; they are stored in this order."""

    neural: int
    shared: int
    behaviour: int

    @property
    def total(self) -> int:
        """D."""
        return sum(self)

    @property
    def of_neural(self) -> slice:
        """Columns that the neural read-out sees: the first D_n + D_s."""
        return slice(0, self.neural + self.shared)

    @property
    def of_behaviour(self) -> slice:
        """Columns that the behaviour decoder sees: the last D_s + D_b."""
        return slice(self.neural, self.total)


class Posterior(NamedTuple):
    """q(z~) = N(mean, diag(exp(2 log_std)))."""

    mean: Float[Array, "trials C D"]
    log_std: Float[Array, "trials C D"]


class Expert(NamedTuple):
    """What one modality says of all latents; ``weight`` is 0 where it says nothing."""

    posterior: Posterior
    weight: Float[Array, "trials 1 D"]


def average(experts: Sequence[Expert], variance: Float[Array, "C D"]) -> Posterior:
    """Means of the means and of the log standard deviations, as in the released code; the prior where no one speaks."""
    total = sum(expert.weight for expert in experts)
    count = jnp.maximum(total, 1.0)
    mean = sum(expert.weight * expert.posterior.mean for expert in experts) / count
    log_std = sum(expert.weight * expert.posterior.log_std for expert in experts) / count
    return Posterior(mean, jnp.where(total > 0, log_std, jnp.log(variance) / 2))


def product(experts: Sequence[Expert], variance: Float[Array, "C D"]) -> Posterior:
    """Experts and prior multiplied: precisions add up, means are weighted by them."""
    own = [expert.weight * jnp.exp(-2 * expert.posterior.log_std) for expert in experts]
    precision = sum(own) + 1 / variance
    mean = sum(p * expert.posterior.mean for p, expert in zip(own, experts, strict=True)) / precision
    return Posterior(jnp.broadcast_to(mean, precision.shape), -jnp.log(precision) / 2)
