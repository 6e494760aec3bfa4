"""Training the pool of beta-VAEs that UDR ranks, beside the same models one after another in PyTorch.

Both sides have the same networks, loss, Adam, batch size and float32; before anything is timed, the losses of every
model are compared on the same parameters, recordings and noise. Ours is timed vmapped and, on the CPU, also as it is
run there: one program that updates the models in turn.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.bench import BenchResult, beside, peer_module, require_agreement
from core.loop import runs_at_once, scan_steps
from core.pools import Pool
from experiments.scan_eeg.study.pool import one
from latent import scan_eeg as eeg
from latent.scan_eeg.erps import noise

SEEDS, PEOPLE, BATCH, STEPS, FEATURES, HIDDEN, BETA = 6, 256, 64, 5, (8, 8), 128, 8.0


def run() -> list[BenchResult]:
    """Seconds per step of all models."""
    model = eeg.BetaVae(features=FEATURES, hidden=HIDDEN)
    people = eeg.clean_erps(eeg.draw_people(jax.random.key(0), PEOPLE))
    x = eeg.baseline_corrected(people) + noise(jax.random.key(1), PEOPLE)
    pool = eeg.pool(eeg.scaled(x)[0][None], jnp.zeros(SEEDS, jnp.int32), jnp.full(SEEDS, BETA))
    ways = {"vmapped": None} if runs_at_once() is None else {"vmapped": None, "in turn": runs_at_once()}
    return [compared(model, pool, name, count) for name, count in ways.items()]


def compared(model: eeg.BetaVae, pool: Pool, name: str, count: int | None) -> BenchResult:
    """One way of updating the pool beside PyTorch."""
    learner = eeg.pool_learner(model, optax.adam(1e-3), BATCH, SEEDS, count)
    state = learner.init(jax.random.key(0), pool)
    peers = [Torch(one(state.params, i), pool.data[0]) for i in range(SEEDS)]
    difference = max(disagreement(model, one(state.params, i), peer) for i, peer in enumerate(peers))
    require_agreement(difference, 1e-4, "losses")
    update = jax.jit(scan_steps(learner, STEPS).update)

    def ours():
        return update(state, pool)[1]["loss"]

    note = f"a step of {SEEDS} models, batch {BATCH}; losses agree to {difference:.0e}"
    return beside(
        f"pool of beta-VAEs, {name}", ours, "PyTorch, one after another", lambda: [peer.steps() for peer in peers],
        steps=STEPS, repeats=5, note=note,
    )  # fmt: skip


def disagreement(model: eeg.BetaVae, params: Any, peer: "Torch") -> float:
    """Relative difference of the losses on the same batch and noise."""
    x = np.asarray(peer.x[:BATCH].cpu())
    draws = jax.random.normal(jax.random.key(2), (BATCH, model.latents))
    made: Any = model.apply(params, x, draws)
    posterior, decoded = made
    ours = float(eeg.beta_vae_loss(posterior, decoded, jnp.asarray(x), BETA)[0])
    theirs = peer.loss(peer.x[:BATCH], peer.tensor(draws)).item()
    return abs(ours / theirs - 1)


class Torch:
    """One model in PyTorch with our parameters, and the recordings."""

    def __init__(self, params: Any, x: jax.Array):
        self.torch = peer_module("torch")
        self.device = "cuda" if jax.default_backend() == "gpu" and self.torch.cuda.is_available() else "cpu"
        self.x = self.tensor(x)
        flat = jax.tree_util.tree_flatten_with_path(params["params"])[0]
        named = {".".join(key.key for key in path): np.asarray(leaf) for path, leaf in flat}
        self.params = {name: self.tensor(self._turned(name, leaf)).requires_grad_() for name, leaf in named.items()}
        self.adam = self.torch.optim.Adam(list(self.params.values()), lr=1e-3)

    def tensor(self, values: Any):
        """On the peer's device."""
        return self.torch.tensor(np.array(values), device=self.device)

    @staticmethod
    def _turned(name: str, leaf: np.ndarray) -> np.ndarray:
        """Kernels in PyTorch's order of axes."""
        if leaf.ndim != 3:
            return leaf.T
        return leaf.transpose((2, 1, 0) if name.startswith("encoder") else (1, 2, 0))

    def layer(self, kind: Any, name: str, x, **settings):
        """A layer by its name."""
        return kind(x, self.params[f"{name}.kernel"], self.params[f"{name}.bias"], **settings)

    def loss(self, x, noise):
        """The beta-VAE's loss of a batch [b, channels, time]."""
        f, strided = self.torch.nn.functional, {"stride": 2, "padding": 2}
        h = x
        for name in ("conv1", "conv2"):
            h = f.relu(self.layer(f.conv1d, f"encoder.{name}", h, **strided))
        h = f.relu(self.layer(f.linear, "encoder.dense", h.flatten(1)))
        mean, logvar = self.layer(f.linear, "encoder.head", h).chunk(2, dim=1)
        h = f.relu(self.layer(f.linear, "decoder.dense", mean + self.torch.exp(logvar / 2) * noise))
        h = f.relu(self.layer(f.linear, "decoder.unflatten", h)).reshape(len(x), FEATURES[-1], -1)
        h = f.relu(self.layer(f.conv_transpose1d, "decoder.conv1", h, **strided))
        decoded = self.layer(f.conv_transpose1d, "decoder.conv2", h, **strided)
        kl = (mean.square() + logvar.exp() - logvar - 1).sum(1) / 2
        return ((x - decoded).square().sum((1, 2)) / 2 + BETA * kl).mean()

    def steps(self) -> None:
        """As many steps as ours takes per call."""
        for _ in range(STEPS):
            rows = self.torch.randint(len(self.x), (BATCH,), device=self.device)
            noise = self.torch.randn(BATCH, self.params["decoder.dense.kernel"].shape[1], device=self.device)
            self.adam.zero_grad(set_to_none=True)
            self.loss(self.x[rows], noise).backward()
            self.adam.step()
        if self.device == "cuda":
            self.torch.cuda.synchronize()
