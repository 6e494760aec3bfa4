"""A training step of the multi-modal GP-VAE beside the same model in PyTorch, and the two domains beside each other.

The PyTorch model has the same networks, basis, objective, Adam and batch, in float32 on the same threads; both sides'
bounds are compared on the same parameters and noise before anything is timed. The second comparison is ours against our
own time-domain model, whose prior needs a Cholesky factor of T x T per latent and step.
"""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.bench import BenchResult, beside, first_call, peer_module, require_agreement
from core.learner import example_keys, step_key
from core.loop import scan_steps
from latent import mm_gpvae as gp
from latent.mm_gpvae import MMGPVAE, Partition, Trials

TRIALS, BINS, NEURONS, PIXELS, STEPS = 16, 60, 100, 324, 5
LONG = 512


def run() -> list[BenchResult]:
    """Steps beside PyTorch, and steps on long trials in the two domains."""
    return [beside_torch(), beside_time_domain()]


def problem(bins: int, **changes) -> tuple[MMGPVAE, Any, Any, Any]:
    """A model, its learner, a batch and a first state."""
    model = MMGPVAE(**{
        "partition": Partition(1, 1, 1), "bins": bins, "neurons": NEURONS, "outputs": PIXELS, "circle": bins + 40,
        "behaviour_hidden": (256, 128), "decoder_hidden": (64, 128), **changes,
    })  # fmt: skip
    rng = np.random.default_rng(0)
    counts = jnp.asarray(rng.poisson(1.0, (TRIALS, bins, NEURONS)), jnp.float32)
    images = jnp.asarray(rng.uniform(size=(TRIALS, bins, model.outputs)), jnp.float32)
    learner = gp.learner(model, optax.adam(1e-3))
    batch = (Trials.of(counts, images), jnp.ones(()))
    return model, learner, batch, learner.init(jax.random.key(0), batch)


def stepping(learner: Any, batch: Any, state: Any):
    """A call of ``STEPS`` steps from the same state."""
    update = jax.jit(scan_steps(learner, STEPS).update)
    return lambda: update(state, batch)[1]["elbo"]


def beside_torch() -> BenchResult:
    """The same step in PyTorch."""
    model, learner, batch, state = problem(BINS)
    peer = Torch(model, state.params, batch)
    keys = example_keys(step_key(state), TRIALS)
    shape = (model.basis.matrix.shape[0], model.partition.total)
    noise = np.asarray(jax.vmap(lambda key: jax.random.normal(key, shape))(keys))
    difference = abs(float(gp.bound(model, state.params, keys, batch[0]).elbo.mean()) / peer.bound(noise) - 1)
    require_agreement(difference, 1e-4, "bounds")
    note = f"{TRIALS} x {BINS} bins, {PIXELS} pixels, {NEURONS} neurons; bounds agree to {difference:.0e}"
    ours = stepping(learner, batch, state)
    return beside("MM-GPVAE training step", ours, "PyTorch", peer.steps, steps=STEPS, note=note)


def beside_time_domain() -> BenchResult:
    """Long trials: the pruned Fourier domain against a dense prior over bins."""
    fourier, time = (
        stepping(*problem(LONG, outputs=20, **changes)[1:]) for changes in ({}, {"domain": "time", "mixes_time": False})
    )
    first_call(time)
    note = f"{TRIALS} x {LONG} bins, 20 outputs, {NEURONS} neurons"
    return beside("MM-GPVAE, long trials", fourier, "time domain (ours)", time, steps=STEPS, repeats=5, note=note)


class Torch:
    """The model in PyTorch with our parameters."""

    def __init__(self, model: MMGPVAE, params: Any, batch: Any):
        torch = peer_module("torch")
        self.torch, self.basis = torch, torch.tensor(model.basis.matrix, dtype=torch.float32)
        self.omega = torch.tensor(2 * np.pi / model.basis.circle * model.basis.frequencies, dtype=torch.float32)
        self.jitter = model.jitter
        flat = jax.tree_util.tree_flatten_with_path(params["params"])[0]
        self.params = {
            ".".join(key.key for key in path): torch.tensor(np.array(leaf), requires_grad=True) for path, leaf in flat
        }
        self.counts, self.images = (torch.tensor(np.array(part)) for part in (batch[0].counts, batch[0].behaviour))
        self.adam = torch.optim.Adam(list(self.params.values()), lr=1e-3)

    def dense(self, name: str, x):
        """A layer of ours."""
        out = x @ self.params[f"{name}.kernel"]
        return out + self.params[f"{name}.bias"] if f"{name}.bias" in self.params else out

    def layers(self, name: str, x, last: bool):
        """Dense layers with ELU, the last one without it where it is an output."""
        names = [f"{name}.Dense_{i}" for i in itertools.takewhile(
            lambda i: f"{name}.Dense_{i}.kernel" in self.params, itertools.count())]  # fmt: skip
        for i, layer in enumerate(names):
            x = self.dense(layer, x)
            x = x if last and i == len(names) - 1 else self.torch.nn.functional.elu(x)
        return x

    def recognise(self, name: str, x):
        """Mean and log standard deviation of the coefficients [trials, D, F]."""
        x = self.layers(name, x, last=False)
        heads = [self.dense(f"{name}.{head}", x).transpose(1, 2) for head in ("mean", "log_std")]
        return [self.dense(f"{name}.{head}_over_time", h) for head, h in zip(("mean", "log_std"), heads, strict=True)]

    def loss(self, noise):
        """Minus the mean bound, terms in our order: latents [neural, shared, behaviour]."""
        torch = self.torch
        neural, behaviour = (
            self.recognise(name, x)
            for name, x in (("sees_counts", torch.log1p(self.counts)), ("sees_behaviour", self.images))
        )
        mean, log_std = (
            torch.cat([a[:, :1], (a[:, 1:] + b[:, :1]) / 2, b[:, 1:]], dim=1)
            for a, b in zip(neural, behaviour, strict=True)
        )
        lengths = self.params["log_length"].exp()[:, None]
        k = math.sqrt(2 * math.pi) * lengths * torch.exp(-torch.square(self.omega * lengths) / 2) + self.jitter
        kl = ((mean.square() + torch.exp(2 * log_std)) / k - 1 + torch.log(k) - 2 * log_std).sum((1, 2)) / 2
        eta = self.dense("readout", (mean[:, :2] @ self.basis).transpose(1, 2))
        spread = (torch.exp(2 * log_std[:, :2]) @ self.basis.square()).transpose(1, 2)
        v = spread @ self.params["readout.kernel"].square()
        rate = torch.exp(torch.clamp(eta + v / 2, -10, 8))
        counts = (self.counts * eta - rate - torch.lgamma(self.counts + 1)).sum((1, 2))
        z = (mean + torch.exp(log_std) * noise) @ self.basis
        error = self.images - self.layers("decoder", z[:, 1:].transpose(1, 2), last=True)
        variance = self.params["log_noise"].exp()
        images = -(error.square() / variance + torch.log(2 * math.pi * variance)).sum((1, 2)) / 2
        return -(counts + images - kl).mean()

    def bound(self, noise: np.ndarray) -> float:
        """The mean bound at our noise [trials, F, D]."""
        return -self.loss(self.torch.tensor(noise.transpose(0, 2, 1))).item()

    def steps(self) -> None:
        """As many steps as ours takes per call."""
        for _ in range(STEPS):
            self.adam.zero_grad(set_to_none=True)
            self.loss(self.torch.randn(TRIALS, 3, self.basis.shape[0])).backward()
            self.adam.step()
