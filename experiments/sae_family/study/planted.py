"""Variants on planted features: at one sparsity, over sparsities, and where latents die."""

from typing import Any

import jax
import numpy as np

from core.learner import stream
from experiments.lab.system import Context
from experiments.sae_family.config import Config
from experiments.sae_family.study.training import Make, measured, note, train
from interp import sae


def planted_methods(config: Config) -> dict[str, tuple[Make, sae.Aux | None]]:
    """Variants at one sparsity, trained longest."""
    k = config.k
    aux = sae.Aux(dead_after=config.dead_after)
    return {
        "TopK": (lambda row: sae.topk(k), None),
        "TopK, AuxK": (lambda row: sae.topk(k), aux),
        "BatchTopK, AuxK": (lambda row: sae.batch_topk(k), aux),
    }


def sweep_methods(config: Config) -> dict[str, tuple[Make, np.ndarray]]:
    """Variants with the knob of their sparsity and its values; one program each."""
    k_max = max(config.ks)
    return {
        "TopK": (lambda row: sae.topk(row["knob"], k_max), np.array(config.ks, np.int32)),
        "ReLU, L1": (lambda row: sae.relu_l1(row["knob"]), np.array(config.l1s, np.float32)),
        "BatchTopK": (lambda row: sae.batch_topk(row["knob"]), np.array(config.ks, np.int32)),
        "Gated": (lambda row: sae.gated(row["knob"]), np.array(config.l1s, np.float32)),
        "JumpReLU": (lambda row: sae.jumprelu(row["knob"], 0.05, 0.1), np.array(config.l0s, np.float32)),
    }


def world_of(config: Config) -> sae.Planted:
    """The one planted dictionary."""
    return sae.planted(jax.random.key(0), config.features, config.d)


def fresh(config: Config) -> jax.Array:
    """Examples that no training has seen."""
    return sae.draw(world_of(config), jax.random.key(1 << 20), config.examples)[0]


def recovery(world: sae.Planted, W_d: jax.Array) -> np.ndarray:
    """Best cosines [..., features] of planted features."""
    flat = W_d.reshape(-1, *W_d.shape[-2:])
    best = jax.vmap(lambda W: sae.max_cosines(world.directions, W))(flat)
    return np.asarray(best).reshape(*W_d.shape[:-2], -1)


def planted_part(name: str):
    """The part of one variant at one sparsity."""

    def part(config: Config, context: Context, seeds: list[int]) -> None:
        (make, aux), world = planted_methods(config)[name], world_of(config)
        rows = {"knob": np.array([config.k], np.int32)}
        params = train(
            make, rows, world, sae.sampler(config.batch_size), latents=config.latents, steps=config.steps,
            rate=config.learning_rate, seeds=seeds, context=context, name=f"planted {name}", aux=aux,
        )  # fmt: skip
        quality, best = measured(make, rows, params, fresh(config)), recovery(world, params["W_d"])
        for i, seed in enumerate(seeds):
            place = {"dataset": "planted", "method": name, "part": f"planted {name}"}
            note(context, quality, best, seed=seed, at=(i, 0), k=config.k, **place)
            if name == "TopK":
                densities(context, quality.frequency[i, 0], config, seed, place)
            if name == "TopK" and len(seeds) > 1:
                agreement(context, params["W_d"][:, 0], i, seed, place)

    return part


def densities(context: Context, frequency: jax.Array, config: Config, seed: int, place: dict[str, Any]) -> None:
    """The histogram of log10 firing frequencies, in bins of a quarter of a decade."""
    edges = np.arange(-5.0, 0.01, 0.25)
    counts, _ = np.histogram(np.clip(sae.densities(frequency, config.examples), -5, 0), edges)
    for low, count in zip(edges, counts, strict=False):
        context.record(metric="latents in bin", seed=seed, value=float(count), log_density=float(low), **place)


def agreement(context: Context, decoders: jax.Array, i: int, seed: int, place: dict[str, Any]) -> None:
    """Best cosines of one seed's latents with those of the next seed, and with random directions."""
    mine, other = decoders[i], decoders[(i + 1) % len(decoders)]
    random = jax.random.normal(stream(jax.random.key(seed), "random directions"), mine.shape)
    for metric, to in (("cosine with another seed", other), ("cosine with random", random)):
        best = np.asarray(sae.max_cosines(mine, to))
        context.record(metric=metric, seed=seed, value=float(best.mean()), **place)
        context.record(metric=f"share above .9, {metric}", seed=seed, value=float((best > 0.9).mean()), **place)


def sweep_part(name: str):
    """The part of one variant over its sparsities."""

    def part(config: Config, context: Context, seeds: list[int]) -> None:
        (make, knobs), world = sweep_methods(config)[name], world_of(config)
        params = train(
            make, {"knob": knobs}, world, sae.sampler(config.sweep_batch), latents=config.latents,
            steps=config.sweep_steps, rate=config.learning_rate, seeds=seeds, context=context, name=f"sweep {name}",
        )  # fmt: skip
        quality = measured(make, {"knob": knobs}, params, fresh(config))
        best = recovery(world, params["W_d"])
        for i, seed in enumerate(seeds):
            for j, knob in enumerate(knobs):
                note(context, quality, best, seed=seed, at=(i, j), dataset="planted sweep", method=name,
                     part=f"sweep {name}", knob=float(knob))  # fmt: skip

    return part


def dead_latents(config: Config, context: Context, seeds: list[int]) -> None:
    """A wide dictionary at a large learning rate, with and without the auxiliary loss."""
    with_and_without(
        config, context, seeds, world_of(config), latents=config.wide, steps=config.wide_steps, part="dead",
        dataset="planted, wide",
    )  # fmt: skip


def crowded(config: Config, context: Context, seeds: list[int]) -> None:
    """The same where there are twice as many features as latents, so that each latent has one left to find."""
    latents = config.wide // 4
    with_and_without(
        config, context, seeds, sae.planted(jax.random.key(0), 2 * latents, 2 * config.d), latents=latents,
        steps=config.wide_steps // 3, part="crowded", dataset="planted, crowded",
    )  # fmt: skip


def with_and_without(config: Config, context: Context, seeds: list[int], world: sae.Planted, *, latents: int,
                     steps: int, part: str, dataset: str) -> None:  # fmt: skip
    """TopK dictionaries at a large learning rate, with and without the auxiliary loss."""
    x = sae.draw(world, jax.random.key(1 << 20), config.examples)[0]
    rows, variant = {"knob": np.array([config.k], np.int32)}, sae.topk(config.k)

    def make(row):
        return variant

    for method, aux in (("TopK", None), ("TopK, AuxK", sae.Aux(dead_after=config.dead_after // 5))):
        params = train(
            make, rows, world, sae.sampler(config.sweep_batch), latents=latents, steps=steps, rate=config.wide_rate,
            seeds=seeds, context=context, name=f"{part} {method}", aux=aux,
        )  # fmt: skip
        quality, best = measured(make, rows, params, x), recovery(world, params["W_d"])
        for i, seed in enumerate(seeds):
            note(context, quality, best, seed=seed, at=(i, 0), dataset=dataset, method=method, part=part)
            one = jax.tree.map(lambda leaf, i=i: leaf[i, 0], params)
            for metric, value in reach(variant, one, x[:4_096]).items():
                context.record(dataset=dataset, method=method, metric=metric, seed=seed, value=value, part=part)


def reach(variant: sae.Variant, params: sae.Params, x: jax.Array) -> dict[str, float]:
    """What silent latents lack: the least activation of an example, and the largest pre-activation of a silent latent.

    Means over examples and over silent latents.
    """
    pre = np.asarray((x - params["b_d"]) @ params["W_e"].T + params["b_e"])
    z = np.asarray(sae.as_dense(variant, params, x))
    silent = ~(z > 0).any(axis=0)
    least = np.where(z > 0, z, np.inf).min(axis=1)
    found = {"least active": float(least[np.isfinite(least)].mean())}
    return found | ({"largest silent": float(pre.max(axis=0)[silent].mean())} if silent.any() else {})
