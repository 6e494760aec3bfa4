"""How disentangled the models of ``scan_eeg`` are, and which of them UDR selects."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lab.system import Context
from experiments.scan_eeg.config import Config
from experiments.scan_eeg.study.worlds import DATASET, DISTINCT, PLANTED, Pool, Worlds, correlations
from latent import scan_eeg as eeg
from latent.scan_eeg import FACTORS, LABELS


def disentanglement(config: Config, context: Context, worlds: Worlds, pool: Pool, found: np.ndarray) -> None:
    """Active latents, single latents, correlations and UDR of every model, and which one UDR selects."""
    for w, seed in enumerate(context.seeds):
        models = pool.of(w)
        scores = {
            f"UDR ({kind})": np.asarray(_udr(pool.posterior.mean[models], jnp.asarray(pool.kl[models]), kind).scores)
            for kind in ("lasso", "spearman")
        }
        for place, i in enumerate(models):

            def note(metric: str, value: Any, i=i, seed=seed) -> None:
                context.record(
                    dataset=DATASET, method="beta-VAE", metric=metric, seed=seed, value=float(value), part="pool",
                    beta=float(pool.beta[i]), member=int(pool.member[i]),
                )  # fmt: skip

            note("active latents", (pool.kl[i] > DISTINCT).sum())
            note("KL", pool.kl[i].sum())
            note("mean accuracy", found[i, : len(PLANTED)].mean())
            for name, values in scores.items():
                note(name, values[place])
            strongest = strongest_correlations(pool, worlds, w, i)
            note("mean largest correlation", strongest.mean())
            for factor, value in zip(FACTORS, strongest, strict=True):
                note(f"largest correlation: {factor}", value)
            for column, label in enumerate(LABELS):
                note(f"accuracy: {label}", found[i, column])
                note(f"best latent: {label}", best_latent(pool, worlds, w, i, column))
        selected = models[select_by_udr(scores["UDR (lasso)"], pool.beta[models])]
        for label, value in zip(LABELS, found[selected], strict=True):
            context.record(dataset=DATASET, method="beta-VAE by UDR + LR", metric=label, seed=seed, value=float(value))
        means = found[models, : len(PLANTED)].mean(1)
        picked = found[selected, : len(PLANTED)].mean()
        for metric, value in (
            ("selected beta", pool.beta[selected]),
            ("selected less median accuracy", picked - np.median(means)),
        ):
            context.record(dataset=DATASET, method="beta-VAE by UDR", metric=metric, seed=seed, value=float(value),
                           part="selection")  # fmt: skip


def select_by_udr(scores: np.ndarray, betas: np.ndarray) -> int:
    """The best model of the beta with the highest median score."""
    best = max(np.unique(betas), key=lambda beta: float(np.median(scores[betas == beta])))
    return int(np.argmax(np.where(betas == best, scores, -np.inf)))


def strongest_correlations(pool: Pool, worlds: Worlds, w: int, i: int) -> np.ndarray:
    """Of each factor with any active latent, in absolute value."""
    found = np.abs(np.asarray(correlations(pool.test.mean[i], worlds.test.factors[w])))
    return np.where((pool.kl[i] > DISTINCT)[:, None], found, 0).max(0)


def best_latent(pool: Pool, worlds: Worlds, w: int, i: int, column: int) -> float:
    """Balanced accuracy of a label by one latent."""
    train, test = worlds.train.labels[w, :, column], worlds.test.labels[w, :, column]
    return float(_single(pool.posterior.mean[i], train, pool.test.mean[i], test))


_single = jax.jit(eeg.single_latent_accuracy)
_udr = jax.jit(eeg.udr, static_argnums=2)
