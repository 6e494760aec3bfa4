"""What must be shown of ``image_cate``, and how its records are judged."""

import functools
import math
from typing import Any

import numpy as np
import pandas as pd

from core.stats import all_of, critical_value, mean_share, paired, share, within
from experiments.lab import judging
from experiments.lab.frames import by_seed, groups, select, values
from experiments.lab.judging import Quantity
from experiments.lab.statistics import Statistic
from experiments.lab.system import Claim, ShownByRecords, ShownByTest, Verdict

OURS = "effect clusters"
SEEDS = 5
"""With fewer nothing is judged."""


decided = functools.partial(judging.decided, seeds=SEEDS)


def of_s1(frame: pd.DataFrame, metric: str, method: str = OURS) -> np.ndarray:
    """Values by seed on design S1."""
    return values(frame, dataset="S1", method=method, metric=metric)


def judge_pehe(frame: pd.DataFrame) -> Verdict:
    """Item 9a: PEHE over that of the difference in means."""
    ours, constant = of_s1(frame, "PEHE"), of_s1(frame, "PEHE", "difference in means")
    return decided(Quantity("ratio", ours / constant if len(ours) == len(constant) else np.array([]), most=0.55))


def judge_probability(frame: pd.DataFrame) -> Verdict:
    """Item 9b."""
    return decided(Quantity("correlation", of_s1(frame, "corr(p)"), least=0.85))


def judge_mu(frame: pd.DataFrame) -> Verdict:
    """Item 9c: the larger of both errors."""
    return decided(Quantity("largest error", of_s1(frame, "largest |mu error|"), most=0.25))


def judge_ate(frame: pd.DataFrame) -> Verdict:
    """Item 9d: the largest distance over seeds, in standard errors of the difference in means."""
    found = np.abs(of_s1(frame, "ATE less difference in means, SE"))
    if len(found) < SEEDS:
        return Verdict(None)
    return Verdict(bool(found.max() <= 2), f"largest distance {found.max():.2f} SE over {len(found)} seeds")


def judge_tarnet(frame: pd.DataFrame) -> Verdict:
    """Item 10: PEHE less that of TARNet on the same data."""
    ours, theirs = (by_seed(frame, dataset="S1", metric="PEHE", method=name) for name in (OURS, "TARNet"))
    if len(ours) < SEEDS or not ours.index.equals(theirs.index):
        return Verdict(None)
    found = paired(ours.to_numpy(), theirs.to_numpy())
    text = f"{ours.mean():.3f} against {theirs.mean():.3f}, difference {found.value:.3f}"
    return Verdict(within(found.interval, most=0.0), text, found.interval)


def judge_null(frame: pd.DataFrame) -> Verdict:
    """Item 11a: in how many of 20 data sets the interval of AUTOC holds 0."""
    value, se = (values(frame, dataset="S2", metric=metric) for metric in ("AUTOC", "AUTOC SE"))
    if len(value) < 20 or len(value) != len(se):
        return Verdict(None)
    holds = int((np.abs(value) <= critical_value() * se).sum())
    return Verdict(holds >= 0.9 * len(value), f"{holds} of {len(value)} data sets", share(holds, len(value)).interval)


def judge_spread(frame: pd.DataFrame) -> Verdict:
    """Item 11b: spread of the effects on images that were not trained on."""
    found = values(frame, dataset="S2", metric="spread of effects")
    return decided(Quantity("spread", found if len(found) >= 20 else np.array([]), most=0.25))


def judge_salience(frame: pd.DataFrame) -> Verdict:
    """Item 12: both maps averaged over images."""
    return decided(Quantity("rank correlation", of_s1(frame, "salience correlation of averaged maps"), least=0.3))


def judge_salience_of_images(frame: pd.DataFrame) -> Verdict:
    """Item 12, image by image, averaged."""
    return decided(Quantity("rank correlation", of_s1(frame, "salience correlation of images"), least=0.3))


def covered(frame: pd.DataFrame, method: str) -> list[tuple[int, int]]:
    """(times the truth was held, data sets) of each cluster's effect."""
    chosen = select(frame, dataset="S1 coverage", method=method, metric="covered")
    parts = [part["value"].to_numpy() for _, part in groups(chosen, "cluster")] if len(chosen) else []
    return [(int(hits.sum()), len(hits)) for hits in parts]


def judge_coverage(frame: pd.DataFrame, method: str) -> Verdict:
    """Item 13: shares of 40 data sets, each cluster's within 80 to 98 %."""
    found = covered(frame, method)
    if len(found) < 2 or min(n for _, n in found) < 40:
        return Verdict(None)
    text = "; ".join(f"cluster {k}: {hits} of {n}" for k, (hits, n) in enumerate(found))
    chosen = select(frame, dataset="S1 coverage", method=method, metric="covered")
    each = [
        part["value"].to_numpy(float).mean() for _, part in groups(chosen, "seed")
    ]  # the clusters of a data set go together
    interval = mean_share(each, unit="data sets").interval
    return Verdict(all(0.8 <= hits / n <= 0.98 for hits, n in found), text, interval)


def judge_mean_field(frame: pd.DataFrame) -> Verdict:
    """Item 13a."""
    return judge_coverage(frame, "mean-field")


def judge_sandwich(frame: pd.DataFrame) -> Verdict:
    """Item 13b."""
    return judge_coverage(frame, "sandwich, other images")


def judge_ensemble(frame: pd.DataFrame) -> Verdict:
    """Item 13c, added here: whole refits to halves of the images."""
    return judge_coverage(frame, "ensemble, all images")


TRIAL = "Uganda YOP"
STATISTICS = (
    Statistic("deterministic", method="difference in means", dataset=TRIAL),
    Statistic("splits", dataset=TRIAL),
)
"""Seeds of the trial are other folds of the same people; its table of estimates shows their standard errors."""


COMMON = "effect clusters, common noise"


def judge_trial_ate(frame: pd.DataFrame, method: str = OURS) -> Verdict:
    """Item 14a: the mean out-of-fold effect, by fold seed, and the difference in means."""
    ate, se = (values(frame, dataset=TRIAL, method="difference in means", metric=m) for m in ("ATE", "ATE SE"))
    ours = values(frame, dataset=TRIAL, method=method, metric="ATE")
    if not len(ate) or len(ours) < 3:
        return Verdict(None)
    distance = np.abs(ours - ate[0]) / se[0]
    text = f"{ours.mean():.3f} against {ate[0]:.4f}, distances {', '.join(f'{d:.2f}' for d in distance)} SE"
    return Verdict(bool(distance.max() <= 1), text)


def judge_trial_rate(frame: pd.DataFrame, method: str = OURS) -> Verdict:
    """Item 14b: AUTOC is positive and its p-value below 0.05 at every fold seed."""
    autoc, se, p = (values(frame, dataset=TRIAL, method=method, metric=m) for m in ("AUTOC", "AUTOC SE", "AUTOC p"))
    if len(autoc) < 3 or len(p) != len(autoc):
        return Verdict(None)
    text = "; ".join(f"{a:.3f} (SE {s:.3f})" for a, s in zip(autoc, se, strict=True))
    return Verdict(bool(((autoc > 0) & (p < 0.05)).all()), f"AUTOC by fold seed {text}")


def judge_common_ate(frame: pd.DataFrame) -> Verdict:
    """Item 14a of the variant whose noise is the same in all clusters."""
    return judge_trial_ate(frame, COMMON)


def judge_common_rate(frame: pd.DataFrame) -> Verdict:
    """Item 14b of the variant."""
    return judge_trial_rate(frame, COMMON)


def timing(frame: pd.DataFrame, method: str, **place: Any) -> float:
    """One number of the part on cost; NaN where it is missing."""
    found = values(frame, dataset="cost", method=method, **place)
    return float(found[0]) if len(found) else math.nan


def bounded(text: str, ratio: float, most: float) -> Verdict:
    """Whether a ratio is at most a limit; open where it was not measured."""
    return Verdict(None) if math.isnan(ratio) else Verdict(ratio <= most, f"{text} {ratio:.2f}, at most {most:.2f}")


def judge_draws(frame: pd.DataFrame) -> Verdict:
    """Item 15a: eight draws over one."""
    one, eight = (timing(frame, "a step", draws=draws, images=32) for draws in (1, 8))
    return bounded("time of 8 draws over 1:", eight / one, 8 * 1.1)


def judge_batch(frame: pd.DataFrame) -> Verdict:
    """Item 15b: four times the images over once, with a tenth more allowed."""
    small, large = (timing(frame, "a step", draws=1, images=images) for images in (32, 128))
    return bounded("time of 128 images over 32:", large / small, 4 * 1.1)


def judge_memory(frame: pd.DataFrame) -> Verdict:
    """Item 15c: temporary memory of eight times the images over once."""
    small, large = (timing(frame, "transport", n=n) for n in (4_096, 32_768))
    return bounded("memory of 32,768 images over 4,096:", large / small, 1.05)


def judge_rate_cost(frame: pd.DataFrame) -> Verdict:
    """Item 15d: twice the draws in twice the time, four times the units in four log(4n) / log(n), a fifth allowed."""
    base, draws, units = (
        timing(frame, "RATE", draws=d, n=n) for d, n in ((200, 2_000), (400, 2_000), (200, 8_000))
    )  # fmt: skip
    most = 4 * math.log(8_000) / math.log(2_000) * 1.2
    parts = bounded("draws doubled:", draws / base, 2 * 1.2), bounded("units times 4:", units / base, most)
    return Verdict(all_of(part.met for part in parts), "; ".join(part.value for part in parts if part.value))


EFFECTS, MODEL, INFERENCE = (
    f"tests/causal/test_{name}.py::test_" for name in ("treatment_effects", "image_cate", "image_cate_inference")
)
CLAIMS = (
    Claim("1", "The mixture log-likelihood equals SciPy's to 1e-10, its gradient finite differences to 1e-6; by a "
          "logit it is responsibility less prior probability",
          ShownByTest(MODEL + "the_mixture_likelihood_equals_scipys_and_so_do_its_gradients")),
    Claim("2", "With K = 1 and no trunk the optimum is the difference in means and the sd of each arm, to 1e-4",
          ShownByTest(MODEL + "one_cluster_without_a_trunk_is_the_difference_in_means")),
    Claim("3", "KL terms equal the closed form and Monte Carlo within 3 SE",
          ShownByTest(MODEL + "divergences_equal_the_closed_form_and_monte_carlo")),
    Claim("4", "Effects are equivariant to the outcome's scale; permuting clusters changes nothing",
          ShownByTest(MODEL + "effects_follow_the_outcomes_scale_and_clusters_have_no_order")),
    Claim("5", "Reparameterised, flipout and local estimators have one mean; flipout's and local's variances agree",
          ShownByTest(MODEL + "estimators_agree_in_mean_and_variance")),
    Claim("6", "The sensitivity map of a linear logit is the box mean of its weights' norm, smoothed by the known "
          "factor", ShownByTest(INFERENCE + "sensitivity_of_a_linear_logit_is_known")),
    Claim("7a", "AUTOC and Qini equal a NumPy re-computation with ties to 1e-10",
          ShownByTest(EFFECTS + "autoc_and_qini_equal_a_recomputation_with_ties")),
    Claim("7b", "Random priorities give |AUTOC| below 3 SE in at least 95 of 100 seeds",
          ShownByTest(EFFECTS + "random_priorities_are_found_to_be_worth_nothing")),
    Claim("7c", "Half-sample standard errors are within 15 % of the spread over 300 data sets",
          ShownByTest(EFFECTS + "standard_errors_of_half_samples_equal_the_spread_over_data_sets")),
    Claim("8", "CDF(quantile(u)) = u to 1e-6; with one component it is the normal quantile",
          ShownByTest(INFERENCE + "quantiles_of_mixtures_invert_their_distribution")),
    Claim("9a", "S1: PEHE at most 0.55 of that of the difference in means",
          ShownByRecords("ratio over seeds, interval", judge_pehe)),
    Claim("9b", "S1: correlation of cluster probabilities at least 0.85",
          ShownByRecords("over seeds, interval", judge_probability)),
    Claim("9c", "S1: both effects within 0.25 of the truth", ShownByRecords("over seeds, interval", judge_mu)),
    Claim("9d", "S1: implied ATE within 2 SE of the difference in means",
          ShownByRecords("largest over seeds, clustered SE", judge_ate)),
    Claim("10", "S1: PEHE below that of TARNet with the same trunk",
          ShownByRecords("paired over seeds", judge_tarnet)),
    Claim("11a", "S2: the 95 % interval of AUTOC holds 0 in at least 90 % of 20 data sets",
          ShownByRecords("images not trained on, half-samples of images", judge_null)),
    Claim("11b", "S2: the spread of effects is below 0.25",
          ShownByRecords("images not trained on, over data sets", judge_spread)),
    Claim("12a", "S1: sensitivity averaged over images goes with the averaged response (rank correlation above 0.3)",
          ShownByRecords("box means of 10 x 10, over seeds", judge_salience)),
    Claim("12b", "S1: so it does image by image",
          ShownByRecords("mean over images, over seeds", judge_salience_of_images)),
    Claim("13a", "S1: 90 % mean-field intervals for mu hold the truth in 80 to 98 % of 40 data sets",
          ShownByRecords("share of data sets, by cluster", judge_mean_field)),
    Claim("13b", "S1: an interval that is offered does: the clustered sandwich on images not trained on",
          ShownByRecords("share of data sets, by cluster", judge_sandwich)),
    Claim("13c", "S1: so does an ensemble of six whole refits to halves of all images (added by us)",
          ShownByRecords("share of data sets, by cluster", judge_ensemble)),
    Claim("14a", "Uganda: implied ATE within one clustered SE of 0.7415",
          ShownByRecords("mean out-of-fold effect, every fold seed", judge_trial_ate)),
    Claim("14b", "Uganda: out-of-fold AUTOC above 0 at the 5 % level",
          ShownByRecords("every fold seed, half-samples of image keys", judge_trial_rate)),
    Claim("14c", "Uganda: 14a with noise that is the same in all clusters",
          ShownByRecords("mean out-of-fold effect, every fold seed", judge_common_ate)),
    Claim("14d", "Uganda: 14b with noise that is the same in all clusters",
          ShownByRecords("every fold seed, half-samples of image keys", judge_common_rate)),
    Claim("15a", "A step with S draws takes at most 1.1 S times one with one draw",
          ShownByRecords("least seconds of 7, compilation apart", judge_draws)),
    Claim("15b", "A step's time is linear in the batch", ShownByRecords("least seconds of 7", judge_batch)),
    Claim("15c", "Transport's memory does not depend on the number of images",
          ShownByRecords("bytes beside input and output", judge_memory)),
    Claim("15d", "R draws of RATE take O(R n log n) in one compiled call",
          ShownByRecords("least seconds of 7", judge_rate_cost)),
)  # fmt: skip
