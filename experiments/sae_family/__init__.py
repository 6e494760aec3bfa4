"""Sparse autoencoders as one family: variants beside each other on planted features and inside a language model.

Sources: TopK and AuxK (Gao et al. 2024, 2406.04093), ReLU with L1 (Bricken et al. 2023), Gated (2404.16014), JumpReLU
(2407.14435), BatchTopK (2412.06410), Matryoshka (2503.17547), transcoders (2501.18823). Not one paper: the ground on
which the studies of features stand. What can be said exactly is said by tests; this experiment measures the rest.
Claim: TopK finds planted features that ReLU with L1 at equal sparsity misses or shrinks.
Command: ``relic run sae_family --preset small --seeds 3``.
Cost: smoke 50 s of CPU time, without wide dictionaries; small about fifteen minutes of it, its last part with
data/tinyshakespeare.
Expect: TopK at k = 6 with a mean best cosine of .98 to 128 planted features in 32 dimensions.

Seeds share one planted dictionary and differ in their start and in the examples that they see.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd

from core.datasets import shakespeare
from experiments.lab.frames import groups, interval, select
from experiments.lab.statistics import statistic
from experiments.lab.system import Context, Published, System
from experiments.sae_family.claims import CLAIMS, STATISTICS
from experiments.sae_family.config import PRESETS, Config
from experiments.sae_family.figures import COLOURS, figures
from experiments.sae_family.study.cost import cost
from experiments.sae_family.study.decoder import language_model
from experiments.sae_family.study.planted import (
    crowded,
    dead_latents,
    planted_methods,
    planted_part,
    sweep_methods,
    sweep_part,
)

Part = Callable[[Config, Context, list[int]], None]

PUBLISHED: tuple[Published, ...] = ()
"""The papers measure models that are not at hand; no figure of theirs is comparable."""


def run(config: Config, context: Context) -> None:
    """Every part over all seeds that it still lacks; cells which a rerun skips."""
    chosen = parts(config, context)
    context.cells([{"part": "cost"}] if config.repeats else [])
    context.cells({"part": name, "seed": seed} for name in chosen for seed in context.seeds)
    if config.repeats and not context.done(part="cost"):
        context.say("sae_family: cost")
        cost(config, context)
        context.finish(part="cost")
    for name, part in chosen.items():
        missing = [seed for seed in context.seeds if not context.done(part=name, seed=seed)]
        if missing:
            context.say(f"sae_family: {name}, seeds {missing}")
            part(config, context, missing)
            for seed in missing:
                context.finish(part=name, seed=seed)


def parts(config: Config, context: Context) -> dict[str, Part]:
    """What is to be done; numbers of steps and latents that are 0, and knobs without values, leave theirs out."""
    out: dict[str, Part] = {}
    if config.steps:
        out |= {f"planted {name}": planted_part(name) for name in planted_methods(config)}
    if config.wide:
        out |= {"dead": dead_latents, "crowded": crowded}
    if config.lm_steps and shakespeare.locate(context.data_dir):
        out["real"] = language_model
    elif config.lm_steps:
        context.say("sae_family: no tinyshakespeare in the data directory, so nothing on a language model")
    return out | {f"sweep {name}": sweep_part(name) for name, (_, knobs) in sweep_methods(config).items() if len(knobs)}


TABLE = {"fvu": 4, "l0": 2, "mean max cosine": 3, "features above .9": 3, "dead": 3, "shrinkage": 3,
         "least active": 3, "largest silent": 3, "loss recovered": 3}  # fmt: skip


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Variants at one sparsity, the sweep, dead latents, the language model; means with intervals over seeds."""
    out = {}
    for title, dataset, keys in (
        ("Planted features, k = 6", "planted", ("method",)),
        ("Planted features over sparsity", "planted sweep", ("method", "knob")),
        ("A wide dictionary at a large learning rate", "planted, wide", ("method",)),
        ("Twice as many features as latents", "planted, crowded", ("method",)),
        ("Residual stream of a small decoder", "decoder", ("m", "k")),
    ):
        rows, chosen = [], select(frame, dataset=dataset)
        for key, part in groups(chosen, *keys) if len(chosen) else ():
            cells: dict[str, Any] = dict(zip(keys, key, strict=True))
            for metric, digits in TABLE.items():
                numbers = select(part, metric=metric)["value"].to_numpy()
                if len(numbers):
                    cells[metric] = interval(numbers, digits, statistic(STATISTICS, metric=metric))
            rows.append(cells)
        if rows:
            out[title] = pd.DataFrame(rows).astype(object).fillna("–")
    timed = select(frame, dataset="cost")
    if len(timed):
        columns = [name for name in ("method", "m", "k", "value") if name in timed]
        out["Cost, milliseconds"] = timed.loc[:, columns].round(3).astype(object).fillna("–").reset_index(drop=True)
    return out


SYSTEM = System(
    slug="sae_family",
    title="Sparse autoencoders and transcoders",
    line="one family of sparse dictionaries for any stream of activations",
    is_layer=True,
    family="interp",
    paper="the ground of several studies; sources in interp/sae",
    presets=PRESETS,
    run=run,
    published=PUBLISHED,
    claims=CLAIMS,
    statistics=STATISTICS,
    metrics=(),
    tables=tables,
    figures=figures,
    colours=COLOURS,
    data=("tinyshakespeare",),
)
