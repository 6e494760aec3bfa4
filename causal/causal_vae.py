r"""Variational autoencoders with a causal layer: CausalVAE and SCM-VAE, the published baselines of CausalDiffAE.

CausalVAE (Yang, Liu, Chen, Shen, Hao, Wang, CVPR 2021) learns a linear structural model of the latent variables,
z = (I - A^T)^{-1} e, and passes each concept's parents through a network of its own (the mask layer). SCM-VAE
(Komanduri, Wu, Huang, Chen, Wu, 2022) knows the graph; children come from non-linear mechanisms, and the prior mean of
a child is the average of its own and its parents' labels.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from causal.causal_diffae import Code, kl_to_standard, label_divergence, sample_code
from causal.mechanisms import CausalLayer, Graph, Intervention, in_order, settled
from core.checks import Count, Fraction, NonNegative, checked
from core.learner import GradientLearner, example_keys, gradient_learner, step_key


@checked
class LinearThenMask(nn.Module):
    """CausalVAE's two layers: z = (I - A^T)^{-1} e with A learned, then z_i = g_i(A_i o z) + e_i."""

    n: Count
    block: Count
    hidden: Count = 32

    def setup(self):
        """A and the networks of the mask layer."""
        init = nn.initializers.lecun_normal(in_axis=1, out_axis=2, batch_axis=(0,))
        self.adjacency = self.param("adjacency", nn.initializers.zeros, (self.n, self.n))
        self.inner = self.param("inner", init, (self.n, self.n * self.block, self.hidden))
        self.outer = self.param("outer", init, (self.n, self.hidden, self.block))

    def __call__(self, e: Float[Array, "b n k"], intervention: Intervention | None = None) -> Float[Array, "b n k"]:
        """Z of exogenous e; an intervention strikes out the equations of the variables that it sets."""
        return self.both(e, intervention)[1]

    def both(
        self, e: Float[Array, "b n k"], intervention: Intervention | None = None
    ) -> tuple[Float[Array, "b n k"], Float[Array, "b n k"]]:
        """Z of the linear model, and of the mask layer after it."""
        incoming, entry = jnp.broadcast_to(self.adjacency.T, (e.shape[0], self.n, self.n)), e
        if intervention is not None:
            is_set = jnp.broadcast_to(intervention.is_set, e.shape[:2])
            incoming, entry = jnp.where(is_set[:, :, None], 0.0, incoming), settled(e, intervention, range(self.n))
        linear = jnp.linalg.solve(jnp.eye(self.n) - incoming, entry)
        masked = jnp.einsum("bij,bjk->bijk", incoming, linear).reshape(*e.shape[:2], -1)
        hidden = nn.elu(jnp.einsum("bnd,ndh->bnh", masked, self.inner))
        z = jnp.einsum("bnh,nhk->bnk", hidden, self.outer) + e
        return linear, z if intervention is None else settled(z, intervention, range(self.n))


@checked
class CausalVae(nn.Module):
    """Encoder, causal layer and decoder of images in [-1, 1]; the decoder's logits are of [0, 1]."""

    encoder: nn.Module
    """``x -> Code``."""
    layer: nn.Module
    """:class:`LinearThenMask` or :class:`causal.mechanisms.CausalLayer`."""
    shape: Sequence[int]
    """Of an image."""
    widths: Sequence[Count] = (128, 128)

    def setup(self):
        """The decoder, a perceptron."""
        self.hidden = [nn.Dense(width) for width in self.widths]
        self.out = nn.Dense(int(np.prod(self.shape)))

    def __call__(self, x: Float[Array, "b h w c"]) -> Array:
        """The reconstruction of the posterior's mean."""
        return self.decode(self.code(self.encode(x).mean))

    def encode(self, x: Float[Array, "b h w c"]) -> Code:
        """The posterior of e."""
        return self.encoder(x)

    def code(self, e: Float[Array, "b n k"], intervention: Intervention | None = None) -> Float[Array, "b n k"]:
        """Z of exogenous e, under an intervention if one is given."""
        return self.layer(e, intervention)

    def decode(self, z: Float[Array, "b n k"]) -> Float[Array, "b h w c"]:
        """Logits of an image."""
        h = z.reshape(z.shape[0], -1)
        for dense in self.hidden:
            h = nn.elu(dense(h))
        return self.out(h).reshape(z.shape[0], *self.shape)


def counterfactual(model: CausalVae, params: Any, x: Float[Array, "b h w c"], intervention: Intervention) -> Array:
    """The image, in [-1, 1], had the intervention taken place; nothing but the code is abducted."""

    def run(model, x):
        return model.decode(model.code(model.encode(x).mean, intervention))

    return 2 * jax.nn.sigmoid(nn.apply(run, model)(params, x)) - 1


def acyclicity(adjacency: Float[Array, "n n"]) -> Float[Array, ""]:
    """H(A) = tr((I + A o A / n)^n) - n, zero exactly for acyclic graphs (Yu et al. 2019)."""
    n = adjacency.shape[0]
    return jnp.trace(jnp.linalg.matrix_power(jnp.eye(n) + adjacency**2 / n, n)) - n


@checked
def structural_labels(graph: Graph, labels: Float[Array, "b n"]) -> Float[Array, "b n"]:
    """SCM-VAE's prior means: the average of a variable's own and its parents' labels."""
    weights = np.eye(len(graph)) + in_order(graph)
    return labels @ jnp.asarray(weights / weights.sum(0), labels.dtype)


@checked
def learner(
    model: CausalVae,
    tx: optax.GradientTransformation,
    *,
    alpha: NonNegative = 0.3,
    beta: NonNegative = 1.0,
    share: Fraction = 1e-3,
) -> GradientLearner:
    """Trains on batches ``{"x", "labels"}``.

    Reconstruction + alpha KL(q(e | x) || N(0, I)) + beta KL(q(z | x) || N(prior mean, I)); with CausalVAE's linear
    layer also |y - A^T y|^2 + |z - g(A o z) - e|^2 + 3 H + H^2 / 2, where H = 0 makes A acyclic.
    """
    graph = model.layer.graph if isinstance(model.layer, CausalLayer) else None

    def init(key, batch):
        return model.init(key, batch["x"][:1])

    def loss(params, key, batch):
        code: Any = model.apply(params, batch["x"], method="encode")
        keys = example_keys(key, code.mean.shape[0])
        e = jax.vmap(sample_code, in_axes=(0, 0, None))(keys, code, share)
        z: Any = model.apply(params, e, method="code")
        logits: Any = model.apply(params, z, method="decode")
        entropy = optax.sigmoid_binary_cross_entropy(logits, (batch["x"] + 1) / 2)
        reconstruction = jnp.sum(entropy.reshape(z.shape[0], -1), axis=1)
        means = batch["labels"] if graph is None else structural_labels(graph, batch["labels"])
        total = reconstruction + alpha * kl_to_standard(code) + beta * label_divergence(z, means)
        if graph is not None:
            return jnp.mean(total), {}
        adjacency = params["params"]["layer"]["adjacency"]
        h = acyclicity(adjacency)
        fit = jnp.sum((batch["labels"] - batch["labels"] @ adjacency) ** 2, axis=1)
        linear: Any = model.apply(params, e, method=lambda m, e: m.layer.both(e)[0])
        mask = jnp.sum((linear - z) ** 2, axis=(1, 2))
        return jnp.mean(total + fit + mask) + 3 * h + h**2 / 2, {"acyclicity": h}

    return gradient_learner(init, loss, tx, key_of=step_key, batch_axes=0)
