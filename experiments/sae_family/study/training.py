"""Dictionaries by the sweep: trained as one program, measured, noted."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.fit import fit
from core.learner import replicate_seeds, seed_keys, with_sampler
from experiments.lab.system import Context
from interp import sae

Row = Mapping[str, Any]
Make = Callable[[Row], sae.Variant]


def of_first(sample: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """A sampler for the stacked states of a sweep, all of whose rows see the same batches."""
    return lambda data, key, step: sample(data, jnp.ravel(key)[0], jnp.ravel(step)[0])


def train(make: Make, rows: Row, data: Any, sample: Any, *, latents: int, steps: int, rate: float, seeds: list[int],
          context: Context, name: str, aux: sae.Aux | None = None):  # fmt: skip
    """Dictionaries [seeds, rows, ...] as one program."""
    tx = optax.adam(optax.linear_schedule(rate, 0.0, steps))
    many = sae.sweep(lambda row: sae.sae_learner(make(row), latents, tx, aux=aux), rows)
    learner = replicate_seeds(with_sampler(many, of_first(sample)), len(seeds))
    folder = context.workdir / f"{name}-{'-'.join(map(str, seeds))}".replace(" ", "_").replace(",", "")
    done = fit(learner, data, key=seed_keys(seeds), steps=steps, chunk=50, workdir=folder,
               progress=context.progress(name))  # fmt: skip
    return done.state.params


def measured(make: Make, rows: Row, params: Any, x: jax.Array) -> sae.Quality:
    """Quality of dictionaries [seeds, rows] on fresh examples."""

    def one(row, params):
        return sae.metrics(make(row), params, x, block=2_048)

    return jax.device_get(jax.jit(jax.vmap(jax.vmap(one), in_axes=(None, 0)))(rows, params))


def note(context: Context, quality: sae.Quality, best: np.ndarray | None, *, seed: int, at: tuple[int, int],
         dataset: str, method: str, **coords: Any) -> None:  # fmt: skip
    """Records of one dictionary."""
    named: dict[str, Any] = {n: getattr(quality, n)[at] for n in ("fvu", "nmse", "l0", "dead", "shrinkage")}
    if best is not None:
        named |= {"mean max cosine": best[at].mean(), "features above .9": (best[at] > 0.9).mean()}
    for metric, value in named.items():
        context.record(dataset=dataset, method=method, metric=metric, seed=seed, value=float(value), **coords)
