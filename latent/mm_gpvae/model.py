r"""The multi-modal GP-VAE: networks, prior and the terms of its bound.

Latents [neural | shared | behaviour] have a Gaussian-process prior per trial. With z in time::

    y_tn ~ Poisson(exp(W z_t^{neural, shared} + d))   or   N(W z + d, r_n)
    x_t  ~ N(f(z_t^{shared, behaviour}), v I)

Recognition is per bin, e_t = network(input_t), followed by a linear map over time from bins to coefficients.
Gondur et al., Multi-modal Gaussian Process Variational Autoencoders for Neural and Behavioral Data, ICLR 2024.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from core.checks import Count, Natural, NonNegative, Positive, checked
from latent.mm_gpvae import elbo
from latent.mm_gpvae.fourier import CONDITION, JITTER, Basis, fourier_basis, rbf, spectrum
from latent.mm_gpvae.fusion import Expert, Partition, Posterior, average, product

Domain = Literal["fourier", "time", "white"]
"""Coefficients of a Fourier basis, correlated time bins, or independent time bins (a plain VAE)."""


class Trials(NamedTuple):
    """Simultaneous recordings; a modality that a model does not know is None."""

    counts: Any
    """[trials, T, N], or None."""
    behaviour: Any
    """[trials, T, P], or None."""
    present: Float[Array, "trials 2"]
    """1 where the recognition network may look at the trial's counts, and at its behaviour."""

    @classmethod
    def of(cls, counts=None, behaviour=None) -> "Trials":
        """Trials with all modalities present."""
        known: Any = counts if counts is not None else behaviour
        return cls(counts, behaviour, jnp.ones((len(known), 2)))

    def without(self, *, counts: bool = False, behaviour: bool = False) -> "Trials":
        """The same trials with a modality hidden from recognition, as at test time where it was not recorded."""
        return self._replace(present=self.present * jnp.array([not counts, not behaviour], jnp.float32))


class Terms(NamedTuple):
    """The bound by trial: ELBO = neural + behaviour - kl."""

    neural: Float[Array, " trials"]
    behaviour: Float[Array, " trials"]
    kl: Float[Array, " trials"]

    @property
    def elbo(self) -> Float[Array, " trials"]:
        """The evidence lower bound."""
        return self.neural + self.behaviour - self.kl


@checked
class Recognition(nn.Module):
    """Per bin a perceptron with two heads, then a linear map over time (none where ``coefficients`` is None)."""

    hidden: Sequence[Count]
    latents: Count
    coefficients: Count | None

    @nn.compact
    def __call__(self, x: Float[Array, "trials T I"]) -> Posterior:
        """Mean and log standard deviation; the map of the latter has no bias."""
        for width in self.hidden:
            x = nn.elu(nn.Dense(width)(x))
        heads = [nn.Dense(self.latents, name=name)(x) for name in ("mean", "log_std")]
        if self.coefficients is None:
            return Posterior(*heads)
        maps = [
            nn.Dense(self.coefficients, name="mean_over_time"),
            nn.Dense(self.coefficients, use_bias=False, name="log_std_over_time"),
        ]
        return Posterior(*[jnp.swapaxes(f(jnp.swapaxes(h, 1, 2)), 1, 2) for f, h in zip(maps, heads, strict=True)])


@checked
class Decoder(nn.Module):
    """f: a perceptron with ELU; the released code has one after the last layer too."""

    hidden: Sequence[Count]
    outputs: int
    last_elu: bool = False

    @nn.compact
    def __call__(self, z: Float[Array, "trials T D"]) -> Float[Array, "trials T P"]:
        """The mean of the behaviour."""
        for width in self.hidden:
            z = nn.elu(nn.Dense(width)(z))
        x = nn.Dense(self.outputs)(z)
        return nn.elu(x) if self.last_elu else x


@checked
class MMGPVAE(nn.Module):
    """The model; with one modality it is a GP-VAE (behaviour) or a Poisson GPFA with recognition network (neural)."""

    partition: Partition
    bins: Count
    neurons: Natural = 0
    """N; 0 where there are none."""
    outputs: Natural = 0
    """P; 0 where there is no behaviour."""
    domain: Domain = "fourier"
    circle: Natural = 0
    """n of the Fourier basis."""
    shortest: Positive | None = 10.0
    """l_min of its pruning; None prunes nothing."""
    condition: Positive = CONDITION
    jitter: NonNegative = JITTER
    mixes_time: bool = True
    """Whether recognition has a linear map over time; the Fourier domain needs it."""
    fusion: Literal["average", "product"] = "average"
    observation: Literal["poisson", "gaussian"] = "poisson"
    neural_hidden: Sequence[Count] = (80, 40, 20)
    behaviour_hidden: Sequence[Count] = (784, 512, 256, 256)
    decoder_hidden: Sequence[Count] = (256, 256, 512, 784)
    last_elu: bool = False
    first_length: Positive = 15.0
    """Start of every latent's length scale, in bins."""
    one_length: bool = False
    """Whether all latents share a length scale, as in the released code."""
    first_noise: Positive = 0.05
    """Start of the variance v."""

    def setup(self):
        """Declares networks, length scales and noise."""
        p, mixes = self.partition, self.mixes_time or self.domain == "fourier"
        size = self.basis.matrix.shape[0] if mixes else None
        self.log_length = self.param("log_length", nn.initializers.constant(np.log(self.first_length)), self._lengths())
        if self.neurons:
            self.sees_counts = Recognition(self.neural_hidden, p.neural + p.shared, size)
            self.readout = nn.Dense(self.neurons)
            if self.observation == "gaussian":
                self.log_channel_noise = self.param("log_channel_noise", nn.initializers.zeros, (self.neurons,))
        if self.outputs:
            self.sees_behaviour = Recognition(self.behaviour_hidden, p.shared + p.behaviour, size)
            self.decoder = Decoder(self.decoder_hidden, self.outputs, self.last_elu)
            self.log_noise = self.param("log_noise", nn.initializers.constant(np.log(self.first_noise)), ())

    def _lengths(self) -> tuple[int]:
        return (1 if self.one_length else self.partition.total,)

    @property
    def basis(self) -> Basis:
        """From coefficients to bins; the identity in the time domains."""
        if self.domain == "fourier":
            return fourier_basis(self.bins, self.circle, self.shortest, self.condition)
        return Basis(np.eye(self.bins), np.zeros(self.bins), self.bins)

    def lengths(self) -> Float[Array, " D"]:
        """Length scale of every latent, in bins."""
        return jnp.broadcast_to(jnp.exp(self.log_length), (self.partition.total,))

    def prior_variance(self) -> Float[Array, "C D"]:
        """Of every coefficient by itself."""
        if self.domain == "fourier":
            return spectrum(self.basis, self.lengths(), jitter=self.jitter)
        white = 0.0 if self.domain == "white" else self.jitter
        return jnp.full((self.bins, self.partition.total), 1.0 + white)

    def kl(self, q: Posterior) -> Float[Array, " trials"]:
        """KL(q || prior) by trial."""
        if self.domain == "time":
            return elbo.dense_kl(*q, rbf(self.bins, self.lengths(), jitter=self.jitter))
        return elbo.diagonal_kl(*q, self.prior_variance())

    def posterior(self, trials: Trials) -> Posterior:
        """q(z~) from the modalities that are present; the prior where none is."""
        p, experts = self.partition, []
        if self.neurons:
            seen = self.sees_counts(jnp.log1p(trials.counts) if self.observation == "poisson" else trials.counts)
            experts.append(_expert(seen, trials.present[:, 0], p.of_neural, p.total))
        if self.outputs:
            seen = self.sees_behaviour(trials.behaviour)
            experts.append(_expert(seen, trials.present[:, 1], p.of_behaviour, p.total))
        return {"average": average, "product": product}[self.fusion](experts, self.prior_variance())

    def latents(self, trials: Trials) -> Float[Array, "trials T D"]:
        """Posterior means in time, B' mu."""
        return elbo.in_time(self.basis.matrix, self.posterior(trials).mean)

    def log_rates(self, q: Posterior) -> tuple[Float[Array, "trials T N"], Float[Array, "trials T N"]]:
        """Mean and variance of the neural read-out under q."""
        columns, basis = self.partition.of_neural, self.basis.matrix
        variance = elbo.variance_in_time(basis, q.log_std[..., columns])
        eta = self.readout(elbo.in_time(basis, q.mean[..., columns]))
        return eta, variance @ jnp.square(self.readout.variables["params"]["kernel"])

    def rates(self, trials: Trials) -> Float[Array, "trials T N"]:
        """Posterior mean rates exp(eta + v / 2)."""
        return jnp.exp(elbo.log_mean_rate(*self.log_rates(self.posterior(trials))))

    def decode(self, z: Float[Array, "trials T D"]) -> Float[Array, "trials T P"]:
        """The decoder f of the shared and behaviour-only columns of latents in time."""
        return self.decoder(z[..., self.partition.of_behaviour])

    def behaviour(self, trials: Trials) -> Float[Array, "trials T P"]:
        """The decoder f at the posterior means."""
        return self.decode(self.latents(trials))

    def __call__(self, trials: Trials, noise: Float[Array, "trials C D"]) -> Terms:
        """The terms of the bound, with one reparameterised sample behind the deep decoder."""
        q = self.posterior(trials)
        zero = jnp.zeros(q.mean.shape[0], q.mean.dtype)
        neural = self._neural(trials, q) if self.neurons else zero
        behaviour = zero
        if self.outputs:
            z = elbo.in_time(self.basis.matrix, q.mean + jnp.exp(q.log_std) * noise)
            behaviour = elbo.gaussian(trials.behaviour, self.decode(z), jnp.exp(self.log_noise))
        return Terms(neural, behaviour, self.kl(q))

    def _neural(self, trials: Trials, q: Posterior) -> Float[Array, " trials"]:
        eta, v = self.log_rates(q)
        if self.observation == "gaussian":
            return elbo.expected_gaussian(trials.counts, eta, v, jnp.exp(self.log_channel_noise))
        return elbo.expected_poisson(trials.counts, eta, v)


def _expert(seen: Posterior, present: Float[Array, " trials"], columns: slice, total: int) -> Expert:
    around = ((0, 0), (0, 0), (columns.start, total - columns.stop))
    weight = jnp.zeros(total).at[columns].set(1.0) * present[:, None, None]
    return Expert(Posterior(*(jnp.pad(part, around) for part in seen)), weight)
