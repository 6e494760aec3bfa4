"""The planted part of ``scan_eeg``: all seeds, betas and models as one program, and everything measured on them."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from core.batches import epoch_sampler
from core.fit import fit
from core.learner import Params, replicate_seeds, with_sampler
from experiments import scan_eeg_baselines as baselines
from experiments.scan_eeg_settings import Config, at_once
from experiments.system import Context
from latent import scan_eeg as eeg
from latent.scan_eeg import FACTORS, LABELS, Gaussian

DATASET = "simulated"
PLANTED = LABELS[:4]
DISTINCT = 0.1
"""KL above which a latent counts as active, as opposed to merely not collapsed."""


class World(NamedTuple):
    """One seed's people, in units of the training averages' deviation."""

    erp: Float[Array, "people 6 256"]
    single: Float[Array, "people kept 6 256"]
    clean: Float[Array, "people 6 256"]
    labels: Int[Array, "people 5"]
    factors: Float[Array, "people 6"]


class Worlds(NamedTuple):
    """All seeds, stacked along axis 0."""

    train: World
    test: World


def simulate(config: Config, seeds) -> Worlds:
    """People of every seed; those for testing are others."""
    drawn = [_one_world(seed, config.train, config.test, config.trials, config.kept) for seed in seeds]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _one_world(seed, train: int, test: int, trials: int, kept: int) -> Worlds:
    people_key, noise_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), 3))
    people = eeg.draw_people(people_key, train + test)
    recording = eeg.record(noise_key, people, trials, kept)
    _, *rest = eeg.scaled(recording.erp[:train], *recording)
    whole = World(*rest, people.labels(), people.factors)
    return Worlds(
        *(jax.tree.map(lambda leaf, part=part: leaf[part], whole) for part in (slice(train), slice(train, None)))
    )


class Pool(NamedTuple):
    """Trained models, seed after seed: betas, each with its models, then the autoencoder."""

    vae: eeg.BetaVae
    params: Params
    world: np.ndarray
    beta: np.ndarray
    member: np.ndarray
    posterior: Gaussian
    """Of the training people, [models, people, latents]."""
    test: Gaussian
    kl: np.ndarray
    """Mean divergence of every latent, [models, latents]."""

    def of(self, world: int, beta: float | None = None) -> np.ndarray:
        """Numbers of a seed's beta-VAEs, of one beta or all."""
        mask = (self.world == world) & (self.beta > 0 if beta is None else self.beta == beta)
        return np.flatnonzero(mask)


def network(config: Config) -> eeg.BetaVae:
    """The networks of this configuration."""
    return eeg.BetaVae(latents=config.latents, features=config.features, hidden=config.hidden)


def optimiser(config: Config) -> optax.GradientTransformation:
    """Adam, its rate falling to a tenth."""
    return optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps, 0.1))


def train_pool(config: Config, context: Context, worlds: Worlds) -> Pool:
    """All models of all seeds as one program."""
    members = [*itertools.product(config.betas, range(config.models)), (0.0, 0)]
    count = worlds.train.erp.shape[0]
    world = np.repeat(np.arange(count), len(members))
    beta = np.tile([b for b, _ in members], count)
    member = np.tile([m for _, m in members], count)
    vae = network(config)
    grid = eeg.Grid(
        worlds.train.erp, jnp.asarray(world), jnp.asarray(beta, jnp.float32), jnp.asarray(beta > 0, jnp.float32)
    )
    state = fit(
        eeg.grid_learner(vae, optimiser(config), config.batch_size, at_once()), grid,
        key=jax.random.fold_in(jax.random.key(context.seeds[0]), 5), steps=config.steps, chunk=20,
        workdir=context.workdir / "pool", progress=context.progress("pool of beta-VAEs"),
    ).state  # fmt: skip
    posterior, test = (encoded(vae, state.params, x, grid.world) for x in (worlds.train.erp, worlds.test.erp))
    kl = np.asarray(eeg.kl_to_prior(posterior).mean(1))
    return Pool(vae, state.params, world, beta, member, posterior, test, kl)


@functools.partial(jax.jit, static_argnums=0)
def encoded(vae: eeg.BetaVae, params: Params, recordings: Float[Array, "worlds n c t"], world) -> Gaussian:
    """q(z|x) of every model's own recordings."""
    return jax.lax.map(lambda each: vae.apply(each[0], recordings[each[1]], method="encode"), (params, world))


@functools.partial(jax.jit, static_argnums=0)
def reconstructed(vae: eeg.BetaVae, params: Params, x: Float[Array, "n c t"]) -> Float[Array, "n c t"]:
    """What one model decodes from the posterior means."""
    posterior: Any = vae.apply(params, x, method="encode")
    decoded: Any = vae.apply(params, posterior.mean, method="decode")
    return decoded


def one(tree: Any, index: int) -> Any:
    """A slice of every leaf."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


# --- classification ---------------------------------------------------------------------------------------------------


def label_accuracies(classifier: str, train, test, worlds: Worlds, w: int) -> dict[str, float]:
    """Balanced accuracy of every label from features."""
    labels, test_labels = np.asarray(worlds.train.labels[w]), np.asarray(worlds.test.labels[w])
    train, test = np.asarray(train, np.float64), np.asarray(test, np.float64)
    return {
        name: baselines.accuracy(classifier, train, labels[:, i], test, test_labels[:, i])
        for i, name in enumerate(LABELS)
    }


def hand_made(worlds: Worlds, w: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Features of the baselines by name."""
    x, y = worlds.train.erp[w], worlds.test.erp[w]
    flat, test = (np.asarray(part.reshape(part.shape[0], -1), np.float64) for part in (x, y))
    made = {
        "LPP difference": eeg.lpp_difference,
        "LPP means": lambda part: eeg.window_means(part, 400, 772),
        "components": eeg.components,
    }
    features = {name: (np.asarray(fn(x)), np.asarray(fn(y))) for name, fn in made.items()}
    return features | {"PCA-10": baselines.pca(flat, test), "ICA-10": baselines.ica(flat, test), "raw": (flat, test)}


def classification(config: Config, context: Context, worlds: Worlds, pool: Pool) -> np.ndarray:
    """The main table; returns every model's accuracies with logistic regression, [models, labels]."""
    found = np.zeros((len(pool.beta), len(LABELS)))
    for w, seed in enumerate(context.seeds):
        context.say(f"scan_eeg: classifiers, seed {seed}")

        def note(method: str, values: dict[str, float], seed=seed) -> None:
            for label, value in values.items():
                context.record(dataset=DATASET, method=method, metric=label, seed=seed, value=value)

        for name, (train, test) in hand_made(worlds, w).items():
            note(f"{name} + LR", label_accuracies("LR", train, test, worlds, w))
        for i in np.flatnonzero(pool.world == w):
            values = label_accuracies("LR", pool.posterior.mean[i], pool.test.mean[i], worlds, w)
            found[i] = [values[label] for label in LABELS]
            if pool.beta[i] == 0:
                note("autoencoder + LR", values)
        chosen = pool.of(w, config.reference_beta)
        note("beta-VAE + LR", dict(zip(LABELS, found[chosen].mean(0), strict=True)))
        for classifier in [name for name in baselines.CLASSIFIERS if name != "LR"]:
            train, test = pool.posterior.mean[chosen[0]], pool.test.mean[chosen[0]]
            note(f"beta-VAE + {classifier}", label_accuracies(classifier, train, test, worlds, w))
    for seed, values in zip(context.seeds, supervised(config, context, worlds), strict=True):
        for label, value in zip(LABELS, values, strict=True):
            context.record(dataset=DATASET, method="supervised network", metric=label, seed=seed, value=float(value))
    return found


def supervised(config: Config, context: Context, worlds: Worlds) -> np.ndarray:
    """[seeds, labels]: balanced accuracies of the encoder's network trained on the labels."""
    module = eeg.Encoder(len(LABELS), config.features, config.hidden)
    seeds = worlds.train.erp.shape[0]
    learner = with_sampler(eeg.supervised_learner(module, optimiser(config)), epoch_sampler(config.batch_size))
    data = eeg.Labelled(worlds.train.erp, worlds.train.labels, jax.vmap(eeg.balanced_weight)(worlds.train.labels))
    state = fit(
        replicate_seeds(learner, seeds, 0), data, key=jax.random.fold_in(jax.random.key(context.seeds[0]), 6),
        steps=config.steps, chunk=20, workdir=context.workdir / "supervised",
        progress=context.progress("supervised networks"),
    ).state  # fmt: skip

    @jax.jit
    @jax.vmap
    def accuracies(params, test: World):
        guess = (module.apply(params, test.erp) > 0).astype(jnp.int32)
        return jax.vmap(eeg.balanced_accuracy, in_axes=(1, 1, None))(test.labels, guess, 2)

    return np.asarray(accuracies(state.params, worlds.test))


# --- disentanglement and selection ------------------------------------------------------------------------------------


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
            context.record(
                dataset=DATASET,
                method="beta-VAE by UDR",
                metric=metric,
                seed=seed,
                value=float(value),
                part="selection",
            )


def select_by_udr(scores: np.ndarray, betas: np.ndarray) -> int:
    """The best model of the beta with the highest median score."""
    best = max(np.unique(betas), key=lambda beta: float(np.median(scores[betas == beta])))
    return int(np.argmax(np.where(betas == best, scores, -np.inf)))


def strongest_correlations(pool: Pool, worlds: Worlds, w: int, i: int) -> np.ndarray:
    """Of each factor with any active latent, in absolute value."""
    found = np.abs(np.asarray(_correlations(pool.test.mean[i], worlds.test.factors[w])))
    return np.where((pool.kl[i] > DISTINCT)[:, None], found, 0).max(0)


def best_latent(pool: Pool, worlds: Worlds, w: int, i: int, column: int) -> float:
    """Balanced accuracy of a label by one latent."""
    train, test = worlds.train.labels[w, :, column], worlds.test.labels[w, :, column]
    return float(_single(pool.posterior.mean[i], train, pool.test.mean[i], test))


_single = jax.jit(eeg.single_latent_accuracy)
_correlations = jax.jit(eeg.correlations)
_waveform_correlation = jax.jit(eeg.waveform_correlation)
_udr = jax.jit(eeg.udr, static_argnums=2)


# --- denoising --------------------------------------------------------------------------------------------------------


def denoising(config: Config, context: Context, worlds: Worlds, pool: Pool) -> None:
    """Correlations with the clean ERP before and after, whole and less the grand mean."""
    trained = train_denoisers(config, context, worlds)
    for w, seed in enumerate(context.seeds):
        index = pool.of(w, config.reference_beta)[0]
        test, grand = one(worlds.test, w), worlds.train.erp[w].mean(0)
        flat = np.asarray(worlds.train.erp[w]).reshape(config.train, -1)
        methods = {
            "none": lambda x: x,
            "PCA-10": lambda x, flat=flat: jnp.asarray(
                baselines.pca_projection(flat, np.asarray(x).reshape(len(x), -1)).reshape(x.shape)
            ),
            "beta-VAE": functools.partial(reconstructed, pool.vae, one(pool.params, index)),
            "beta-VAE, few trials to ERP": functools.partial(reconstructed, pool.vae, one(trained, w)),
        }
        for (source, x), (method, fn) in itertools.product(
            {"single trial": test.single[:, 0], "ERP": test.erp}.items(), methods.items()
        ):
            y = fn(x)
            for form, value in (
                ("whole", _waveform_correlation(y, test.clean)),
                ("less grand mean", _waveform_correlation(y - grand, test.clean - grand)),
            ):
                context.record(
                    dataset=DATASET, method=method, metric="correlation with clean", seed=seed,
                    value=float(value.mean()), part="denoising", source=source, form=form,
                )  # fmt: skip
            if w == 0 and source == "single trial":
                curve(context, "waveform", method, y[0], seed)
        if w == 0:
            curve(context, "waveform", "clean", test.clean[0], seed)


def train_denoisers(config: Config, context: Context, worlds: Worlds) -> Params:
    """One per seed: averages of few trials in, of all trials out."""
    seeds = worlds.train.erp.shape[0]
    learner = eeg.vae_learner(network(config), optimiser(config))
    learner = with_sampler(learner, eeg.bootstrap_sampler(config.batch_size), eeg.BATCH_AXES)
    data = eeg.Trials(worlds.train.single, worlds.train.erp, jnp.full(seeds, config.reference_beta))
    return fit(
        replicate_seeds(learner, seeds, 0), data, key=jax.random.fold_in(jax.random.key(context.seeds[0]), 7),
        steps=config.steps, chunk=20, workdir=context.workdir / "denoisers", progress=context.progress("denoisers"),
    ).state.params  # fmt: skip


def curve(context: Context, metric: str, method: str, x: Float[Array, "6 256"], seed: int, **place) -> None:
    """Every fourth sample at Pz in both conditions, for a figure."""
    for condition, row in zip(eeg.CONDITIONS, np.asarray(x)[[2, 5]], strict=True):
        for t, value in zip(np.asarray(eeg.TIMES)[::4], row[::4], strict=True):
            context.record(
                dataset=DATASET, method=method, metric=metric, seed=seed, value=float(value), part="curves",
                condition=condition, t=float(t), **place,
            )  # fmt: skip


# --- concepts ---------------------------------------------------------------------------------------------------------


def train_scans(config: Config, context: Context, worlds: Worlds, pool: Pool) -> tuple[eeg.SymbolVae, Params]:
    """A SCAN for every model of the pool, as one program."""
    scan = eeg.SymbolVae(2 * len(LABELS), config.latents)
    learner = eeg.scan_learner(scan, optax.adam(config.scan_rate), beta_y=config.beta_y, lam=config.lam)
    many = replicate_seeds(with_sampler(learner, epoch_sampler(config.scan_batch)), len(pool.beta), 0)
    data = eeg.Grounded(pool.posterior, worlds.train.labels[pool.world])
    state = fit(
        many, data, key=jax.random.fold_in(jax.random.key(context.seeds[0]), 8), steps=config.scan_steps, chunk=200,
        workdir=context.workdir / "scan", progress=context.progress("SCANs"),
    ).state  # fmt: skip
    return scan, state.params


def concepts(config: Config, context: Context, worlds: Worlds, pool: Pool) -> None:
    """What SCAN classifies, which latents it takes for markers, prototypes, and recombinations."""
    scan, params = train_scans(config, context, worlds, pool)
    encode = jax.jit(lambda p, y: scan.apply(p, y, method="encode"))
    decode = jax.jit(lambda p, z: scan.apply(p, z, method="decode"))
    for w, seed in enumerate(context.seeds):
        truth = np.asarray(worlds.test.labels[w])
        classified = []
        for i in pool.of(w):
            odds = eeg.classify(functools.partial(decode, one(params, i)), pool.test.mean[i])
            strength = eeg.marker_strength(functools.partial(encode, one(params, i)), len(LABELS))
            if pool.beta[i] == config.reference_beta:
                guess = (odds > 0).astype(jnp.int32)
                classified.append(
                    [float(eeg.balanced_accuracy(truth[:, k], guess[:, k], 2)) for k in range(len(LABELS))]
                )
            markers(context, pool, worlds, w, i, np.asarray(strength), seed)
        for label, value in zip(LABELS, np.mean(classified, axis=0), strict=True):
            context.record(dataset=DATASET, method="SCAN", metric=label, seed=seed, value=float(value))
    shown = int(pool.of(0, config.reference_beta)[0])
    picture(context, pool, shown, functools.partial(encode, one(params, shown)), context.seeds[0])
    recombinations(config, context, worlds, pool, scan, params)


def markers(context: Context, pool: Pool, worlds: Worlds, w: int, i: int, strength: np.ndarray, seed: int) -> None:
    """Whether the latent that naming a label moves most is the one which carries its planted factor."""
    active = pool.kl[i] > DISTINCT
    correlation = np.abs(np.asarray(_correlations(pool.test.mean[i], worlds.test.factors[w])))
    place = {"part": "markers", "beta": float(pool.beta[i]), "member": int(pool.member[i])}
    ranked = np.where(active[None], strength, -1)
    for label, factor in (
        ("age", "N1 latency"), ("sex", "N1 amplitude"), ("anxiety", "P2 amplitude"), ("depression", "LPP amplitude")
    ):  # fmt: skip
        moved = ranked[LABELS.index(label)]
        carrier = int(np.argmax(np.where(active, correlation[:, FACTORS.index(factor)], -1)))
        for metric, value in (
            ("marker is carrier", float(np.argmax(moved) == carrier)),
            ("carrier in top two", float(carrier in np.argsort(-moved)[:2])),
        ):
            context.record(dataset=DATASET, method="SCAN", metric=f"{metric}: {label}", seed=seed, value=value, **place)
    largest = float(np.where(active, strength[LABELS.index("random")], 0).max())
    context.record(
        dataset=DATASET, method="SCAN", metric="largest difference: random", seed=seed, value=largest, **place
    )
    if w == 0 and i == int(pool.of(0)[0] if place["beta"] == 0 else pool.of(0, place["beta"])[0]):
        for latent in range(strength.shape[1]):
            at = {"part": "latents", "beta": place["beta"], "latent": latent}
            context.record(dataset=DATASET, method="beta-VAE", metric="latent KL", seed=seed,
                           value=float(pool.kl[i][latent]), **at)  # fmt: skip
            signed = _correlations(pool.test.mean[i], worlds.test.factors[w])[latent]
            for factor, value in zip(FACTORS, signed, strict=True):
                context.record(dataset=DATASET, method="beta-VAE", metric="correlation", seed=seed, value=float(value),
                               factor=factor, **at)  # fmt: skip
            for label, value in zip(LABELS, strength[:, latent], strict=True):
                context.record(dataset=DATASET, method="SCAN", metric="marker strength", seed=seed, value=float(value),
                               label=label, **at)  # fmt: skip


def picture(context: Context, pool: Pool, index: int, encode, seed: int) -> None:
    """Traversals of the most informative latents, and the prototype ERP of each symbol, of one model."""
    decode = jax.jit(lambda z: pool.vae.apply(one(pool.params, index), z, method="decode"))
    mean, values = pool.posterior.mean[index].mean(0), jnp.linspace(-2.0, 2.0, 5)
    for latent in np.argsort(-pool.kl[index])[:5]:
        for value, x in zip(np.asarray(values), eeg.traversal(decode, mean, int(latent), values), strict=True):
            curve(context, "traversal", "beta-VAE", x, seed, latent=int(latent), at=float(value))
    prototypes = decode(encode(eeg.single_symbols(len(LABELS)).reshape(2 * len(LABELS), -1)).mean)
    for (label, value), x in zip(itertools.product(LABELS, (0, 1)), prototypes, strict=True):
        curve(context, "prototype", "SCAN", x, seed, label=label, at=float(value))


def recombinations(config: Config, context: Context, worlds: Worlds, pool: Pool, scan, params: Params) -> None:
    """How close the operators come to the concept that they should give; beside leaving the first as it is."""
    models = np.concatenate([pool.of(w, config.reference_beta)[:1] for w in range(len(context.seeds))])
    module = eeg.Recombination()

    def encode(p, y) -> Any:
        return scan.apply(p, y, method="encode")

    learner = eeg.recombination_learner(module, encode, optax.adam(2 * config.scan_rate))
    draw = epoch_sampler(config.scan_batch)
    axes = eeg.Instructed(0, None)  # pyright: ignore[reportArgumentType]
    sampled = with_sampler(
        learner, lambda data, key, step: eeg.Instructed(draw(data.grounded, key, step), data.scan), axes
    )
    frozen = jax.tree.map(lambda leaf: leaf[models], params)
    data = eeg.Instructed(one(eeg.Grounded(pool.posterior, worlds.train.labels[pool.world]), models), frozen)
    state = fit(
        replicate_seeds(sampled, len(models), 0), data, key=jax.random.fold_in(jax.random.key(context.seeds[0]), 9),
        steps=config.recombination_steps, chunk=100, workdir=context.workdir / "recombination",
        progress=context.progress("recombination"),
    ).state  # fmt: skip

    @jax.jit
    def measured(operators, p, labels, key):
        drawn = eeg.draw_recombinations(key, labels)
        first, second, result = (encode(p, y) for y in (drawn.first, drawn.second, drawn.result))
        got: Any = module.apply(operators, first, second, drawn.operator)
        return drawn.operator, eeg.kl(result, got).sum(-1), eeg.kl(result, first).sum(-1)

    for w, seed in enumerate(context.seeds):
        operator, *divergences = measured(
            one(state.params, w), one(frozen, w), worlds.test.labels[w], jax.random.key(seed)
        )
        for name, values in zip(("recombination", "first concept"), divergences, strict=True):
            for k, told in enumerate(eeg.OPERATORS):
                value = float(jnp.mean(values, where=operator == k))
                context.record(dataset=DATASET, method=name, metric="divergence from concept", seed=seed, value=value,
                               part="recombination", operator=told)  # fmt: skip
