"""Sparse autoencoders as one family: variants beside each other on planted features and inside a language model.

Sources: TopK and AuxK (Gao et al. 2024, 2406.04093), ReLU with L1 (Bricken et al. 2023), Gated (2404.16014), JumpReLU
(2407.14435), BatchTopK (2412.06410), Matryoshka (2503.17547), transcoders (2501.18823). Not one paper: the ground on
which the studies of features stand. What can be said exactly is said by tests; this experiment measures the rest.
Claim: TopK finds planted features that ReLU with L1 at equal sparsity misses or shrinks.
Command: ``relic run sae_family --preset small --seeds 3``.
Cost: smoke under a minute on 2 CPU cores; small about ten minutes, its last part with data/tinyshakespeare.
Expect: TopK at k = 6 with a mean best cosine of .98 to 128 planted features in 32 dimensions.

Seeds share one planted dictionary and differ in their start and in the examples that they see.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from core.batches import epoch_sampler
from core.bench import first_call
from core.datasets import shakespeare
from core.fit import fit
from core.learner import gradient_learner, replicate_seeds, seed_keys, with_sampler
from core.lm import Decoder, DecoderConfig, logits_from, residual, token_losses
from core.loop import scan_steps
from core.sparse import combine
from experiments.frames import groups, interval, select
from experiments.sae_claims import CLAIMS
from experiments.sae_figures import figures
from experiments.system import Context, Published, System
from interp import sae

Row = Mapping[str, Any]
Make = Callable[[Row], sae.Variant]
Part = Callable[["Config", Context, list[int]], None]


@dataclasses.dataclass(frozen=True)
class Config:
    """Planted features, a sweep over sparsity, dead latents, a decoder's residual stream, and times."""

    features: int = 128
    d: int = 32
    latents: int = 256
    k: int = 6
    batch_size: int = 512
    steps: int = 3_000
    learning_rate: float = 3e-3
    """Adam's, decaying linearly to 0."""
    dead_after: int = 50_000
    examples: int = 16_384
    """Fresh examples on which all is measured."""
    sweep_steps: int = 800
    sweep_batch: int = 256
    ks: tuple[int, ...] = (3, 6, 12, 24)
    l1s: tuple[float, ...] = (0.1, 0.2, 0.3, 0.36, 0.42, 0.5)
    """Of ReLU with L1 and of gates."""
    l0s: tuple[float, ...] = (0.003, 0.01, 0.03, 0.06)
    """Weights of JumpReLU's penalty on L0."""
    wide: int = 2_048
    """Latents where many of them die."""
    wide_rate: float = 1e-2
    wide_steps: int = 3_000
    lm_steps: int = 300
    lm_width: int = 64
    lm_sequences: int = 1_024
    """Of 64 characters: those whose residual stream is stored."""
    real_steps: int = 400
    real_latents: tuple[int, ...] = (128, 256, 512)
    real_ks: tuple[int, ...] = (4, 8, 16, 32)
    repeats: int = 7


PRESETS = {
    "smoke": Config(steps=300, examples=2_048, sweep_steps=60, ks=(3, 12), l1s=(0.03, 0.14), l0s=(0.01,), wide=512,
                    wide_steps=60, lm_steps=0, repeats=2),
    "small": Config(),
    "paper": Config(steps=20_000, batch_size=2_048, sweep_steps=20_000, sweep_batch=2_048, examples=131_072,
                    wide=16_384, wide_steps=10_000, lm_steps=20_000, lm_width=256, lm_sequences=16_384,
                    real_steps=20_000, real_latents=(512, 2_048, 8_192, 32_768), real_ks=(8, 16, 32, 64), repeats=15),
}  # fmt: skip

PUBLISHED: tuple[Published, ...] = ()
"""The papers measure models that are not at hand; no figure of theirs is comparable."""


def run(config: Config, context: Context) -> None:
    """Every part over all seeds that it still lacks; cells which a rerun skips."""
    if not context.done(part="cost"):
        context.say("sae_family: cost")
        cost(config, context)
        context.finish(part="cost")
    parts: dict[str, Part] = {f"planted {name}": planted_part(name) for name in planted_methods(config)}
    parts["dead"] = dead_latents
    if config.lm_steps and shakespeare.locate(context.data_dir):
        parts["real"] = language_model
    elif config.lm_steps:
        context.say("sae_family: no tinyshakespeare in the data directory, so nothing on a language model")
    parts |= {f"sweep {name}": sweep_part(name) for name in sweep_methods(config)}
    for name, part in parts.items():
        missing = [seed for seed in context.seeds if not context.done(part=name, seed=seed)]
        if missing:
            context.say(f"sae_family: {name}, seeds {missing}")
            part(config, context, missing)
            for seed in missing:
                context.finish(part=name, seed=seed)


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


def note(context: Context, quality: sae.Quality, best: np.ndarray | None, *, seed: int, at: tuple[int, int],
         dataset: str, method: str, **coords: Any) -> None:  # fmt: skip
    """Records of one dictionary."""
    named: dict[str, Any] = {n: getattr(quality, n)[at] for n in ("fvu", "nmse", "l0", "dead", "shrinkage")}
    if best is not None:
        named |= {"mean max cosine": best[at].mean(), "features above .9": (best[at] > 0.9).mean()}
    for metric, value in named.items():
        context.record(dataset=dataset, method=method, metric=metric, seed=seed, value=float(value), **coords)


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
    random = jax.random.normal(jax.random.fold_in(jax.random.key(seed), 0xD1C7), mine.shape)  # not the features' key
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
    world = world_of(config)
    for method, aux in (("TopK", None), ("TopK, AuxK", sae.Aux(dead_after=config.dead_after // 5))):
        rows = {"knob": np.array([config.k], np.int32)}

        def make(row):
            return sae.topk(config.k)

        params = train(
            make, rows, world, sae.sampler(config.sweep_batch), latents=config.wide, steps=config.wide_steps,
            rate=config.wide_rate, seeds=seeds, context=context, name=f"dead {method}", aux=aux,
        )  # fmt: skip
        quality, best = measured(make, rows, params, fresh(config)), recovery(world, params["W_d"])
        for i, seed in enumerate(seeds):
            note(context, quality, best, seed=seed, at=(i, 0), dataset="planted, wide", method=method, part="dead")


def language_model(config: Config, context: Context, seeds: list[int]) -> None:
    """Dictionaries of a decoder's residual stream over m and k, and the model's loss with one spliced in."""
    text = np.asarray(shakespeare.load(context.data_dir), np.int32)
    model, params = small_decoder(config, context, text)
    layer = model.config.layers // 2
    sequences = text[: config.lm_sequences * 64].reshape(-1, 64)
    streams = jax.jit(lambda params, tokens: residual(model, params, tokens, layer))(params, sequences)
    x = streams[:, 1:].reshape(-1, config.lm_width)  # the first position is an outlier in most decoders
    held_out = text[-256 * 65 :].reshape(-1, 65)

    def make(row):
        return sae.topk(row["knob"], max(config.real_ks))

    rows = {"knob": np.array(config.real_ks, np.int32)}
    splice = jax.jit(jax.vmap(jax.vmap(
        lambda row, one: spliced_loss(model, params, held_out, layer, lambda h: sae.reconstruct(make(row), one, h))
    ), in_axes=(None, 0)))  # fmt: skip
    clean, zeroed = (
        float(spliced_loss(model, params, held_out, layer, replace)) for replace in (lambda h: h, jnp.zeros_like)
    )
    for m in config.real_latents:
        trained = train(
            make, rows, x, epoch_sampler(config.sweep_batch), latents=m, steps=config.real_steps,
            rate=config.learning_rate / 3, seeds=seeds, context=context, name=f"real {m}",
        )  # fmt: skip
        quality = measured(make, rows, trained, x[:: max(1, len(x) // config.examples)])
        losses = np.asarray(splice(rows, trained))
        for i, seed in enumerate(seeds):
            for j, k in enumerate(config.real_ks):
                place = {"dataset": "decoder", "method": "TopK", "part": "real", "m": m, "k": k}
                note(context, quality, None, seed=seed, at=(i, j), **place)
                recovered = sae.loss_recovered(clean, losses[i, j], zeroed)
                context.record(metric="loss recovered", seed=seed, value=float(recovered), **place)


def small_decoder(config: Config, context: Context, text: np.ndarray) -> tuple[Decoder, Any]:
    """A decoder of characters, trained briefly."""
    model = Decoder(DecoderConfig(256, config.lm_width, layers=2, heads=4, max_length=64))

    def sample(text, key, step):
        starts = jax.random.randint(jax.random.fold_in(key, step), (16,), 0, len(text) - 64)
        return text[starts[:, None] + jnp.arange(65)]

    def loss(params, key, tokens):
        return token_losses(model, params, tokens[:, :-1], tokens[:, 1:]).mean(), {}

    learner = gradient_learner(lambda key, b: model.init(key, b[:, :-1])["params"], loss, optax.adam(3e-3))
    done = fit(
        with_sampler(learner, sample), jnp.asarray(text), key=jax.random.key(0), steps=config.lm_steps,
        workdir=context.workdir / "decoder", progress=context.progress("decoder"),
    )  # fmt: skip
    return model, done.state.params


def spliced_loss(model: Decoder, params: Any, tokens: Any, layer: int, replace: Callable[[jax.Array], jax.Array]):
    """Mean loss of the next character where the residual stream is replaced, at all positions but the first."""
    h = residual(model, params, tokens[:, :-1], layer)
    new = replace(h[:, 1:].reshape(-1, h.shape[-1])).reshape(h[:, 1:].shape)
    logits = logits_from(model, params, jnp.concatenate([h[:, :1], new], axis=1), layer)
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


def cost(config: Config, context: Context) -> None:
    """Milliseconds of decoding over m and k, and of eight small dictionaries together and one after another."""
    b, d, key = 512, 64, jax.random.key(0)
    decode = jax.jit(combine)
    sizes = [(m, 32) for m in (16_384, 65_536, 262_144)] + [(65_536, k) for k in (8, 128)]
    arguments = {}
    for m, k in sizes:
        indices = jax.random.randint(key, (b, k), 0, m)
        arguments[m, k] = jax.random.normal(key, (b, k)), indices, jax.random.normal(key, (m, d))
        first_call(lambda m=m, k=k: decode(*arguments[m, k]))
    seconds = {size: [] for size in sizes}
    for _ in range(config.repeats):
        for size in sizes:
            seconds[size].append(first_call(lambda size=size: [decode(*arguments[size]) for _ in range(5)]) / 5)
    for (m, k), times in seconds.items():
        context.record(dataset="cost", method="decode", metric="milliseconds", seed=0, value=1e3 * float(np.min(times)),
                       part="cost", m=m, k=k)  # fmt: skip
    for method, value in eight_dictionaries(config).items():
        context.record(dataset="cost", method=method, metric="milliseconds", seed=0, value=value, part="cost")


def eight_dictionaries(config: Config, runs: int = 8, steps: int = 20) -> dict[str, float]:
    """A step of eight dictionaries of 64 latents, batch 64, by vmap and one by one."""
    world = world_of(config)
    one = with_sampler(sae.sae_learner(sae.topk(4), 64, optax.adam(1e-3)), sae.sampler(64))
    programs, states = {}, {}
    for name, learner, key in (
        ("eight by vmap", replicate_seeds(one, runs), seed_keys(range(runs))), ("one", one, jax.random.key(0)),
    ):  # fmt: skip
        states[name] = learner.init(key, world)
        programs[name] = jax.jit(scan_steps(learner, steps).update)
        first_call(lambda name=name: programs[name](states[name], world))
    times: dict[str, list[float]] = {"eight by vmap": [], "eight one by one": []}
    for _ in range(config.repeats):
        times["eight by vmap"].append(first_call(lambda: programs["eight by vmap"](states["eight by vmap"], world)))
        start = time.perf_counter()
        for _ in range(runs):
            jax.block_until_ready(programs["one"](states["one"], world))
        times["eight one by one"].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.min(values)) / steps for name, values in times.items()}


TABLE = {"fvu": 4, "l0": 2, "mean max cosine": 3, "features above .9": 3, "dead": 3, "shrinkage": 3}


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Variants at one sparsity, the sweep, dead latents, the language model; means with intervals over seeds."""
    out = {}
    for title, dataset, keys in (
        ("Planted features, k = 6", "planted", ("method",)),
        ("Planted features over sparsity", "planted sweep", ("method", "knob")),
        ("A wide dictionary at a large learning rate", "planted, wide", ("method",)),
        ("Residual stream of a small decoder", "decoder", ("m", "k")),
    ):
        rows = []
        for key, part in groups(select(frame, dataset=dataset), *keys):
            cells: dict[str, Any] = dict(zip(keys, key, strict=True))
            for metric, digits in {**TABLE, "loss recovered": 3}.items():
                numbers = select(part, metric=metric)["value"].to_numpy()
                if len(numbers):
                    cells[metric] = interval(numbers, digits)
            rows.append(cells)
        if rows:
            out[title] = pd.DataFrame(rows).fillna("–")
    timed = select(frame, dataset="cost")
    if len(timed):
        columns = [name for name in ("method", "m", "k", "value") if name in timed]
        out["Cost, milliseconds"] = timed.loc[:, columns].round(3).fillna("–").reset_index(drop=True)
    return out


SYSTEM = System(
    slug="sae_family",
    title="Sparse autoencoders and transcoders",
    family="interp",
    paper="the ground of several studies; sources in interp/sae",
    presets=PRESETS,
    run=run,
    published=PUBLISHED,
    claims=CLAIMS,
    metrics=(),
    tables=tables,
    figures=figures,
    data=("tinyshakespeare",),
)
