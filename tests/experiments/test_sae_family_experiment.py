import numpy as np
import pandas as pd
import pytest

from core.datasets import shakespeare
from experiments.lab import registry, runs
from experiments.lab.runner import execute
from experiments.lab.system import ShownByRecords
from experiments.sae_family import SYSTEM
from experiments.sae_family.claims import (
    CLAIMS,
    judge_agreement,
    judge_aux,
    judge_batch_topk,
    judge_crowded,
    judge_decoding,
    judge_recovery,
    judge_scaling,
    judge_shrinkage,
    judge_topk_against_l1,
    judge_vmap,
)
from tests.experiments.noise import noise as little

SMALL = ("batch_size=16", "sweep_batch=16", "examples=96", "features=12", "d=6", "latents=16", "dead_after=20",
         "sweep_steps=3")  # fmt: skip
SWEEP = (*SMALL, "steps=0", "wide=0", "repeats=0", "ks=2,3", "l1s=", "l0s=")
ALL = (*SMALL, "steps=4", "wide=32", "wide_steps=6", "repeats=1", "ks=2,6", "l1s=0.1", "l0s=0.01", "k=2", "lm_steps=2",
       "lm_width=8", "lm_sequences=16", "real_steps=2", "real_latents=16", "real_ks=2,4")  # fmt: skip
EVERYWHERE = (*SMALL, "steps=4", "wide=32", "wide_steps=6", "repeats=1", "ks=2", "l1s=", "l0s=", "k=2", "lm_steps=0",
              "real_steps=0")  # fmt: skip


def tiny(settings, workdir, seeds=(0, 1)):
    return execute(registry.load("sae_family"), preset="smoke", seeds=seeds, assignments=settings, workdir=workdir)


def test_a_sweep_is_recorded_tabulated_and_drawn_once(tmp_path):
    folder = tiny(SWEEP, tmp_path)
    frame = runs.read(folder).frame
    assert set(frame["part"]) == {"sweep TopK", "sweep BatchTopK"}
    assert set(frame["knob"]) == {2, 3}
    assert set(SYSTEM.figures(frame)) == {"pareto"}
    table = SYSTEM.tables(frame)["Planted features over sparsity"]
    assert len(table) == 4
    before = (folder / runs.RECORDS).stat().st_size
    tiny(SWEEP, tmp_path)
    assert (folder / runs.RECORDS).stat().st_size == before


@pytest.mark.slow
def test_every_part_is_recorded_tabulated_and_drawn(tmp_path):
    frame = runs.read(tiny(ALL, tmp_path)).frame
    planted = {f"planted {name}" for name in ("TopK", "TopK, AuxK", "BatchTopK, AuxK")}
    sweeps = {f"sweep {name}" for name in ("TopK", "ReLU, L1", "BatchTopK", "Gated", "JumpReLU")}
    real = {"real"} if shakespeare.locate(None) else set()
    assert set(frame["part"]) == planted | sweeps | real | {"dead", "crowded", "cost"}
    assert {"pareto", "densities"} | ({"scaling"} if real else set()) == set(SYSTEM.figures(frame))
    titles = {"Planted features, k = 6", "A wide dictionary at a large learning rate", "Cost, milliseconds",
              "Twice as many features as latents", "Planted features over sparsity"}  # fmt: skip
    assert titles <= set(SYSTEM.tables(frame))
    assert np.isfinite(frame["value"]).mean() > 0.9


PLANTED, WIDE, SWEPT, CROWDED = "planted", "planted, wide", "planted sweep", "planted, crowded"


def frame(*rows, seeds=3, spread=1e-3):
    """Records: (dataset, method, metric, value, coordinates), with a little noise over seeds."""
    noise = spread * np.linspace(-1, 1, seeds) if seeds > 1 else [0.0]
    return pd.DataFrame([
        {"dataset": dataset, "method": method, "metric": metric, "seed": seed, **at,
         "value": value + noise[seed] + little(seed, metric, method)}
        for dataset, method, metric, value, at in rows
        for seed in range(seeds)
    ])  # fmt: skip


def recovery(cosine=0.98, share=0.99, **more):
    rows = [(PLANTED, "TopK", "mean max cosine", cosine, {}), (PLANTED, "TopK", "features above .9", share, {})]
    return frame(*rows, **more)


def swept(l1_fvu=0.9, l1_cosine=0.5, l1_l0s=(2.0, 18.0), gamma=0.2, topk_gamma=1.0):
    """TopK at L0 = 6 beside two dictionaries of ReLU-L1, by default one on each side of it."""
    rows = [(SWEPT, "TopK", m, v, {"knob": 6.0}) for m, v in
            (("l0", 6.0), ("fvu", 0.2), ("mean max cosine", 0.8), ("shrinkage", topk_gamma))]  # fmt: skip
    for knob, l0 in zip((0.3, 0.1), l1_l0s, strict=True):
        named = (("l0", l0), ("fvu", l1_fvu), ("mean max cosine", l1_cosine), ("shrinkage", gamma))
        rows += [(SWEPT, "ReLU, L1", metric, value, {"knob": knob}) for metric, value in named]
    return frame(*rows)


def both(dataset, **metrics):
    """TopK without and with AuxK."""
    return [(dataset, name, metric.replace("_", " "), value, {})
            for metric, values in metrics.items()
            for name, value in zip(("TopK", "TopK, AuxK"), values, strict=True)]  # fmt: skip


def wide(dead=(0.9, 0.5), fvu=(0.2, 0.2), narrow_fvu=(0.2, 0.2)):
    return frame(*both(WIDE, dead=dead, fvu=fvu), *both(PLANTED, dead=(0.1, 0.1), fvu=narrow_fvu))


def crowded(dead=(0.2, 0.1), fvu=(0.4, 0.3)):
    return frame(*both(CROWDED, dead=dead, fvu=fvu))


def batch_topk(better=0.02, **more):
    names = (("BatchTopK, AuxK", 0.2 + better), ("TopK, AuxK", 0.2))
    return pd.concat([frame((PLANTED, name, "fvu", v, {}), spread=s, **more)
                      for (name, v), s in zip(names, (1e-3, 2e-3), strict=True)])  # fmt: skip


def scaling(m=0.1, k=0.5, bend=0.0, **more):
    rows = [("decoder", "TopK", "fvu", float(a**-m * b**-k * np.exp(bend * (a == 256))), {"m": a, "k": b})
            for a in (128, 256, 512) for b in (4, 8, 16)]  # fmt: skip
    return frame(*rows, spread=1e-5, **more)


def agreement(other=0.8, random=0.5, **more):
    parts = (("cosine with another seed", other, 1e-3), ("cosine with random", random, 2e-3))
    return pd.concat([frame((PLANTED, "TopK", metric, v, {}), spread=s, **more) for metric, v, s in parts])


def decoding(in_m=0.1, in_k=0.9):
    sizes = [(m, 32) for m in (16_384, 65_536, 262_144)] + [(65_536, k) for k in (8, 128)]
    rows = [("cost", "decode", "milliseconds", (m / 65_536) ** in_m * (k / 32) ** in_k, {"m": m, "k": k})
            for m, k in sizes]  # fmt: skip
    return frame(*rows, seeds=1)


def together(one=1.0, eight=2.0):
    names = (("eight by vmap", one), ("eight one by one", eight))
    return frame(*[("cost", name, "milliseconds", value, {}) for name, value in names], seeds=1)


JUDGED = [
    (judge_recovery, recovery(), True),
    (judge_recovery, recovery(cosine=0.95), False),
    (judge_recovery, recovery(share=0.9), False),
    (judge_recovery, recovery(seeds=1), None),
    (judge_topk_against_l1, swept(), True),
    (judge_topk_against_l1, swept(l1_fvu=0.1), False),
    (judge_topk_against_l1, swept(l1_cosine=0.9), False),
    (judge_topk_against_l1, swept(l1_l0s=(8.0, 18.0)), None),
    (judge_batch_topk, batch_topk(), True),
    (judge_batch_topk, batch_topk(seeds=1), None),
    (judge_aux, wide(), True),
    (judge_aux, wide(dead=(0.9, 0.9)), None),
    (judge_aux, wide(dead=(0.9, 0.95)), False),
    (judge_aux, wide(fvu=(0.2, 0.21)), False),
    (judge_aux, wide(narrow_fvu=(0.2, 0.21)), False),
    (judge_aux, frame(*both(WIDE, dead=(0.9, 0.5), fvu=(0.2, 0.2))), None),
    (judge_crowded, crowded(), True),
    (judge_crowded, crowded(dead=(0.2, 0.2)), None),
    (judge_crowded, crowded(dead=(0.2, 0.3)), False),
    (judge_crowded, crowded(fvu=(0.4, 0.5)), False),
    (judge_crowded, frame(*both(CROWDED, dead=(0.2, 0.1))), None),
    (judge_shrinkage, swept(), True),
    (judge_shrinkage, swept(gamma=0.99), False),
    (judge_shrinkage, swept(topk_gamma=0.9), False),
    (judge_shrinkage, swept(l1_l0s=(8.0, 18.0)), None),
    (judge_scaling, scaling(), True),
    (judge_scaling, scaling(m=-0.1), False),
    (judge_scaling, scaling(m=0.01, k=0.01, bend=1.0), False),
    (judge_scaling, scaling(seeds=1), None),
    (judge_agreement, agreement(), True),
    (judge_agreement, agreement(other=0.5), None),
    (judge_agreement, agreement(other=0.4), False),
    (judge_agreement, agreement(seeds=1), None),
    (judge_decoding, decoding(), True),
    (judge_decoding, decoding(in_m=0.5), False),
    (judge_decoding, decoding(in_k=0.2), False),
    (judge_decoding, together(), None),
    (judge_vmap, together(), True),
    (judge_vmap, together(one=3.0), False),
    (judge_vmap, decoding(), None),
]


@pytest.mark.parametrize(
    ("judge", "records", "met"), JUDGED, ids=[f"{judge.__name__}-{met}-{i}" for i, (judge, _, met) in enumerate(JUDGED)]
)
def test_judges_say_met_not_met_and_undecided(judge, records, met):
    verdict = judge(records)
    assert verdict.met is met
    assert verdict.value if met is not None else True


def test_every_judge_of_the_claims_is_tested():
    judges = {claim.evidence.judge for claim in CLAIMS if isinstance(claim.evidence, ShownByRecords)}
    assert judges == {judge for judge, _, _ in JUDGED}
    empty = pd.DataFrame({"dataset": [], "method": [], "metric": [], "seed": [], "value": []})
    assert all(judge(empty).met is None for judge in judges)


def test_a_comparison_names_the_better_side_or_none():
    assert judge_batch_topk(batch_topk(0.02)).value.endswith("better: TopK")
    assert judge_batch_topk(batch_topk(-0.02)).value.endswith("better: BatchTopK")
    assert judge_batch_topk(batch_topk(0.0)).value.endswith("no clear difference")


def test_figures_are_drawn_from_what_there_is():
    density = frame((PLANTED, "TopK", "latents in bin", 3.0, {"log_density": -2.0}))
    drawn = SYSTEM.figures(pd.concat([swept(), scaling(), density]))
    assert set(drawn) == {"pareto", "densities", "scaling"}
    assert all(axis.lines for figure in drawn.values() for axis in figure.axes)
    assert not SYSTEM.figures(together())
