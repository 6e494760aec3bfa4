"""Sparse autoencoders as one family: variants beside each other on planted features and inside a language model.

Sources: TopK and AuxK (Gao et al. 2024, 2406.04093), ReLU with L1 (Bricken et al. 2023), Gated (2404.16014), JumpReLU
(2407.14435), BatchTopK (2412.06410), Matryoshka (2503.17547), transcoders (2501.18823). Not one paper: the ground on
which the studies of features stand. What can be said exactly is said by tests; this experiment measures the rest.
Claim: TopK finds planted features that ReLU with L1 at equal sparsity misses or shrinks.
Command: ``relic run sae_family --preset small --seeds 5``.
Cost: smoke 50 s of CPU time, without wide dictionaries; small about fifteen minutes of it, its last part with
data/tinyshakespeare.
Expect: TopK at k = 6 with a mean best cosine of .98 to 128 planted features in 32 dimensions.

Seeds share one planted dictionary and differ in their start and in the examples that they see. The papers measure
models that are not at hand: no figure of theirs is comparable.
"""

from collections.abc import Iterable
from functools import partial

from core.datasets import shakespeare
from experiments.lab import Context, Part, System, part
from experiments.sae_family import study
from experiments.sae_family.claims import CLAIMS
from experiments.sae_family.config import PRESETS, Config
from experiments.sae_family.figures import COLOURS, FIGURES, STATISTICS, TABLES


def plan(config: Config, context: Context) -> Iterable[Part]:
    """Every part with all of its seeds; steps, latents and repeats of 0, and knobs without values, leave theirs out."""
    if config.repeats:
        yield part(study.cost, part="cost")
    made = {}
    if config.steps:
        longest = study.at_one_sparsity(config)
        made |= {name: partial(study.planted, sweep=one, batch=config.batch_size) for name, one in longest.items()}
    if config.wide:
        made |= {"dead": study.dead, "crowded": study.crowded}
    if config.lm_steps and shakespeare.locate(context.data_dir):
        made["real"] = study.language_model
    elif config.lm_steps:
        context.say("sae_family: no tinyshakespeare in the data directory, so nothing on a language model")
    swept = study.over_sparsities(config)
    made |= {name: partial(study.planted, sweep=one, batch=config.sweep_batch) for name, one in swept.items()}
    yield from (Part(fn, [{"part": name, "seed": seed} for seed in context.seeds]) for name, fn in made.items())


SYSTEM = System(
    slug="sae_family",
    title="Sparse autoencoders and transcoders",
    line="one family of sparse dictionaries for any stream of activations",
    is_layer=True,
    family="interp",
    paper="the ground of several studies; sources in interp/sae",
    presets=PRESETS,
    plan=plan,
    claims=CLAIMS,
    statistics=STATISTICS,
    tables=TABLES,
    figures=FIGURES,
    colours=COLOURS,
    data=("tinyshakespeare",),
)
