"""DDIM sampling in 50 steps, beside diffusers' PyTorch scheduler with the same denoiser on the same machine.

Three denoisers: an exact mixture of Gaussians (nothing but overhead), a perceptron of 3 M parameters, a small U-Net.
The first lines are whole samples; the last ones what a sampler adds per step to the bare network, which is measured in
the same way on both sides: 50 calls from Python, one after another.
"""

import functools
import statistics
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from core.bench import BenchResult, device_name, first_call, peer_module
from latent import diffusion
from latent.diffusion import Conditioned
from latent.film import FilmMlp
from latent.unet import TimeEmbedding, UNet

STEPS, BATCH, REPEATS = 50, 64, 7
MEANS = np.array([[-1.0, 0.0], [1.0, 0.5], [0.0, 1.5], [0.5, -1.0]], np.float32)


class Case(NamedTuple):
    """A denoiser on both sides."""

    name: str
    shape: tuple[int, ...]
    denoise: diffusion.Denoiser
    operands: Any
    peer: Callable[[Any], Any]
    """Given torch, a function ``(x, t) -> eps``."""
    repeats: int = REPEATS


def run() -> list[BenchResult]:
    """Seconds per sample of 50 steps, then seconds per step beyond the network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch, diffusers = peer_module("torch"), peer_module("diffusers")
    peer = f"diffusers {diffusers.__version__}, PyTorch {torch.__version__}"
    whole, overhead = [], []
    for case in (mixture(), perceptron(), unet()):
        a, b = compare(case, torch, diffusers, peer)
        whole.append(a)
        overhead.append(b)
    return [*whole, *overhead]


def compare(case: Case, torch: Any, diffusers: Any, peer: str) -> tuple[BenchResult, BenchResult]:
    """A whole sample, and the overhead per step."""
    chain = diffusion.linear_beta(1000)
    grid = diffusion.chain(chain, diffusion.trailing(1000, STEPS))
    plan = diffusion.ddim(grid)
    x = jax.random.normal(jax.random.key(0), (BATCH, *case.shape))
    program = jax.jit(functools.partial(diffusion.sample, denoise=case.denoise))
    bare = jax.jit(lambda operands, x, k: case.denoise(operands, diffusion.Query(x, at(plan, k))).eps)

    def ours():
        return program(plan, operands=case.operands, x=x)

    def ours_bare():
        return [bare(case.operands, x, np.int32(k)) for k in range(STEPS)]

    scheduler = diffusers.DDIMScheduler(
        1000, beta_start=1e-4, beta_end=0.02, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(STEPS)
    network, start = case.peer(torch), torch.from_numpy(np.moveaxis(np.array(x), -1, 1).copy())

    def theirs():
        with torch.inference_mode():
            y = start
            for t in scheduler.timesteps:
                y = scheduler.step(network(y, t), t, y).prev_sample
        return y

    def theirs_bare():
        with torch.inference_mode():
            return [network(start, t) for t in scheduler.timesteps]

    compile_s = first_call(ours)
    if case.name == "mixture":  # an exact denoiser: both sides must give the same sample
        np.testing.assert_allclose(np.asarray(ours()), theirs().numpy(), atol=1e-4)
    for fn in (ours_bare, theirs, theirs_bare):
        first_call(fn)
    times: dict[Any, list[float]] = {fn: [] for fn in (ours, theirs, ours_bare, theirs_bare)}
    for _ in range(case.repeats):
        for fn, kept in times.items():
            kept.append(first_call(fn))
    median = {fn: statistics.median(kept) for fn, kept in times.items()}
    added = [max((median[a] - median[b]) / STEPS, 1e-7) for a, b in ((ours, ours_bare), (theirs, theirs_bare))]
    nets = [1e3 * median[fn] / STEPS for fn in (ours_bare, theirs_bare)]
    note = f"{STEPS} steps, batch {BATCH}"
    per_step = f"beyond {nets[0]:.3g} ms and {nets[1]:.3g} ms per bare call; 0.1 µs or less: none could be measured"
    device = device_name()
    return (
        BenchResult(f"DDIM sample, {case.name}", median[ours], peer, median[theirs], compile_s, device, note),
        BenchResult(f"overhead per step, {case.name}", added[0], peer, added[1], compile_s, device, per_step),
    )


def at(plan: diffusion.Plan, index: Any) -> diffusion.Level:
    """The noise level of a row."""
    return jax.tree.map(lambda column: column[index], plan.level)


def mixture() -> Case:
    """Four Gaussians in the plane."""
    variance, weights = 0.05, np.full(4, 0.25, np.float32)
    denoise = diffusion.mixture(jnp.asarray(MEANS), jnp.full(4, variance), jnp.asarray(weights))
    alpha_bar = diffusion.linear_beta(1000).alpha_bar.astype(np.float32)

    def peer(torch):
        means, levels = torch.from_numpy(MEANS), torch.from_numpy(alpha_bar)

        def eps(x, t):
            a, s2 = levels[t].sqrt(), 1 - levels[t]
            total = a**2 * variance + s2
            centred = x[:, None, :] - a * means
            share = torch.softmax(-(centred**2).sum(-1) / (2 * total), -1)
            return s2.sqrt() / total * (share[..., None] * centred).sum(1)

        return eps

    return Case("mixture", (2,), denoise, None, peer)


def perceptron(width: int = 768, blocks: int = 2) -> Case:
    """FiLM blocks over 64 dimensions, about 3 M parameters."""
    net, x = FilmMlp(width, blocks), jnp.zeros((1, 64))
    params = jax.jit(net.init)(jax.random.key(1), x, jnp.zeros(1))

    def peer(torch):
        tnn = torch.nn

        class Film(tnn.Module):
            def __init__(self):
                super().__init__()
                self.time = tnn.Sequential(tnn.Linear(32, width), tnn.SiLU(), tnn.Linear(width, width), tnn.SiLU())
                self.enter, self.leave = tnn.Linear(64, width), tnn.Linear(width, 64)
                self.film = tnn.ModuleList(tnn.Linear(width, 2 * width) for _ in range(blocks))
                self.inner, self.outer = (
                    tnn.ModuleList(tnn.Linear(width, width) for _ in range(blocks)) for _ in range(2)
                )
                self.norm = tnn.LayerNorm(width, elementwise_affine=False)

            def forward(self, x, t):
                emb, h = self.time(torch_sinusoids(torch, t.expand(x.shape[0]), 32)), self.enter(x)
                for film, inner, outer in zip(self.film, self.inner, self.outer, strict=True):
                    scale, shift = film(emb).chunk(2, -1)
                    h = h + outer(tnn.functional.silu(inner(tnn.functional.silu(self.norm(h) * (1 + scale) + shift))))
                return self.leave(tnn.functional.silu(h))

        return Film().eval()

    return Case("3 M perceptron", (64,), diffusion.denoiser(net.apply), Conditioned(params), peer)


class SmallUNet(nn.Module):
    """Widths 32 and 64, one block per level, 28 x 28."""

    @nn.compact
    def __call__(self, x, time, cond=None):
        """Raw output."""
        net = UNet(1, channels=(32, 64), blocks=1, groups=8, middle_attention=False)
        return net(x, TimeEmbedding(128, 32)(time))


def unet() -> Case:
    """The small U-Net on images; PyTorch in channels_last, its fastest layout on the CPU."""
    net = SmallUNet()
    params = jax.jit(net.init)(jax.random.key(1), jnp.zeros((1, 28, 28, 1)), jnp.zeros(1))
    return Case("small U-Net", (28, 28, 1), diffusion.denoiser(net.apply), Conditioned(params), torch_unet, repeats=3)


def torch_sinusoids(torch: Any, t: Any, width: int) -> Any:
    """As :func:`latent.unet.sinusoids`."""
    rates = torch.exp(-np.log(10_000.0) * torch.arange(width // 2) / (width // 2))
    angles = t[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], -1)


def torch_unet(torch: Any) -> Any:
    """The same architecture in PyTorch."""
    tnn = torch.nn

    silu = tnn.functional.silu

    class Residual(tnn.Module):
        def __init__(self, before, width):
            super().__init__()
            self.norm_in, self.norm_out = tnn.GroupNorm(8, before), tnn.GroupNorm(8, width)
            self.conv_in, self.conv_out = tnn.Conv2d(before, width, 3, 1, 1), tnn.Conv2d(width, width, 3, 1, 1)
            self.emb = tnn.Linear(128, 2 * width)
            self.skip = tnn.Conv2d(before, width, 1) if before != width else tnn.Identity()

        def forward(self, x, emb):
            h = self.conv_in(silu(self.norm_in(x)))
            scale, shift = self.emb(silu(emb))[:, :, None, None].chunk(2, 1)
            return self.skip(x) + self.conv_out(silu(self.norm_out(h) * (1 + scale) + shift))

    class Net(tnn.Module):
        def __init__(self):
            super().__init__()
            self.time = tnn.Sequential(tnn.Linear(32, 128), tnn.SiLU(), tnn.Linear(128, 128))
            self.enter, self.halve = tnn.Conv2d(1, 32, 3, 1, 1), tnn.Conv2d(32, 32, 3, 2, 1)
            self.down = tnn.ModuleList([Residual(32, 32), Residual(32, 64)])
            self.middle = tnn.ModuleList([Residual(64, 64), Residual(64, 64)])
            self.up = tnn.ModuleList([Residual(128, 64), Residual(96, 64), Residual(96, 32), Residual(64, 32)])
            self.doubled = tnn.Conv2d(64, 64, 3, 1, 1)
            self.norm, self.leave = tnn.GroupNorm(8, 32), tnn.Conv2d(32, 1, 3, 1, 1)

        def forward(self, x, t):
            emb = self.time(torch_sinusoids(torch, t.expand(x.shape[0]), 32))
            skips = [self.enter(x.contiguous(memory_format=torch.channels_last))]
            skips.append(self.down[0](skips[-1], emb))
            skips.append(self.halve(skips[-1]))
            skips.append(self.down[1](skips[-1], emb))
            h = skips[-1]
            for block in self.middle:
                h = block(h, emb)
            for block in self.up[:2]:
                h = block(torch.cat([h, skips.pop()], 1), emb)
            h = self.doubled(tnn.functional.interpolate(h, scale_factor=2.0))
            for block in self.up[2:]:
                h = block(torch.cat([h, skips.pop()], 1), emb)
            return self.leave(silu(self.norm(h)))

    return Net().eval().to(memory_format=torch.channels_last)
