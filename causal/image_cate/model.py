r"""The effect cluster model and its variational training.

Jerzak, Johansson, Daoud, Image-based treatment effect heterogeneity, CLeaR 2023, arXiv 2206.06417. For an image m::

    Z | m            ~ Categorical(softmax(a(m))),  a_1 = 0
    Y(0) | m, Z = z  ~ N(f0(m), sigma0_z^2)
    Y(1) | m, Z = z  ~ N(f0(m) + mu_z, sigma1_z^2)

Z is summed out (``mixture``), or relaxed to a Gumbel-softmax vector whose blend of the clusters' parameters enters one
normal, as the authors' code has it (``relaxed``), which is another likelihood. The spread of the effect within a
cluster adds to sigma1^2 and cannot be told from it by what is observed.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from causal.image_cate.layers import Normal, posteriors, start_rho, total_kl
from causal.image_cate.network import EffectNetwork, Outputs
from causal.treatment_effects import Units, initialised
from core.checks import Count, NonNegative, Positive, checked
from core.learner import GradientLearner, Params, example_keys, gradient_learner, step_key

Likelihood = Literal["mixture", "relaxed"]
Prior = dict[tuple[str, ...], Normal]
UNIT_SD = 0.5413248546
"""softplus^-1(1), the first sd of outcomes, which are standardised."""

FIRST_RHO = -3.0
"""softplus^-1 of the clusters' first posterior sd, 0.05 of the outcome's."""


class Effects(NamedTuple):
    """One draw of the clusters' parameters, [clusters] each."""

    mu: Array
    sigma0: Array
    sigma1: Array


class Training(NamedTuple):
    """What a step is given: units by image, the :data:`Prior` (None: no divergence), the number of units in all."""

    units: Units
    prior: Any = None
    total: Any = 1.0


TRAINING_AXES = Training(Units(0, 0, 0, 0), None, None)


@checked
@dataclasses.dataclass(frozen=True)
class ClusterModel:
    """The networks and how they are fitted."""

    network: EffectNetwork = dataclasses.field(default_factory=EffectNetwork)
    likelihood: Likelihood = "mixture"
    draws: Count = 1
    """Of the weights, in each step."""
    temperature: Positive = 0.5
    """Of the relaxed clusters."""
    spread: NonNegative = 0.3
    """Of the first mu about the difference in means, in deviations of the outcome."""
    common_noise: bool = False
    """Whether sigma0 and sigma1 are the same in all clusters. Controls then say nothing of them, and at the optimum the
    implied effect of the treated is what they exceed the baseline by, on average, whatever the outcome's distribution:
    sum r_z (y - f0 - mu_z) = 0 for every z and sum r_z = sum p_z over the treated, r_z the responsibilities."""
    first_rho: float = FIRST_RHO
    """Of the clusters' parameters: softplus^-1 of their first posterior sd. From that of the kernels (-9) the posterior
    is still far too narrow after some hundred steps."""

    def init(self, key: Any, units: Units) -> Params:
        """Parameters: those of the networks and the clusters' variational factors.

        The clusters' effects start about the difference in means of these units, an arm without units counting as 0.
        """
        network_key, key = jax.random.split(key)
        K, w = self.network.clusters, units.weight
        t, y = units.t, units.y
        treated, control = (jnp.sum(arm * y) / jnp.maximum(jnp.sum(arm), 1e-6) for arm in (w * t, w * (1 - t)))
        mean = {
            "mu": treated - control + self.spread * (jnp.linspace(-1, 1, K) if K > 1 else jnp.zeros(1)),
            "rho0": jnp.full(1 if self.common_noise else K, UNIT_SD, y.dtype),
            "rho1": jnp.full(1 if self.common_noise else K, UNIT_SD, y.dtype),
        }
        clusters = {
            name: {"mean": value, "rho": start_rho(jax.random.fold_in(key, i), value.shape, self.first_rho)}
            for i, (name, value) in enumerate(mean.items())
        }
        network = initialised(self.network, network_key, units.x)
        return {"params": {**network["params"], "clusters": clusters}}

    def learner(self, tx: optax.GradientTransformation) -> GradientLearner:
        """Descends the negative evidence bound per unit; the batch is a :class:`Training`."""

        def loss(params, key, batch: Training):
            keys = jax.random.split(key, self.draws)
            nll = -jax.vmap(lambda k: self.log_likelihood(params, k, batch.units))(keys).mean()
            if batch.prior is None:
                return nll, {"nll": nll}
            kl = total_kl(params["params"], batch.prior) / batch.total
            return nll + kl, {"nll": nll, "kl": kl}

        return gradient_learner(
            lambda key, batch: self.init(key, batch.units), loss, tx, key_of=step_key, batch_axes=TRAINING_AXES
        )

    def log_likelihood(self, params: Params, key: Any, units: Units) -> Float[Array, ""]:
        """Mean over images of the weighted sum over their units, at one draw of all parameters."""
        network_key, cluster_key, relax_key = jax.random.split(key, 3)
        outputs = self.outputs(params, network_key, units.x)
        effects = draw_effects(params, None if self.network.estimator == "point" else cluster_key)
        if self.likelihood == "relaxed":
            keys = example_keys(relax_key, len(outputs.baseline))
            gumbel = jax.vmap(lambda k: jax.random.gumbel(k, outputs.logits.shape[1:]))(keys)
            z = jax.nn.softmax((outputs.logits + gumbel) / self.temperature)
            each = blended_log_density(outputs, effects, z, units.t, units.y)
        else:
            each = mixture_log_density(outputs, effects, units.t, units.y)
        return (units.weight * each).sum() / len(outputs.baseline)

    def outputs(self, variables: Params, key: Any, x: Array) -> Outputs:
        """The networks at one draw of their weights; at the posterior means where the key is None."""
        rngs = {} if key is None else {"weights": key}
        return self.network.apply(variables, x, rngs=rngs)  # pyright: ignore[reportReturnType]


def draw_effects(params: Params, key: Any = None) -> Effects:
    """The clusters' parameters, drawn from their posterior; its means where the key is None."""
    found = posteriors(params["params"]["clusters"])
    values = []
    for i, name in enumerate(("mu", "rho0", "rho1")):
        q = found[(name,)]
        noise = 0.0 if key is None else jax.random.normal(jax.random.fold_in(key, i), q.mean.shape)
        values.append(q.mean + q.sd * noise)
    sigma0, sigma1 = (jnp.broadcast_to(jax.nn.softplus(rho), values[0].shape) for rho in values[1:])
    return Effects(values[0], sigma0, sigma1)


def _by_cluster(outputs: Outputs, effects: Effects, t: Float[Array, "batch units"]) -> tuple[Array, Array]:
    """Mean and sd of every unit's outcome in every cluster, [batch, units, clusters]."""
    mu = effects.mu if outputs.effects is None else (effects.mu + outputs.effects)[:, None]
    treated = t[..., None]
    return outputs.baseline[:, None, None] + treated * mu, jnp.where(treated > 0, effects.sigma1, effects.sigma0)


def mixture_log_density(
    outputs: Outputs, effects: Effects, t: Float[Array, "batch units"], y: Float[Array, "batch units"]
) -> Float[Array, "batch units"]:
    """The log density log p(y | t, m) = logsumexp_z [log softmax(a)_z + log N(y; f0 + t mu_z, sd_{t,z}^2)]."""
    mean, sd = _by_cluster(outputs, effects, t)
    prior = jax.nn.log_softmax(outputs.logits)[:, None]
    return logsumexp(prior + norm.logpdf(y[..., None], mean, sd), axis=-1)


def blended_log_density(
    outputs: Outputs, effects: Effects, z: Float[Array, "batch clusters"], t: Array, y: Array
) -> Float[Array, "batch units"]:
    """The log density log N(y; f0 + t <z, mu>, <z, sd_t^2>) for a relaxed cluster z: the authors' likelihood."""
    mean, sd = _by_cluster(outputs, effects, t)
    z = z[:, None]
    return norm.logpdf(y, (z * mean).sum(-1), jnp.sqrt((z * sd**2).sum(-1)))
