"""Training 20 encoders with the moment restriction, beside the same encoders one after another in PyTorch.

Both sides have the same networks, loss with the n x n kernel, Adam, batch size and float32; before anything is timed,
the losses of every encoder are compared on the same parameters and rows. PyTorch gets one thread, its fastest here.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from causal import rep4ex as rep
from core.bench import BenchResult, beside, peer_module, require_agreement
from core.loop import runs_at_once, scan_steps
from core.pools import Pool

SEEDS, ROWS, BATCH, STEPS, LAMBDA, HIDDEN = 20, 4_000, 512, 20, 10.0, (64, 64)


def run() -> list[BenchResult]:
    """Seconds per step of all encoders, by kernel and by 256 random features.

    Raises:
      RelicError: where the two sides' losses disagree.
    """
    samples = [rep.gen1(seed, ROWS, rep.Design())[1] for seed in range(SEEDS)]
    rows = [rep.standardise(sample.x, sample.a) for sample in samples]
    pool = rep.pool(rows, np.arange(SEEDS), np.full(SEEDS, LAMBDA))
    coder = rep.Autoencoder(2, rows[0].x.shape[1], HIDDEN)
    features = rep.fourier_statistic(jax.random.normal(jax.random.key(0), (2, 128)))
    return [
        compared(coder, pool, "the kernel", rep.v_statistic),
        compared(coder, pool, "256 random features", features),
    ]


def compared(coder: rep.Autoencoder, pool: Pool, name: str, moments: rep.Moments) -> BenchResult:
    """One form of the restriction beside PyTorch with the kernel."""
    single = rep.representation_learner(coder, optax.adam(1e-3), moments)
    learner = rep.pool_learner(single, SEEDS, BATCH, runs_at_once())
    state = learner.init(jax.random.key(0), pool)
    peers = [Torch(jax.tree.map(lambda leaf, i=i: leaf[i], state.params), pool, i) for i in range(SEEDS)]
    difference = max(disagreement(coder, peer) for peer in peers)
    require_agreement(difference, 1e-4, "losses")
    update = jax.jit(scan_steps(learner, STEPS).update)

    def ours():
        return update(state, pool)[1]["loss"]

    note = f"a step of {SEEDS} encoders, batch {BATCH}; losses by kernel agree to {difference:.0e}"
    return beside(
        f"AE-MMR, {SEEDS} seeds, {name}", ours, "PyTorch, kernel, one seed after another",
        lambda: [peer.steps() for peer in peers], steps=STEPS, repeats=3, note=note,
    )  # fmt: skip


def disagreement(coder: rep.Autoencoder, peer: "Torch") -> float:
    """Relative difference of the losses on the same parameters and rows."""
    x, a = (jnp.asarray(part[:BATCH].cpu().numpy()) for part in (peer.x, peer.a))
    batch = rep.Batch(x, a, jnp.float32(LAMBDA), jnp.float32(peer.bandwidth))
    ours = float(rep.objective(coder, peer.ours, jax.random.key(0), batch)[0])
    return abs(ours / peer.loss(peer.x[:BATCH], peer.a[:BATCH]).item() - 1)


class Torch:
    """One encoder in PyTorch with our parameters, and its rows."""

    def __init__(self, params: Any, pool: Pool, world: int):
        self.torch, self.ours = peer_module("torch"), params
        self.torch.set_num_threads(1)  # matrices so small are slower on more, ten times on a busy machine
        self.device = "cuda" if jax.default_backend() == "gpu" and self.torch.cuda.is_available() else "cpu"
        self.x, self.a = (self.tensor(part[world]) for part in pool.data)
        self.bandwidth = float(pool.own[1][world])
        self.encoder, self.decoder = (self.network(params["params"][name]) for name in ("encoder", "decoder"))
        self.parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.adam = self.torch.optim.Adam(self.parameters, lr=1e-3)

    def tensor(self, values: Any):
        """On the peer's device."""
        return self.torch.tensor(np.array(values), device=self.device)

    def network(self, params: Any):
        """Dense layers with leaky ReLU between them."""
        nn, layers = self.torch.nn, []
        for name in sorted(params):  # dense0, dense1, head
            inputs, outputs = params[name]["kernel"].shape
            layer = nn.Linear(inputs, outputs, device=self.device)
            layer.weight.data = self.tensor(params[name]["kernel"]).T.contiguous()
            layer.bias.data = self.tensor(params[name]["bias"])
            layers += [layer, nn.LeakyReLU(0.01)]
        return nn.Sequential(*layers[:-1])

    def loss(self, x, a):
        """Reconstruction and the whitened V-statistic of the batch."""
        torch, n = self.torch, len(x)
        w = self.encoder(x)
        reconstruction = (x - self.decoder(w)).square().mean()
        design = torch.cat([torch.ones(n, 1, device=self.device), a], dim=1)
        r = w - design @ torch.linalg.solve(design.T @ design, design.T @ w)
        centred = w - w.mean(dim=0)
        S = r.T @ r / n + 1e-4 * centred.T @ centred / n
        K = torch.exp(-torch.cdist(a, a).square() / (2 * self.bandwidth**2))
        return reconstruction + LAMBDA * torch.trace(torch.linalg.solve(S, r.T @ K @ r)) / n**2

    def steps(self) -> None:
        """As many steps as ours takes per call."""
        for _ in range(STEPS):
            rows = self.torch.randint(len(self.x), (BATCH,), device=self.device)
            self.adam.zero_grad(set_to_none=True)
            self.loss(self.x[rows], self.a[rows]).backward()
            self.adam.step()
        if self.device == "cuda":
            self.torch.cuda.synchronize()
