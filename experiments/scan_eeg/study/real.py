"""Public recordings: people, conditions and single trials, always with held-out people."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold, StratifiedKFold

from core.datasets import erp
from core.fit import fit
from core.learner import Params, replicate_seeds, with_sampler
from experiments.lab import Context, Place
from experiments.scan_eeg.config import SMNI, STOP, UCI, Config
from experiments.scan_eeg.study.pool import one, reconstructed
from latent import scan_eeg as eeg
from latent.scan_eeg import classifiers

CHANNELS = ("FZ", "PZ", "OZ")
"""CZ was close to the recording reference."""
WINDOWS = ((8, 16), (16, 24), (24, 40), (40, 64))
"""In bins of 15.6 ms."""
FOLDS = 5


def measures(context: Context) -> dict[str, Callable[[Config, Context], None]]:
    """What can be measured with the files that are there, by name."""
    made: dict[erp.Name, Any] = {
        "erp_uci_subject_means": people,
        "erp_smni_train": trials,
        "erp_impulsivity": conditions,
    }
    there = {name: erp.locate(name, context.data_dir) is not None for name in made}
    for name in (name for name in made if not there[name]):
        context.say(f"scan_eeg: {name} is not in the data directory; left out")
    return {str(name): measure for name, measure in made.items() if there[name]}


def where(config: Config, context: Context, name: str) -> dict[str, Any]:
    """How models of all folds are trained."""
    progress = context.progress(f"models of {name}")
    return {"steps": config.real_steps, "workdir": context.workdir / name, "progress": progress}


def codes(config: Config, context: Context, name: str, x: Float[np.ndarray, "n c t"], kept: list[np.ndarray]) -> Any:
    """Posterior means [folds, n, latents] of all recordings under a beta-VAE per set of training rows."""
    return eeg.codes_by_fold(
        jax.random.key(11), _vae(config, x), x, kept, config.real_beta, optax.adam(config.learning_rate),
        batch_size=config.batch_size, **where(config, context, name),
    )  # fmt: skip


def _vae(config: Config, x: np.ndarray) -> eeg.BetaVae:
    channels, time = x.shape[-2:]
    return eeg.BetaVae(channels, time, config.latents, config.features, config.hidden)


def people(config: Config, context: Context) -> None:
    """Alcoholic or control from one average per person: repeated stratified cross-validation."""
    data = erp.subject_means(context.data_dir)
    y, whole = data.alcoholic, data.erp / data.erp.std()
    few = whole[:, [erp.UCI_CHANNELS.index(name) for name in CHANNELS]]
    splits = [
        split
        for repetition in range(config.repetitions)
        for split in StratifiedKFold(FOLDS, shuffle=True, random_state=repetition).split(whole, y)
    ]
    z = codes(config, context, "uci", few, [train for train, _ in splits])
    flat, flat_few = whole.reshape(len(y), -1), few.reshape(len(y), -1)
    three = ", ".join(CHANNELS)

    def features(k: int, train: np.ndarray, test: np.ndarray) -> dict[str, tuple[str, Any, Any]]:
        fixed = {
            f"window means ({three}) + LR": ("LR", windows(few)),
            "window means (64 channels) + LR": ("LR", windows(whole)),
            "250-375 ms means (64 channels) + LR": ("LR", whole[:, :, 16:24].mean(-1)),
            "RBF SVM (64 channels)": ("RBF SVM", flat),
            f"RBF SVM ({three})": ("RBF SVM", flat_few),
            f"beta-VAE-10 ({three}) + LR": ("LR", z[k]),
        }
        tangent = classifiers.tangent_space(whole[train], y[train], whole[test])
        return {name: (classifier, x[train], x[test]) for name, (classifier, x) in fixed.items()} | {
            "PCA-10 (64 channels) + LR": ("LR", *classifiers.pca(flat[train], flat[test])),
            f"PCA-10 ({three}) + LR": ("LR", *classifiers.pca(flat_few[train], flat_few[test])),
            "tangent space (64 channels) + LR": ("LR", *tangent),
        }

    hits: dict[str, np.ndarray] = {}
    for k, (train, test) in enumerate(splits):
        for name, (classifier, a, b) in features(k, train, test).items():
            found = hits.setdefault(name, np.zeros((config.repetitions, len(y))))
            found[k // FOLDS, test] = classifiers.predicted(classifier, a, y[train], b) == y[test]
    for name, found in hits.items():
        at = context.at(dataset=UCI, method=name)
        note_people(at, "balanced accuracy", dict(enumerate(found.mean(0))), y)


def windows(x: Float[np.ndarray, "n c 64"]) -> Float[np.ndarray, "n features"]:
    """Mean amplitudes in all windows."""
    return np.concatenate([x[:, :, a:b].mean(-1) for a, b in WINDOWS], axis=1)


def note_people(at: Place, metric: str, by_person: Mapping[int, float], classes: Any = None) -> None:
    """A number of each held-out person: people are repeated, not folds nor repetitions of a cross-validation."""
    for person, value in by_person.items():
        place = {} if classes is None else {"class": int(classes[person])}
        at.record(metric, value, seed=0, person=int(person), **place)


def conditions(config: Config, context: Context) -> None:
    """Failed or successful stop, from one average each of held-out people, so that a person's accuracy is balanced."""
    data = erp.stop_signal(context.data_dir)
    count, wanted, measured = len(data.erp), np.linspace(0, 1000, 256), np.linspace(0, 1000, 501)
    x = np.apply_along_axis(lambda row: np.interp(wanted, measured, row), -1, data.erp).astype(np.float32)
    x = x.reshape(2 * count, 3, 256) / x.std()
    y, person = np.tile([0, 1], count), np.repeat(np.arange(count), 2)
    splits = list(GroupKFold(FOLDS).split(x, y, person))
    z = codes(config, context, "stop_signal", x, [train for train, _ in splits])
    flat = x.reshape(2 * count, -1)
    for k, (train, test) in enumerate(splits):
        pca = classifiers.pca(flat[train], flat[test], 5)
        for name, (a, b) in {"beta-VAE-10 + LR": (z[k][train], z[k][test]), "PCA-5 + LR": pca}.items():
            hits = classifiers.predicted("LR", a, y[train], b) == y[test]
            at = context.at(dataset=STOP, method=name)
            note_people(at, "balanced accuracy", eeg.means_by_person(hits, person[test]))


def trials(config: Config, context: Context) -> None:
    """Denoising of single trials against the same person's other trials, and match or no match from them."""
    data = erp.single_trials(context.data_dir)
    x = data.x - data.x.mean(-1, keepdims=True)
    x, groups = eeg.by_person_and_condition(x / x.std(), data.subject, data.condition)
    splits = list(GroupKFold(FOLDS).split(x, groups=groups[:, 0]))
    vae, kept = _vae(config, x), jnp.asarray(np.stack([x[rows] for rows, _ in splits]))
    learner = eeg.vae_learner(vae, optax.adam(config.learning_rate))
    learner = with_sampler(learner, eeg.bootstrap_sampler(config.batch_size // 2), eeg.BATCH_AXES)
    denoised = eeg.Trials(kept, kept.mean(2), jnp.full(FOLDS, config.real_beta))
    many, key = replicate_seeds(learner, FOLDS, 0), jax.random.key(12)
    params = fit(many, denoised, key=key, chunk=20, **where(config, context, "smni")).state.params
    for k, (rows, test) in enumerate(splits):
        model, single = one(params, k), x[test].reshape(-1, *x.shape[2:])
        others = (x[test].sum(1, keepdims=True) - x[test]).reshape(single.shape) / (x.shape[1] - 1)
        methods = {
            "none": single,
            "PCA-10": classifiers.pca_projection(x[rows].reshape(-1, *x.shape[2:]), single),
            "beta-VAE, few trials to ERP": np.asarray(reconstructed(vae, model, single)),
        }
        for name, y in methods.items():
            for form, mean in (("whole", 0), ("less grand mean", x[rows].mean((0, 1)))):
                found = np.asarray(eeg.waveform_correlation(jnp.asarray(y - mean), jnp.asarray(others - mean)))
                at = context.at(dataset=SMNI, method=name, part="denoising", form=form)
                by_person = eeg.means_by_person(found, np.repeat(groups[test, 0], x.shape[1]))
                note_people(at, "correlation with other trials", by_person)
        encode = functools.partial(_means, vae, model)
        decode_match(context, encode, *(select_match(x, groups, chosen) for chosen in (rows, test)))


def select_match(x: np.ndarray, groups: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Single trials of second pictures, whether they did not match the first, and whose they are."""
    chosen = chosen[groups[chosen, 1] > 0]
    labels, who = np.repeat(groups[chosen, 1] - 1, x.shape[1]), np.repeat(groups[chosen, 0], x.shape[1])
    return x[chosen].reshape(-1, *x.shape[2:]), labels, who


def decode_match(context: Context, encode: Callable[[np.ndarray], Any], learned: Any, asked: Any) -> None:
    """Whether the second picture matched the first, from single trials of held-out people."""
    (a, y, _), (b, truth, person) = learned, asked
    flat_a, flat_b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    for name, (train, test) in {
        "beta-VAE-10 + LR": (np.asarray(encode(a), float), np.asarray(encode(b), float)),
        "PCA-30 + LR": classifiers.pca(flat_a, flat_b, min(30, len(flat_a))),
    }.items():
        guess = classifiers.predicted("LR", train, y, test)
        found = {p: balanced_accuracy_score(truth[person == p], guess[person == p]) for p in np.unique(person).tolist()}
        note_people(context.at(dataset=SMNI, method=name), "balanced accuracy", found)


@functools.partial(jax.jit, static_argnums=0)
def _means(vae: eeg.BetaVae, params: Params, x) -> Any:
    posterior: Any = vae.apply(params, x, method="encode")
    return posterior.mean
