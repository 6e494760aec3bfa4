"""What must be shown of ``scan_eeg``, and how its records are judged."""

import functools
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from core.stats import within
from experiments.lab import judging
from experiments.lab.frames import groups, select, values
from experiments.lab.judging import Quantity
from experiments.lab.statistics import SHARE, Statistic, statistic
from experiments.lab.system import Claim, NotShown, ShownByRecords, ShownByTest, Verdict
from experiments.scan_eeg.config import SMNI, STOP, UCI
from latent.scan_eeg import LABELS

STATISTICS = (
    Statistic("balanced share", "balanced accuracy", dataset=UCI, over="person"),
    *(Statistic("share", "balanced accuracy", dataset=name, over="person") for name in (SMNI, STOP)),
    *(Statistic("share", label) for label in (*LABELS, "balanced accuracy")),
    *(Statistic("share", metric) for metric in ("marker is carrier*", "carrier in top two*", "mean accuracy")),
    Statistic("mean", "correlation with other trials", over="person"),
)
PEOPLE = 20
"""With fewer nothing is judged of recordings."""
SEEDS = 3
"""At fewer seeds nothing is judged."""
REFERENCE = 8.0
Judge = Callable[[pd.DataFrame], Verdict]


decided = functools.partial(judging.decided, seeds=SEEDS)


def gain(frame: pd.DataFrame, label: str) -> np.ndarray:
    """Accuracy of the representation less that of the LPP, by seed."""
    ours, lpp = (
        values(frame, dataset="simulated", method=f"{method} + LR", metric=label)
        for method in ("beta-VAE", "LPP difference")
    )
    return ours - lpp if len(ours) == len(lpp) else np.array([])


def judge_beats_lpp(frame: pd.DataFrame) -> Verdict:
    """Item 5a: labels which the LPP does not hold."""
    limits = {"age": 0.25, "sex": 0.12, "anxiety": 0.12}
    return decided(*[Quantity(f"{label} +", gain(frame, label), least) for label, least in limits.items()])


def judge_equals_lpp(frame: pd.DataFrame) -> Verdict:
    """Item 5b: the label which the LPP holds; the representation may be better but not worse by 0.05."""
    return decided(Quantity("depression, difference", gain(frame, "depression"), -0.05))


def judge_chance(frame: pd.DataFrame) -> Verdict:
    """Item 5c: a label that nothing depends on."""
    found = values(frame, dataset="simulated", method="beta-VAE + LR", metric="random")
    return decided(Quantity("random label", found, 0.43, 0.57, SHARE))


def denoised(frame: pd.DataFrame, source: str, form: str) -> np.ndarray:
    """Correlation with the clean ERP after less before, by seed."""
    at = {"part": "denoising", "metric": "correlation with clean", "source": source, "form": form}
    before, after = (values(frame, method=method, **at) for method in ("none", "beta-VAE"))
    return after - before if len(before) == len(after) else np.array([])


def judge_denoising(frame: pd.DataFrame) -> Verdict:
    """Item 6: single trials and averages, whole and less the grand mean."""
    limits = (
        ("single trial", "whole", 0.15), ("ERP", "whole", 0.02), ("single trial", "less grand mean", 0.05),
        ("ERP", "less grand mean", 0.05),
    )  # fmt: skip
    return decided(*[
        Quantity(f"{source}, {form} +", denoised(frame, source, form), least) for source, form, least in limits
    ])  # fmt: skip


def by_beta(frame: pd.DataFrame, metric: str, beta: float, part: str = "pool") -> np.ndarray:
    """Mean over the models of a beta, by seed."""
    rows = select(frame, part=part, metric=metric, beta=beta)
    return np.array([group["value"].mean() for _, group in groups(rows, "seed")]) if len(rows) else np.array([])


def change(frame: pd.DataFrame, metric: str, start: float, stop: float) -> np.ndarray:
    """Its change from one beta to another, by seed."""
    a, b = by_beta(frame, metric, start), by_beta(frame, metric, stop)
    return b - a if len(a) == len(b) else np.array([])


def judge_active(frame: pd.DataFrame) -> Verdict:
    """Item 7a: fewer latents are active at a larger beta."""
    return decided(Quantity("active latents, beta 16 less beta 2", change(frame, "active latents", 2.0, 16.0), most=0))


def judge_concentration(frame: pd.DataFrame) -> Verdict:
    """Item 7b: single latents carry more at a larger beta."""
    names = {
        "age by its best latent +": "best latent: age",
        "N1 latency's largest correlation +": "largest correlation: N1 latency",
    }
    return decided(*[Quantity(words, change(frame, metric, 2.0, 16.0), 0) for words, metric in names.items()])


def judge_udr_of_betas(frame: pd.DataFrame) -> Verdict:
    """Item 7c: models of beta 8 agree with the pool more than those of beta 2 and 16."""
    metric = "UDR (lasso)"
    return decided(*[Quantity(f"UDR, beta 8 less beta {b:g}", change(frame, metric, b, 8.0), 0) for b in (2.0, 16.0)])


def judge_markers(frame: pd.DataFrame) -> Verdict:
    """Item 8a: in most models the marker is the carrier (shares over models, intervals over seeds)."""
    return decided(*[
        Quantity(f"{label}: share of models", by_beta(frame, f"marker is carrier: {label}", REFERENCE, "markers"), 0.5,
                 statistic=SHARE)
        for label in ("depression", "sex")
    ])  # fmt: skip


def judge_random_marker(frame: pd.DataFrame) -> Verdict:
    """Item 8b: a label that nothing depends on moves no active latent."""
    found = by_beta(frame, "largest difference: random", REFERENCE, "markers")
    return decided(Quantity("largest difference", found, most=0.15))


def judge_selection(frame: pd.DataFrame) -> Verdict:
    """Item 9a: the selected model's accuracy less the sweep's median."""
    found = values(frame, part="selection", metric="selected less median accuracy")
    return decided(Quantity("selected less median", found, 0))


def judge_rank_correlation(frame: pd.DataFrame) -> Verdict:
    """Item 9b: over the models of a seed, UDR goes with how well single latents follow factors."""
    pool = select(frame, part="pool")
    found = []
    for _, part in groups(pool, "seed") if len(pool) else ():
        table = part.pivot_table(index=["beta", "member"], columns="metric", values="value")
        if len(table) >= 4:
            found.append(spearmanr(table["UDR (lasso)"], table["mean largest correlation"])[0])
    return decided(Quantity("rank correlation", np.array(found), 0))


def judge_new_label(frame: pd.DataFrame) -> Verdict:
    """Item 10: seconds of training SCAN on a new label."""
    return decided(Quantity("seconds", values(frame, dataset="cost", metric="seconds for a new label"), 0, 30))


def judge_uci(frame: pd.DataFrame) -> Verdict:
    """Item 11: repeated cross-validation; the interval is over people, whom the repetitions share."""
    rows = select(frame, dataset=UCI, metric="balanced accuracy")
    rows = rows.loc[rows["method"].str.startswith("beta-VAE-10")] if len(rows) else rows
    if "class" not in rows or len(rows) < PEOPLE:
        return Verdict(None)
    found = statistic(STATISTICS, UCI, metric="balanced accuracy").of(rows["value"].to_numpy(), list(rows["class"]))
    text = f"balanced accuracy {found.value:.3f} over {found.n} people"
    return Verdict(within(found.interval, 0.6), text, found.interval)


def judge_one_program(frame: pd.DataFrame) -> Verdict:
    """Item 12a: seconds per model and step of a pool over those of one model at a time, CPU."""
    alone, together = (
        values(frame, dataset="cost", method=method, metric="seconds per model and step")
        for method in ("one after another", "one program")
    )
    if len(alone) != len(together) or not len(alone):
        return Verdict(None)
    return decided(Quantity("time in the pool over time alone", together / alone, 0, 1.1))


TESTS = "tests/latent/test_scan_eeg.py::"
CLAIMS = (
    Claim(
        "1", "KL formulas equal torch.distributions', KL(q||q) = 0, and at beta = 1 the loss is the negative ELBO",
        ShownByTest(TESTS + "test_divergences_and_the_elbo_equal_their_definitions"),
    ),
    Claim(
        "2a", "UDR equals a NumPy and scikit-learn transcription (Lasso 0.1 and Spearman) to 1e-3",
        ShownByTest(TESTS + "test_udr_equals_a_transcription_with_scikit_learn"),
    ),
    Claim(
        "2b", "Permuting and flipping latents leaves UDR as it is; rotating them lowers it",
        ShownByTest(TESTS + "test_udr_knows_permutations_and_signs_from_rotations"),
    ),
    Claim(
        "3", "Encoder and decoder shapes (366 features when unpadded); layers equal torch's Conv1d and ConvTranspose1d",
        ShownByTest(TESTS + "test_layers_equal_those_of_torch_and_have_the_published_shapes"),
    ),
    Claim(
        "4", "Balanced accuracy equals scikit-learn's, absent classes left out",
        ShownByTest(TESTS + "test_balanced_accuracy_equals_that_of_scikit_learn"),
    ),
    Claim(
        "5a", "The representation beats the LPP for age by 0.25, for sex and anxiety by 0.12 (balanced accuracy)",
        ShownByRecords("paired differences at beta = 8, logistic regression", judge_beats_lpp),
    ),
    Claim(
        "5b", "For depression it is no more than 0.05 below the LPP",
        ShownByRecords("paired difference at beta = 8, logistic regression", judge_equals_lpp),
    ),
    Claim("5c", "A random label stays within 0.5 ± 0.07", ShownByRecords("accuracy at beta = 8", judge_chance)),
    Claim(
        "6",
        "Decoding gains 0.15 in correlation with the clean ERP for single trials, 0.02 for averages; less the grand "
        "mean 0.05",
        ShownByRecords("correlations after less before, beta = 8", judge_denoising),
    ),
    Claim("7a", "Fewer latents are active at larger beta", ShownByRecords("beta 16 less beta 2", judge_active)),
    Claim(
        "7b", "The best single latent for age and the one for N1 latency strengthen with beta",
        ShownByRecords("beta 16 less beta 2", judge_concentration),
    ),
    Claim("7c", "UDR is highest at beta 8", ShownByRecords("beta 8 less beta 2 and 16", judge_udr_of_betas)),
    Claim(
        "8a", "SCAN's marker of depression is the LPP's latent, that of sex N1 amplitude's",
        ShownByRecords("share of models of beta 8 over 0.5, active latents", judge_markers),
    ),
    Claim(
        "8b", "A random label moves no active latent by 0.15",
        ShownByRecords("largest difference at beta 8", judge_random_marker),
    ),
    Claim(
        "9a", "UDR selects a model more accurate than the sweep's median",
        ShownByRecords("mean accuracy of the four planted labels", judge_selection),
    ),
    Claim(
        "9b", "UDR goes with the mean largest correlation of factors with latents",
        ShownByRecords("Spearman over the models of a seed", judge_rank_correlation),
    ),
    Claim(
        "10", "SCAN learns a new label on a frozen encoder in less than 30 s",
        ShownByRecords("seconds of 4,000 steps, compilation apart", judge_new_label),
    ),
    Claim(
        "11", "beta-VAE-10 + LR tells alcoholic people from controls with 0.60 in 10 x 5-fold cross-validation",
        ShownByRecords("UCI averages, FZ, PZ, OZ; encoders trained without the test people", judge_uci),
    ),
    Claim(
        "12a", "On the CPU a pool as one program is no slower per model than one model at a time",
        ShownByRecords("ratio of seconds per model and step", judge_one_program),
    ),
    Claim(
        "12b", "On an accelerator a pool of 30 models takes a third of the time per model",
        NotShown("no accelerator was at hand"),
    ),
)  # fmt: skip
