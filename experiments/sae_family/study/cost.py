"""What decoding and small dictionaries cost."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.bench import first_call
from core.learner import replicate_seeds, seed_keys, with_sampler
from core.loop import scan_steps
from core.sparse import combine
from experiments.lab.system import Context
from experiments.sae_family.config import Config
from experiments.sae_family.study.planted import world_of
from interp import sae


def cost(config: Config, context: Context) -> None:
    """Milliseconds of decoding over m and k, and of eight small dictionaries together and one after another."""
    b, d, rng = 512, 64, np.random.default_rng(0)
    decode = jax.jit(combine)
    sizes = [(m, 32) for m in (16_384, 65_536, 262_144)] + [(65_536, k) for k in (8, 128)]
    arguments = {}
    for m, k in sizes:
        codes = rng.standard_normal((b, k), np.float32), rng.integers(0, m, (b, k), np.int32)
        arguments[m, k] = *map(jnp.asarray, codes), jnp.asarray(rng.standard_normal((m, d), np.float32))
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
