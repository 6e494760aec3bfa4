"""Dictionaries on planted features and inside a decoder, and what they cost."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.batches import epoch_sampler
from core.bench import first_call
from core.datasets import shakespeare
from core.fit import fit
from core.learner import Stream, gradient_learner, replicate_seeds, seed_keys, stream, with_sampler
from core.lm import Decoder, DecoderConfig, residual, spliced_loss, token_losses
from core.loop import scan_steps
from core.sparse import combine
from experiments.lab import Context, Place
from experiments.sae_family.config import Config
from interp import sae

Extra = Callable[[Config, "Sweep", Place, list[int], sae.Params, sae.Quality], None]
SIZES = (*((m, 32) for m in (16_384, 65_536, 262_144)), *((65_536, k) for k in (8, 128)))
"""m and k of decoding."""
RUNS, STEPS, DECODED = 8, 20, 5
"""Small dictionaries, their steps at once, and calls of decoding at once."""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Dictionaries of one variant, one for each value of a knob; trained as one program."""

    name: str
    place: Mapping[str, Any]
    """Data set, method, part and further coordinates."""
    make: Callable[[Any], sae.Variant]
    """From a value of the knob."""
    knobs: np.ndarray
    named: Callable[[Any], dict[str, Any]]
    """The coordinates of a value of the knob."""
    latents: int
    steps: int
    rate: float
    aux: sae.Aux | None = None
    extra: Extra | None = None
    """Notes more than quality."""

    def variant(self, row: Any) -> sae.Variant:
        """Of a row."""
        return self.make(row["knob"])


def measure(
    config: Config, context: Context, sweep: Sweep, data: Any, sample: Any, x: jax.Array, directions: Any = None
) -> sae.Params:
    """Trains dictionaries [seeds, knobs, ...], which all see the same batches, and notes their quality on fresh x."""
    seeds = [seed for seed in context.seeds if any(cell["seed"] == seed for cell in context.missing)]
    rows, tx = {"knob": sweep.knobs}, optax.adam(optax.linear_schedule(sweep.rate, 0.0, sweep.steps))
    many = sae.sweep(lambda row: sae.sae_learner(sweep.variant(row), sweep.latents, tx, aux=sweep.aux), rows)

    def of_first(data, key, step):
        return sample(data, jnp.ravel(key)[0], jnp.ravel(step)[0])

    folder = f"{sweep.name}-{'-'.join(map(str, seeds))}".replace(" ", "_").replace(",", "")
    params = fit(
        replicate_seeds(with_sampler(many, of_first), len(seeds)), data, key=seed_keys(seeds), steps=sweep.steps,
        chunk=50, workdir=context.workdir / folder, progress=context.progress(sweep.name),
    ).state.params  # fmt: skip
    quality = of_all(sweep, params, lambda variant, one: sae.metrics(variant, one, x, block=2_048))
    for i, seed in enumerate(seeds):
        for j, knob in enumerate(sweep.knobs):
            at = context.at(**sweep.place, seed=seed, **sweep.named(knob))
            at.record_all({name: getattr(quality, name)[i, j] for name in ("fvu", "nmse", "l0", "dead", "shrinkage")})
            if directions is not None:
                best = np.asarray(sae.max_cosines(directions, params["W_d"][i, j]))
                at.record_all({"mean max cosine": best.mean(), "features above .9": (best > 0.9).mean()})
    if sweep.extra:
        sweep.extra(config, sweep, context.at(**sweep.place), seeds, params, quality)
    return params


def of_all(sweep: Sweep, params: sae.Params, fn: Callable[[sae.Variant, sae.Params], Any]) -> Any:
    """A function of every dictionary, [seeds, knobs]."""
    many = jax.vmap(jax.vmap(lambda row, one: fn(sweep.variant(row), one)), in_axes=(None, 0))
    return jax.device_get(jax.jit(many)({"knob": sweep.knobs}, params))


def at_one_sparsity(config: Config) -> dict[str, Sweep]:
    """Variants at one sparsity, trained longest, by part."""
    variants = {
        "TopK": (sae.topk, False, agreement),
        "TopK, AuxK": (sae.topk, True, None),
        "BatchTopK, AuxK": (sae.batch_topk, True, None),
    }
    return {
        (name := f"planted {method}"): Sweep(
            name, {"dataset": "planted", "method": method, "part": name}, lambda _, make=make: make(config.k),
            np.array([config.k], np.int32), lambda k: {"k": int(k)}, config.latents, config.steps,
            config.learning_rate, sae.Aux(dead_after=config.dead_after) if revived else None, extra,
        )
        for method, (make, revived, extra) in variants.items()
    }  # fmt: skip


def over_sparsities(config: Config) -> dict[str, Sweep]:
    """Variants over the knob of their sparsity, by part; none without values of it."""
    k_max, ks = max(config.ks), np.array(config.ks, np.int32)
    l1s, l0s = np.array(config.l1s, np.float32), np.array(config.l0s, np.float32)
    variants: dict[str, tuple[Callable[[Any], sae.Variant], np.ndarray]] = {
        "TopK": (lambda k: sae.topk(k, k_max), ks),
        "ReLU, L1": (sae.relu_l1, l1s),
        "BatchTopK": (sae.batch_topk, ks),
        "Gated": (sae.gated, l1s),
        "JumpReLU": (lambda l0: sae.jumprelu(l0, 0.05, 0.1), l0s),
    }
    return {
        (name := f"sweep {method}"): Sweep(
            name, {"dataset": "planted sweep", "method": method, "part": name}, make, knobs,
            lambda knob: {"knob": float(knob)}, config.latents, config.sweep_steps, config.learning_rate,
        )
        for method, (make, knobs) in variants.items() if len(knobs)
    }  # fmt: skip


def planted(config: Config, context: Context, sweep: Sweep, batch: int) -> None:
    """Dictionaries of the one planted dictionary's examples."""
    measure(config, context, sweep, *planted_data(config, batch, config.features, config.d))


def planted_data(config: Config, batch: int, features: int, d: int) -> tuple[sae.Planted, Any, jax.Array, jax.Array]:
    """A planted dictionary, its sampler, examples that no training has seen, and its directions."""
    world = sae.planted(jax.random.key(0), features, d)
    return world, sae.sampler(batch), sae.draw(world, jax.random.key(1 << 20), config.examples)[0], world.directions


def agreement(config: Config, sweep: Sweep, place: Place, seeds: list[int], params: sae.Params, quality) -> None:
    """The histogram of log10 firing frequencies, and best cosines with the next seed's latents and with chance."""
    edges, decoders = np.arange(-5.0, 0.01, 0.25), params["W_d"][:, 0]
    for i, seed in enumerate(seeds):
        at = place.at(seed=seed)
        counts, _ = np.histogram(np.clip(sae.densities(quality.frequency[i, 0], config.examples), -5, 0), edges)
        for low, count in zip(edges, counts, strict=False):
            at.record("latents in bin", count, log_density=float(low))
        random = jax.random.normal(stream(jax.random.key(seed), "random directions"), decoders[i].shape)
        others = {"cosine with another seed": decoders[(i + 1) % len(seeds)], "cosine with random": random}
        for metric, other in others.items() if len(seeds) > 1 else ():
            best = np.asarray(sae.max_cosines(decoders[i], other))
            at.record_all({metric: best.mean(), f"share above .9, {metric}": (best > 0.9).mean()})


def dead(config: Config, context: Context) -> None:
    """A wide dictionary at a large learning rate, with and without the auxiliary loss."""
    with_and_without(config, context, "dead", "planted, wide", config.wide, 1, config.features, config.d)


def crowded(config: Config, context: Context) -> None:
    """The same where there are twice as many features as latents, so that each latent has one left to find."""
    latents = config.wide // 4
    with_and_without(config, context, "crowded", "planted, crowded", latents, 3, 2 * latents, 2 * config.d)


def with_and_without(
    config: Config, context: Context, part: str, dataset: str, latents: int, shorter: int, features: int, d: int
) -> None:
    """TopK dictionaries at a large learning rate, with and without the auxiliary loss."""
    data = planted_data(config, config.sweep_batch, features, d)

    def silent(config: Config, sweep: Sweep, place: Place, seeds, params, quality) -> None:
        for i, seed in enumerate(seeds):
            one = jax.tree.map(lambda leaf, i=i: leaf[i, 0], params)
            place.record_all(sae.reach(sweep.make(config.k), one, data[2][:4_096]), seed=seed)

    for method, aux in (("TopK", None), ("TopK, AuxK", sae.Aux(dead_after=config.dead_after // 5))):
        sweep = Sweep(
            f"{part} {method}", {"dataset": dataset, "method": method, "part": part}, lambda _: sae.topk(config.k),
            np.array([config.k], np.int32), lambda _: {}, latents, config.wide_steps // shorter, config.wide_rate, aux,
            silent,
        )  # fmt: skip
        measure(config, context, sweep, *data)


def language_model(config: Config, context: Context) -> None:
    """Dictionaries of a decoder's residual stream over m and k, and the model's loss with one spliced in."""
    text = np.asarray(shakespeare.load(context.data_dir), np.int32)
    model, params = small_decoder(config, context, text)
    layer = model.config.layers // 2
    sequences = text[: config.lm_sequences * 64].reshape(-1, 64)
    streams = jax.jit(lambda params, tokens: residual(model, params, tokens, layer))(params, sequences)
    x = streams[:, 1:].reshape(-1, config.lm_width)  # the first position is an outlier in most decoders
    loss = partial(spliced_loss, model, params, jnp.asarray(text[-256 * 65 :].reshape(-1, 65)), layer)
    clean, zeroed = float(loss(lambda h: h)), float(loss(jnp.zeros_like))
    ks, k_max, rate = np.array(config.real_ks, np.int32), max(config.real_ks), config.learning_rate / 3

    def recovered(config, sweep: Sweep, place: Place, seeds, params, quality) -> None:
        losses = of_all(sweep, params, lambda variant, one: loss(lambda h: sae.reconstruct(variant, one, h)))
        for i, seed in enumerate(seeds):
            for j, k in enumerate(config.real_ks):
                place.record("loss recovered", sae.loss_recovered(clean, losses[i, j], zeroed), seed=seed, k=k)

    for m in config.real_latents:
        sweep = Sweep(
            f"real {m}", {"dataset": "decoder", "method": "TopK", "part": "real", "m": m},
            lambda k: sae.topk(k, k_max), ks, lambda k: {"k": int(k)}, m, config.real_steps, rate, extra=recovered,
        )  # fmt: skip
        measure(config, context, sweep, x, epoch_sampler(config.sweep_batch), x[:: max(1, len(x) // config.examples)])


def small_decoder(config: Config, context: Context, text: np.ndarray) -> tuple[Decoder, Any]:
    """A decoder of characters, trained briefly."""
    model = Decoder(DecoderConfig(256, config.lm_width, layers=2, heads=4, max_length=64))

    def sample(text, key, step):
        starts = jax.random.randint(stream(key, Stream.EXAMPLES, step), (16,), 0, len(text) - 64)
        return text[starts[:, None] + jnp.arange(65)]

    def init(key, tokens):
        return model.init(key, tokens[:, :-1])["params"]

    def loss(params, key, tokens):
        return token_losses(model, params, tokens[:, :-1], tokens[:, 1:]).mean(), {}

    learner = with_sampler(gradient_learner(init, loss, optax.adam(3e-3), batch_axes=0), sample)
    done = fit(
        learner, jnp.asarray(text), key=jax.random.key(0), steps=config.lm_steps, workdir=context.workdir / "decoder",
        progress=context.progress("decoder"),
    )  # fmt: skip
    return model, done.state.params


def cost(config: Config, context: Context) -> None:
    """Milliseconds of decoding over m and k and of a step of small dictionaries; every repeat goes once through all."""
    calls = [({"method": "decode", "m": m, "k": k}, decoding(m, k), DECODED) for m, k in SIZES]
    calls += [({"method": name}, call, STEPS) for name, call in small_dictionaries(config).items()]
    for _, call, _ in calls:
        first_call(call)
    for repeat in range(config.repeats):
        for place, call, times in calls:
            at = context.at(dataset="cost", seed=repeat, part="cost", **place)
            at.record("milliseconds", 1e3 * first_call(call) / times)


def decoding(m: int, k: int, b: int = 512, d: int = 64) -> Callable[[], Any]:
    """Some calls that decode b codes of k of m latents."""
    rng, decode = np.random.default_rng(0), jax.jit(combine)
    codes = rng.standard_normal((b, k), np.float32), rng.integers(0, m, (b, k), np.int32)
    arguments = *map(jnp.asarray, codes), jnp.asarray(rng.standard_normal((m, d), np.float32))
    return lambda: [decode(*arguments) for _ in range(DECODED)]


def small_dictionaries(config: Config) -> dict[str, Callable[[], Any]]:
    """Some steps of eight dictionaries of 64 latents, batch 64, by vmap and one by one."""
    world = sae.planted(jax.random.key(0), config.features, config.d)
    one = with_sampler(sae.sae_learner(sae.topk(4), 64, optax.adam(1e-3)), sae.sampler(64))

    def steps(learner, key) -> Callable[[], Any]:
        update, state = jax.jit(scan_steps(learner, STEPS).update), learner.init(key, world)
        return lambda: update(state, world)

    alone = steps(one, jax.random.key(0))
    return {
        "eight by vmap": steps(replicate_seeds(one, RUNS), seed_keys(range(RUNS))),
        "eight one by one": lambda: [jax.block_until_ready(alone()) for _ in range(RUNS)],
    }
