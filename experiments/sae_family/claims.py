"""What the family must show, and the judgements from records."""

import numpy as np
import pandas as pd

from core.stats import all_of, summary, within
from experiments.lab.frames import by_seed, groups, select, values
from experiments.lab.statistics import Statistic
from experiments.lab.system import Claim, NotShown, ShownByRecords, ShownByTest, Verdict

STATISTICS = tuple(Statistic("share", metric) for metric in ("features above .9", "dead"))
SEEDS = 2
"""Fewest seeds from which anything is judged."""


def judge_recovery(frame: pd.DataFrame) -> Verdict:
    """Item 7: every seed of TopK at k = 6 has mean best cosine >= .97 and >= 98 % of features above .9."""
    cosine = values(frame, dataset="planted", method="TopK", metric="mean max cosine")
    share = values(frame, dataset="planted", method="TopK", metric="features above .9")
    if len(cosine) < SEEDS or len(cosine) != len(share):
        return Verdict(None)
    text = f"mean best cosine {cosine.min():.3f} to {cosine.max():.3f}, features above .9 {share.min():.1%} and more"
    return Verdict(bool(cosine.min() >= 0.97 and share.min() >= 0.98), text, summary(cosine).interval)


def at_sparsity(frame: pd.DataFrame, method: str, metric: str, l0: pd.Series) -> pd.Series:
    """The metric of a method at given L0 by seed, linear in log L0 between dictionaries; none outside."""
    out = {}
    for seed, target in l0.items():
        mine = select(frame, dataset="planted sweep", method=method, seed=seed)
        table = mine.pivot_table(index="knob", columns="metric", values="value")
        table = table.loc[table["l0"] > 0].sort_values(by="l0") if "l0" in table else table
        if len(table) > 1 and table["l0"].min() <= target <= table["l0"].max():
            out[seed] = np.interp(np.log(target), np.log(table["l0"].to_numpy()), table[metric].to_numpy())
    return pd.Series(out, dtype=float)


def judge_topk_against_l1(frame: pd.DataFrame) -> Verdict:
    """Item 8a: at TopK's sparsity for k = 6, ReLU-L1 has the larger FVU and the smaller mean best cosine."""
    at = {"dataset": "planted sweep", "method": "TopK", "knob": 6}
    l0 = by_seed(frame, metric="l0", **at)
    if len(l0) < SEEDS:
        return Verdict(None)
    differences = {}
    for metric in ("fvu", "mean max cosine"):
        other = at_sparsity(frame, "ReLU, L1", metric, l0)
        if len(other) != len(l0):
            return Verdict(None, "no dictionaries of ReLU-L1 on both sides of TopK's L0")
        differences[metric] = summary((other - by_seed(frame, metric=metric, **at)).to_numpy())
    fvu, cosine = differences["fvu"], differences["mean max cosine"]
    text = f"ReLU-L1 less TopK at L0 {l0.mean():.1f}: FVU {fvu.value:+.3f}, mean best cosine {cosine.value:+.3f}"
    return Verdict(all_of([within(fvu.interval, 0), within(cosine.interval, most=0)]), text, fvu.interval)


def judge_batch_topk(frame: pd.DataFrame) -> Verdict:
    """Item 8b: the difference in FVU of BatchTopK and TopK, both with AuxK, has an interval."""
    one = by_seed(frame, dataset="planted", method="BatchTopK, AuxK", metric="fvu")
    other = by_seed(frame, dataset="planted", method="TopK, AuxK", metric="fvu")
    if len(one) < SEEDS or len(one) != len(other):
        return Verdict(None)
    found = summary((one - other).to_numpy())
    better = "no clear difference" if found.low <= 0 <= found.high else "TopK" if found.low > 0 else "BatchTopK"
    text = f"FVU of BatchTopK less TopK {found.value:+.4f}; better: {better}"
    return Verdict(bool(np.isfinite(found.low)), text, found.interval)


def judge_aux(frame: pd.DataFrame) -> Verdict:
    """Item 9a: AuxK lowers the dead share of a wide dictionary; its FVU is at most 2 % above in every seed."""
    pairs = {
        (dataset, metric): [
            by_seed(frame, dataset=dataset, method=method, metric=metric) for method in ("TopK", "TopK, AuxK")
        ]
        for dataset in ("planted", "planted, wide")
        for metric in ("fvu", "dead")
    }
    if any(len(a) < SEEDS or len(a) != len(b) for a, b in pairs.values()):
        return Verdict(None)
    without, with_aux = pairs["planted, wide", "dead"]
    fewer = summary((without - with_aux).to_numpy())
    worst = max(float((b / a).max()) for (_, metric), (a, b) in pairs.items() if metric == "fvu")
    text = f"dead {without.mean():.1%} without, {with_aux.mean():.1%} with AuxK; FVU at most {worst:.3f} times as large"
    return Verdict(all_of([within(fewer.interval, 0), worst <= 1.02]), text, fewer.interval)


def judge_crowded(frame: pd.DataFrame) -> Verdict:
    """Item 9b: with more features than latents AuxK lowers both the dead share and FVU, intervals of pairs below 0."""
    change = {}
    for metric in ("dead", "fvu"):
        at = {"dataset": "planted, crowded", "metric": metric}
        without, with_aux = (by_seed(frame, method=method, **at) for method in ("TopK", "TopK, AuxK"))
        if len(without) < SEEDS or len(without) != len(with_aux):
            return Verdict(None)
        change[metric] = (without, with_aux, summary((with_aux - without).to_numpy()))
    text = ", ".join(f"{name} {a.mean():.3f} without, {b.mean():.3f} with AuxK" for name, (a, b, _) in change.items())
    dead, fvu = (found for _, _, found in change.values())
    return Verdict(all_of(within(found.interval, most=0) for found in (dead, fvu)), text, dead.interval)


def judge_shrinkage(frame: pd.DataFrame) -> Verdict:
    """Item 10: at L0 near 6 the reconstruction bias of ReLU-L1 is below .98, TopK's within .02 of 1."""
    at = {"dataset": "planted sweep", "method": "TopK", "knob": 6}
    topk = by_seed(frame, metric="shrinkage", **at)
    l1 = at_sparsity(frame, "ReLU, L1", "shrinkage", by_seed(frame, metric="l0", **at))
    if len(topk) < SEEDS or len(l1) != len(topk):
        return Verdict(None)
    low, near = summary(l1.to_numpy()), summary(topk.to_numpy())
    text = f"gamma {low.value:.3f} for ReLU-L1, {near.value:.3f} for TopK"
    return Verdict(all_of([within(low.interval, most=0.98), within(near.interval, 0.98, 1.02)]), text, low.interval)


def exponents(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """[seeds, 2] slopes of -log FVU in log m and log k, and [seeds] R^2, by least squares."""
    slopes, fits = [], []
    for _, part in groups(select(frame, dataset="decoder", metric="fvu"), "seed"):
        design = np.column_stack([np.ones(len(part)), np.log(part["m"]), np.log(part["k"])]).astype(float)
        target = np.log(part["value"].to_numpy(float))
        solution = np.linalg.lstsq(design, target, rcond=None)[0]
        slopes.append(-solution[1:])
        fits.append(1 - ((target - design @ solution) ** 2).sum() / ((target - target.mean()) ** 2).sum())
    return np.array(slopes), np.array(fits)


def judge_scaling(frame: pd.DataFrame) -> Verdict:
    """Item 11: log FVU falls linearly in log m and log k (R^2 >= .9), both slopes' intervals above 0."""
    if not len(select(frame, dataset="decoder", metric="fvu")):
        return Verdict(None)
    slopes, fits = exponents(frame)
    if len(slopes) < SEEDS:
        return Verdict(None)
    m, k = summary(slopes[:, 0]), summary(slopes[:, 1])
    text = (
        f"FVU ~ m^-{m.value:.3f} [{m.low:.3f}, {m.high:.3f}] k^-{k.value:.3f} [{k.low:.3f}, {k.high:.3f}], "
        f"R^2 {fits.min():.3f} and more"
    )
    met = all_of([within(m.interval, 0), within(k.interval, 0), bool(fits.min() >= 0.9)])
    return Verdict(met, text, m.interval)


def judge_agreement(frame: pd.DataFrame) -> Verdict:
    """Item 12: mean best cosine with another seed's latents exceeds that with random directions, interval above 0."""
    other = values(frame, dataset="planted", method="TopK", metric="cosine with another seed")
    random = values(frame, dataset="planted", method="TopK", metric="cosine with random")
    if len(other) < SEEDS or len(other) != len(random):
        return Verdict(None)
    found = summary(other - random)
    text = f"MMCS {other.mean():.3f} with another seed, {random.mean():.3f} with random directions"
    return Verdict(within(found.interval, 0), text, found.interval)


def judge_decoding(frame: pd.DataFrame) -> Verdict:
    """Item 13b: the time of decoding grows with k (slope above .5 in logarithms), hardly with m (below .25)."""
    timed = select(frame, dataset="cost", method="decode")
    if not len(timed):
        return Verdict(None)
    in_m, in_k = select(timed, k=32), select(timed, m=65_536)
    slopes = [
        float(np.polyfit(np.log(part[name].to_numpy(float)), np.log(part["value"].to_numpy(float)), 1)[0])
        for name, part in (("m", in_m), ("k", in_k))
    ]
    text = f"time ~ m^{slopes[0]:.2f} at k = 32, ~ k^{slopes[1]:.2f} at m = 65,536"
    return Verdict(bool(slopes[0] < 0.25 and slopes[1] > 0.5), text)


def judge_vmap(frame: pd.DataFrame) -> Verdict:
    """Item 14: a step of eight dictionaries by vmap takes less time than eight runs."""
    together = values(frame, dataset="cost", method="eight by vmap")
    apart = values(frame, dataset="cost", method="eight one by one")
    if not len(together) or not len(apart):
        return Verdict(None)
    text = f"{together[0]:.2f} ms together, {apart[0]:.2f} ms one after another"
    return Verdict(bool(together[0] < apart[0]), text)


EXACT = "tests/interp/test_sae.py::"
TRAINING = "tests/interp/test_sae_training.py::"
LIBRARIES = "tests/interp/test_sae_libraries.py::"
LAYOUTS = "tests/interp/test_sae_layouts.py::"
CODES = "tests/core/test_codes.py::"
EVERY = "tests/core/test_every_learner.py::"
CLAIMS = (
    Claim("1a", "Outputs, losses and gradients of every variant equal a dense reference, in float32 and float64",
          ShownByTest(EXACT + "test_every_variant_equals_its_dense_reference")),
    Claim("1b", "Derivatives of sparse codes equal those of dense ones",
          ShownByTest(CODES + "test_derivatives_equal_those_of_dense_products")),
    Claim("1c", "Ties of the k largest go to the lower index",
          ShownByTest(CODES + "test_the_k_largest_are_those_of_lax_with_ties_to_the_lower_index")),
    Claim("2a", "TopK with k = m is ReLU", ShownByTest(EXACT + "test_topk_of_all_latents_is_relu")),
    Claim("2b", "BatchTopK on one row is TopK", ShownByTest(EXACT + "test_batch_topk_of_one_row_is_topk")),
    Claim("2c", "JumpReLU with vanishing thresholds is ReLU",
          ShownByTest(EXACT + "test_jumprelu_without_thresholds_is_relu")),
    Claim("2d", "Matryoshka with one prefix is the plain variant",
          ShownByTest(EXACT + "test_matryoshka_of_one_prefix_is_plain")),
    Claim("2e", "Gates equal to magnitudes make ReLU", ShownByTest(EXACT + "test_gated_with_equal_gates_is_relu")),
    Claim("3a", "Decoder rows have norm 1 after each step; the gradient that is left is orthogonal to them",
          ShownByTest(TRAINING + "test_rows_keep_norm_one_and_gradients_are_orthogonal_to_them")),
    Claim("3b", "The geometric median is SciPy's minimiser",
          ShownByTest(EXACT + "test_the_geometric_median_is_the_minimiser_that_scipy_finds")),
    Claim("4a", "Weights go to both layouts on disk and come back bit for bit",
          ShownByTest(LAYOUTS + "test_weights_return_from_disk_bit_for_bit")),
    Claim("4b", "Imported weights give the outputs of the layouts' formulas, written independently",
          ShownByTest(LAYOUTS + "test_imported_weights_give_the_outputs_of_the_layouts_formulas")),
    Claim("4c", "sparsify and SAELens read the exported weights and give the same outputs",
          ShownByTest(LIBRARIES + "test_libraries_read_exported_weights_and_give_the_same_outputs")),
    Claim("4d", "Weights that sparsify and SAELens saved give the outputs of these libraries",
          ShownByTest(LIBRARIES + "test_weights_that_the_libraries_saved_give_their_outputs")),
    Claim("5a", "A latent that fires starts counting anew; counters of shares merge by the minimum",
          ShownByTest(TRAINING + "test_counters_start_anew_where_latents_fire_and_merge_by_the_minimum")),
    Claim("5b", "The k largest over latents spread over devices are those of one device, exactly",
          ShownByTest(TRAINING + "test_the_k_largest_over_devices_are_those_of_one")),
    Claim("5c", "Training with latents and examples spread over devices equals training on one",
          ShownByTest(TRAINING + "test_latents_spread_over_devices_train_as_on_one")),
    Claim("6a", "jit = pmap", ShownByTest(EVERY + "test_pmap_equals_jit")),
    Claim("6b", "jit = mesh", ShownByTest(EVERY + "test_mesh_equals_jit")),
    Claim("6c", "A run that is stopped and resumed ends in the same bits, counters and place in the store included",
          ShownByTest(TRAINING + "test_a_resumed_run_over_a_store_ends_in_the_same_bits")),
    Claim("7", "TopK at k = 6 recovers planted features: mean best cosine >= .97, >= 98 % above .9, every seed",
          ShownByRecords("planted, TopK without AuxK, all seeds", judge_recovery)),
    Claim("8a", "TopK beats ReLU-L1 at equal L0 in FVU and in recovery",
          ShownByRecords("the sweep at k = 6, ReLU-L1 interpolated to the same L0, paired by seed",
                         judge_topk_against_l1)),
    Claim("8b", "BatchTopK is compared with TopK by an interval",
          ShownByRecords("planted at k = 6, both with AuxK, paired by seed", judge_batch_topk)),
    Claim("9a", "AuxK lowers the dead fraction of a wide dictionary and never hurts FVU by more than 2 %",
          ShownByRecords("m = 2,048 for 128 features at a large rate, and m = 256; paired by seed", judge_aux)),
    Claim("9b", "Where features outnumber latents, AuxK lowers the dead fraction and FVU",
          ShownByRecords("m = 512 for 1,024 features at a large rate, paired by seed", judge_crowded)),
    Claim("9c", "A dead latent along a missing feature fires again in the steps that theory gives; never without AuxK",
          ShownByTest(TRAINING + "test_aux_revives_the_latent_along_a_missing_feature_in_the_steps_that_theory_gives")),
    Claim("9d", "The loss of dead latents and its gradient equal a dense reference, and reach dead latents only",
          ShownByTest(TRAINING + "test_the_loss_of_dead_latents_and_its_gradient_equal_a_dense_reference")),
    Claim("10", "Reconstructions of ReLU-L1 shrink, those of TopK do not",
          ShownByRecords("relative reconstruction bias at equal L0", judge_shrinkage)),
    Claim("11", "Inside a decoder FVU falls as a power of m and of k",
          ShownByRecords("least squares on logarithms by seed", judge_scaling)),
    Claim("12", "Two seeds share features, more than with random directions",
          ShownByRecords("mean max cosine between seeds of TopK", judge_agreement)),
    Claim("13a", "A step is twice as fast as the better PyTorch form",
          NotShown("measured by `relic bench sae`, whose results are no records; see the page")),
    Claim("13b", "The cost of decoding grows with k and not with m",
          ShownByRecords("least times of 512 codes, d = 64, tables of 4 to 67 MB", judge_decoding)),
    Claim("14", "Eight small dictionaries by vmap cost less than eight runs",
          ShownByRecords("least times of 20 steps", judge_vmap)),
)  # fmt: skip
