"""Recordings of people who take turns to be left out: their representations by fold, and numbers by person."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int, Key, Num

from core.checks import Count, NonNegative, checked
from core.fit import fit
from core.loop import runs_at_once
from latent.scan_eeg.vae import BetaVae, pool, pool_learner


@checked
def codes_by_fold(
    key: Key[Any, ""], vae: BetaVae, x: Float[np.ndarray, "n c t"], kept: Sequence[np.ndarray], beta: NonNegative,
    tx: optax.GradientTransformation, steps: Count, batch_size: Count = 64, workdir: Path | None = None,
    progress: Any = None,
) -> Float[np.ndarray, "folds n latents"]:  # fmt: skip
    """Posterior means of all recordings under a beta-VAE for each set of training rows, all as one program.

    Args:
      key: of starts and batches.
      vae: the networks.
      x: recordings.
      kept: rows of each training; shorter sets repeat some.
      beta: weight of the divergence.
      tx: the optimiser.
      steps: of each training.
      batch_size: at most; the longest set where it is shorter.
      workdir: for checkpoints; none if None.
      progress: called with (steps done, steps in all).
    """
    longest, folds = max(map(len, kept)), len(kept)
    recordings = jnp.asarray(np.stack([x[np.resize(rows, longest)] for rows in kept]))
    runs = pool(recordings, jnp.arange(folds), jnp.full(folds, beta))
    learner = pool_learner(vae, tx, min(batch_size, longest), folds, runs_at_once())
    params = fit(learner, runs, key=key, steps=steps, chunk=20, workdir=workdir, progress=progress).state.params
    encode = jax.jit(lambda p: vae.apply(p, x, method="encode").mean)  # pyright: ignore
    return np.asarray(jax.lax.map(encode, params), np.float64)


@checked
def means_by_person(values: Num[np.ndarray, " n"], person: Int[np.ndarray, " n"]) -> dict[int, float]:
    """The mean of each person's values."""
    return {int(one): float(np.mean(values[person == one])) for one in np.unique(person)}


@checked
def by_person_and_condition(
    x: Float[np.ndarray, "trials c t"], subject: Int[np.ndarray, " trials"], condition: Int[np.ndarray, " trials"]
) -> tuple[Float[np.ndarray, "groups each c t"], Int[np.ndarray, "groups 2"]]:
    """Equally many trials of every person and condition, the first of each, and who and which."""
    groups = np.unique(np.stack([subject, condition], axis=1), axis=0)
    rows = [np.flatnonzero((subject == s) & (condition == c)) for s, c in groups]
    least = min(map(len, rows))
    return np.stack([x[r[:least]] for r in rows]), groups
