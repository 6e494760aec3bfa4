"""Training a TopK dictionary, beside PyTorch: dense codes and its embedding bag, whichever is faster.

Both sides make the same step in float32: the k largest latents, the fraction of variance unexplained, gradients without
their component along decoder rows, Adam, rows back to norm 1. They start from the same weights and see the same batches
of planted features, so that after the same steps they must have the same error, which the note tells: the time to
equal error is in the ratio of the times per step. A second table of rows times sizes of the dictionary.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from core.bench import BenchResult, Timing, first_call, peer_module
from interp import sae

SIZES = ((64, 2_048, 32, 2_048), (512, 8_192, 32, 1_024))
"""Inputs, latents, active latents, batch."""
GROWTH = ((256, 2_048, 32, 512), (256, 8_192, 32, 512))
RATE, STEPS, BATCHES = 1e-3, 24, 8


def run() -> list[BenchResult]:
    """Seconds per training step at both sizes, then at a small and a large dictionary."""
    return [beside(*size, name="SAE training step") for size in SIZES] + [
        beside(*size, name="SAE step by size of the dictionary") for size in GROWTH
    ]


def beside(d: int, m: int, k: int, batch: int, *, name: str) -> BenchResult:
    """One size: our step, and the better of two forms in PyTorch."""
    world = sae.planted(jax.random.key(0), 4 * d, d)
    keys = jax.random.split(jax.random.key(1), BATCHES)
    batches = [sae.draw(world, key, batch)[0] for key in keys]
    learner = sae.sae_learner(sae.topk(k), m, optax.adam(RATE), centre=sae.mean)
    state = learner.init(jax.random.key(2), batches[0])
    start = {n: np.array(leaf) for n, leaf in state.params.items()}
    begun = time.perf_counter()
    update = jax.jit(learner.update, donate_argnums=0).lower(state, batches[0]).compile()
    compile_s = time.perf_counter() - begun
    forms = {form: torch_trainer(start, k, form) for form in ("dense", "embedding bag")}
    arrays = [np.array(x) for x in batches]
    times: dict[str, list[float]] = {"ours": [], **{form: [] for form in forms}}
    errors: dict[str, float] = {}
    for step in range(STEPS):

        def ours(x=batches[step % BATCHES]):
            nonlocal state
            state, metrics = update(state, x)
            errors["ours"] = metrics["fvu"]
            return metrics

        times["ours"].append(first_call(ours))
        for form, train in forms.items():
            begun = time.perf_counter()
            errors[form] = train(arrays[step % BATCHES])
            times[form].append(time.perf_counter() - begun)
    seconds = {side: Timing.of(found[STEPS // 4 :]) for side, found in times.items()}
    best = min(forms, key=lambda form: seconds[form].median)
    others = ", ".join(f"{form} {1e3 * seconds[form].median:.0f} ms" for form in forms)
    note = (
        f"d {d}, m {m:,}, k {k}, batch {batch:,}; PyTorch: {others}; "
        f"FVU after {STEPS} steps {float(errors['ours']):.4f} and {errors[best]:.4f}"
    )
    torch = peer_module("torch")
    peer = f"PyTorch {torch.__version__} {best}, {torch.get_num_threads()} threads"
    return BenchResult.of(f"{name}, m = {m:,}", seconds["ours"], peer, seconds[best], compile_s, note)


def torch_trainer(start: dict[str, np.ndarray], k: int, form: str) -> Callable[[np.ndarray], float]:
    """A function that trains on one batch and returns its FVU."""
    torch = peer_module("torch")
    p: dict[str, Any] = {name: torch.nn.Parameter(torch.tensor(leaf)) for name, leaf in start.items()}
    adam = torch.optim.Adam(p.values(), lr=RATE, fused=True)

    def output(x):
        pre = torch.relu((x - p["b_d"]) @ p["W_e"].T + p["b_e"])
        values, indices = pre.topk(k, sorted=False)
        if form == "dense":
            return torch.zeros_like(pre).scatter(1, indices, values) @ p["W_d"] + p["b_d"]
        bag = torch.nn.functional.embedding_bag(indices, p["W_d"], per_sample_weights=values, mode="sum")
        return bag + p["b_d"]

    def train(batch: np.ndarray) -> float:
        x = torch.from_numpy(batch)
        fvu = ((x - output(x)) ** 2).sum() / ((x - x.mean(dim=0)) ** 2).sum()
        adam.zero_grad()
        fvu.backward()
        with torch.no_grad():
            W, g = p["W_d"], p["W_d"].grad
            g -= (g * W).sum(dim=1, keepdim=True) * W
            adam.step()
            W /= W.norm(dim=1, keepdim=True)
        return float(fvu.detach())

    return train
