"""The public recordings of ``scan_eeg``: people, conditions and single trials, always with held-out people."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int, Num
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold, StratifiedKFold

from core.datasets import erp
from core.fit import fit
from core.learner import Params, replicate_seeds, with_sampler
from core.loop import runs_at_once
from experiments.lab.system import Context
from experiments.scan_eeg.config import SMNI, STOP, UCI, Config
from experiments.scan_eeg.study import baselines
from experiments.scan_eeg.study.worlds import reconstructed
from latent import scan_eeg as eeg

CHANNELS = ("FZ", "PZ", "OZ")
"""CZ was close to the recording reference."""
WINDOWS = ((8, 16), (16, 24), (24, 40), (40, 64))
"""In bins of 15.6 ms."""
FOLDS = 5


def parts(context: Context) -> dict[str, Any]:
    """What can be run with the files that are there, by name."""
    made: dict[erp.Name, Any] = {
        "erp_uci_subject_means": people,
        "erp_smni_train": trials,
        "erp_impulsivity": conditions,
    }
    missing = [name for name in made if erp.locate(name, context.data_dir) is None]
    for name in missing:
        context.say(f"scan_eeg: {name} is not in the data directory; left out")
    return {str(name): part for name, part in made.items() if name not in missing}


def fold_vaes(
    config: Config, context: Context, name: str, x: Float[np.ndarray, "n c t"], kept: list[np.ndarray]
) -> tuple[eeg.BetaVae, Params]:
    """A beta-VAE per set of training rows, all as one program; shorter sets repeat some of their rows."""
    longest = max(map(len, kept))
    recordings = jnp.asarray(np.stack([x[np.resize(rows, longest)] for rows in kept]))
    vae = eeg.BetaVae(x.shape[1], x.shape[2], config.latents, config.features, config.hidden)
    folds, batch = len(kept), min(config.batch_size, longest)
    grid = eeg.Grid(recordings, jnp.arange(folds), jnp.full(folds, config.real_beta), jnp.ones(folds))
    learner = eeg.grid_learner(vae, optax.adam(config.learning_rate), batch, folds, runs_at_once())
    state = fit(
        learner, grid, key=jax.random.key(11), steps=config.real_steps, chunk=20, workdir=context.workdir / name,
        progress=context.progress(f"beta-VAEs of {name}"),
    ).state  # fmt: skip
    return vae, state.params


@functools.partial(jax.jit, static_argnums=0)
def codes(vae: eeg.BetaVae, params: Params, x: Float[np.ndarray, "n c t"]) -> Float[jax.Array, "folds n latents"]:
    """Posterior means of all recordings under every fold's model."""
    return jax.lax.map(lambda p: vae.apply(p, x, method="encode").mean, params)  # pyright: ignore


def windows(x: Float[np.ndarray, "n c 64"]) -> Float[np.ndarray, "n features"]:
    """Mean amplitudes in all windows."""
    return np.concatenate([x[:, :, a:b].mean(-1) for a, b in WINDOWS], axis=1)


def people(config: Config, context: Context) -> None:
    """Alcoholic or control from one average per person: repeated stratified cross-validation."""
    data = erp.subject_means(context.data_dir)
    y = data.alcoholic
    whole = data.erp / data.erp.std()
    few = whole[:, [erp.UCI_CHANNELS.index(name) for name in CHANNELS]]
    splits = [
        split
        for repetition in range(config.repetitions)
        for split in StratifiedKFold(FOLDS, shuffle=True, random_state=repetition).split(whole, y)
    ]
    vae, params = fold_vaes(config, context, "uci", few, [train for train, _ in splits])
    z = np.asarray(codes(vae, params, few), np.float64)
    flat, flat_few = whole.reshape(len(y), -1), few.reshape(len(y), -1)
    three = ", ".join(CHANNELS)
    fixed = {
        f"window means ({three}) + LR": ("LR", windows(few)),
        "window means (64 channels) + LR": ("LR", windows(whole)),
        "250-375 ms means (64 channels) + LR": ("LR", whole[:, :, 16:24].mean(-1)),
        "RBF SVM (64 channels)": ("RBF SVM", flat),
        f"RBF SVM ({three})": ("RBF SVM", flat_few),
    }
    guesses: dict[str, list[np.ndarray]] = {}
    for k, (train, test) in enumerate(splits):
        pairs = {name: (classifier, x[train], x[test]) for name, (classifier, x) in fixed.items()}
        pairs[f"beta-VAE-10 ({three}) + LR"] = ("LR", z[k][train], z[k][test])
        pairs["PCA-10 (64 channels) + LR"] = ("LR", *baselines.pca(flat[train], flat[test]))
        pairs[f"PCA-10 ({three}) + LR"] = ("LR", *baselines.pca(flat_few[train], flat_few[test]))
        pairs["tangent space (64 channels) + LR"] = (
            "LR",
            *baselines.tangent_space(whole[train], y[train], whole[test]),
        )
        for name, (classifier, a, b) in pairs.items():
            guesses.setdefault(name, []).append(baselines.predicted(classifier, a, y[train], b))
    for name, found in guesses.items():
        hits = np.zeros((config.repetitions, len(y)))
        for k, (_, test) in enumerate(splits):
            hits[k // FOLDS, test] = found[k] == y[test]
        note_people(context, UCI, name, "balanced accuracy", dict(enumerate(hits.mean(0))), y)


def note_people(
    context: Context,
    dataset: str,
    method: str,
    metric: str,
    by_person: Mapping[int, float],
    classes: Any = None,
    **place: str,
) -> None:
    """A number of each held-out person: people are repeated, not folds nor repetitions of a cross-validation."""
    for person, value in by_person.items():
        place_of = place if classes is None else {**place, "class": int(classes[person])}
        context.record(dataset=dataset, method=method, metric=metric, seed=0, value=float(value), person=int(person),
                       **place_of)  # fmt: skip


def means_by_person(values: Num[np.ndarray, " n"], person: Int[np.ndarray, " n"]) -> dict[int, float]:
    """The mean of each person's values."""
    return {int(one): float(np.mean(values[person == one])) for one in np.unique(person)}


def conditions(config: Config, context: Context) -> None:
    """Failed or successful stop, from one average each of held-out people, so that a person's accuracy is balanced."""
    data = erp.stop_signal(context.data_dir)
    count = len(data.erp)
    wanted, measured = np.linspace(0, 1000, 256), np.linspace(0, 1000, 501)
    x = np.apply_along_axis(lambda row: np.interp(wanted, measured, row), -1, data.erp).astype(np.float32)
    x = x.reshape(2 * count, 3, 256) / x.std()
    y, person = np.tile([0, 1], count), np.repeat(np.arange(count), 2)
    splits = list(GroupKFold(FOLDS).split(x, y, person))
    vae, params = fold_vaes(config, context, "stop_signal", x, [train for train, _ in splits])
    z, flat = np.asarray(codes(vae, params, x), np.float64), x.reshape(2 * count, -1)
    for k, (train, test) in enumerate(splits):
        for name, (a, b) in {
            "beta-VAE-10 + LR": (z[k][train], z[k][test]),
            "PCA-5 + LR": baselines.pca(flat[train], flat[test], 5),
        }.items():
            hits = baselines.predicted("LR", a, y[train], b) == y[test]
            note_people(context, STOP, name, "balanced accuracy", means_by_person(hits, person[test]))


def trials(config: Config, context: Context) -> None:
    """Denoising of single trials against the same person's other trials, and match or no match from them."""
    data = erp.single_trials(context.data_dir)
    x = data.x - data.x.mean(-1, keepdims=True)
    x, groups = by_person_and_condition(x / x.std(), data.subject, data.condition)
    splits = list(GroupKFold(FOLDS).split(x, groups=groups[:, 0]))
    vae, params = trial_denoisers(config, context, x, [train for train, _ in splits])
    for k, (train, test) in enumerate(splits):
        single = x[test].reshape(-1, *x.shape[2:])
        others = (x[test].sum(1, keepdims=True) - x[test]).reshape(single.shape) / (x.shape[1] - 1)
        grand = x[train].mean((0, 1))
        flat = x[train].reshape(-1, single[0].size)
        model = jax.tree.map(lambda leaf, k=k: leaf[k], params)
        methods = {
            "none": single,
            "PCA-10": baselines.pca_projection(flat, single.reshape(len(single), -1)).reshape(single.shape),
            "beta-VAE, few trials to ERP": np.asarray(reconstructed(vae, model, single)),
        }
        for (name, y), (form, mean) in (
            (m, f) for m in methods.items() for f in (("whole", 0), ("less grand mean", grand))
        ):
            found = np.asarray(eeg.waveform_correlation(jnp.asarray(y - mean), jnp.asarray(others - mean)))
            by_person = means_by_person(found, np.repeat(groups[test, 0], x.shape[1]))
            note_people(context, SMNI, name, "correlation with other trials", by_person, part="denoising", form=form)
        decode_match(context, vae, model, x, groups, train, test)


def by_person_and_condition(
    x: Float[np.ndarray, "trials c t"], subject: Int[np.ndarray, " trials"], condition: Int[np.ndarray, " trials"]
) -> tuple[Float[np.ndarray, "groups each c t"], Int[np.ndarray, "groups 2"]]:
    """Equally many trials of every person and condition, and who and which."""
    groups = np.unique(np.stack([subject, condition], axis=1), axis=0)
    rows = [np.flatnonzero((subject == s) & (condition == c)) for s, c in groups]
    least = min(map(len, rows))
    return np.stack([x[r[:least]] for r in rows]), groups


def trial_denoisers(
    config: Config, context: Context, x: np.ndarray, kept: list[np.ndarray]
) -> tuple[eeg.BetaVae, Params]:
    """A denoiser per fold: averages of few trials in, of all of them out."""
    vae = eeg.BetaVae(x.shape[2], x.shape[3], config.latents, config.features, config.hidden)
    single = jnp.asarray(np.stack([x[rows] for rows in kept]))
    learner = eeg.vae_learner(vae, optax.adam(config.learning_rate))
    learner = with_sampler(learner, eeg.bootstrap_sampler(config.batch_size // 2), eeg.BATCH_AXES)
    data = eeg.Trials(single, single.mean(2), jnp.full(len(kept), config.real_beta))
    state = fit(
        replicate_seeds(learner, len(kept), 0), data, key=jax.random.key(12), steps=config.real_steps, chunk=20,
        workdir=context.workdir / "smni", progress=context.progress("denoisers of single trials"),
    ).state  # fmt: skip
    return vae, state.params


@functools.partial(jax.jit, static_argnums=0)
def _means(vae: eeg.BetaVae, params: Params, x):
    posterior: Any = vae.apply(params, x, method="encode")
    return posterior.mean


def decode_match(context: Context, vae, model: Params, x: np.ndarray, groups: np.ndarray, train, test) -> None:
    """Whether the second picture matched the first, from single trials of held-out people."""

    def rows(chosen):
        chosen = chosen[groups[chosen, 1] > 0]
        labels, people = np.repeat(groups[chosen, 1] - 1, x.shape[1]), np.repeat(groups[chosen, 0], x.shape[1])
        return x[chosen].reshape(-1, *x.shape[2:]), labels, people

    (a, y, _), (b, truth, person) = rows(train), rows(test)
    flat_a, flat_b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    for name, (one, other) in {
        "beta-VAE-10 + LR": (np.asarray(_means(vae, model, a), float), np.asarray(_means(vae, model, b), float)),
        "PCA-30 + LR": baselines.pca(flat_a, flat_b, min(30, len(flat_a))),
    }.items():
        guess = baselines.predicted("LR", one, y, other)
        found = {p: balanced_accuracy_score(truth[person == p], guess[person == p]) for p in np.unique(person).tolist()}
        note_people(context, SMNI, name, "balanced accuracy", found)
