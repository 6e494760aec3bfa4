"""What must be shown of ``concept_space``, and how its records are judged."""

from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from core.stats import all_of, rank_correlation, summary, within
from experiments.lab.frames import groups, select, values
from experiments.lab.system import Claim, NotShown, ShownByRecords, ShownByTest, Verdict

SEEDS = 5
"""At fewer seeds nothing is judged."""


def judge_learned(frame: pd.DataFrame) -> Verdict:
    """Item 6: at the end of training the seen classes that carry a concept show it, at sep_colour 0.2 and 0.8."""
    words, met = [], True
    for separation in (0.2, 0.8):
        for metric in ("final colour of class 10", "final size of class 01"):
            found = values(frame, dataset="discs", metric=metric, sep_colour=separation)
            if len(found) < SEEDS:
                return Verdict(None)
            met &= found.mean() > 0.9
            words.append(f"{metric} {found.mean():.2f} at {separation:g}")
    return Verdict(bool(met), "discs: " + ", ".join(words))


def judge_speed(frame: pd.DataFrame) -> Verdict:
    """Item 7: Spearman correlation of the time to learn a concept with its separation, per seed, over the sweep."""
    words, answers, bounds = [], [], None
    for concept, fixed in (("colour", "sep_size"), ("size", "sep_colour")):
        rows = select(frame, dataset="vectors", variant="plain", metric=f"time to learn {concept}", **{fixed: 0.4})
        found = []
        for _, part in groups(rows, "seed"):
            if len(part) >= 6:
                times = part["value"].replace(np.inf, 1e9).to_numpy()
                found.append(rank_correlation(part[f"sep_{concept}"].to_numpy(), times))
        if len(found) < SEEDS:
            return Verdict(None)
        mean, slope = summary(np.array(found)), exponent(rows, concept)
        bounds = bounds or mean.interval
        answers += [mean.value < -0.7, within(mean.interval, most=0)]
        words.append(f"{concept} {mean.value:.2f} [{mean.low:.2f}, {mean.high:.2f}], time ~ separation^{slope:.1f}")
    return Verdict(all_of(answers), "vectors, rank correlation of time with separation: " + ", ".join(words), bounds)


def exponent(rows: pd.DataFrame, concept: str) -> float:
    """Slope of log time over log separation, of the runs that learned the concept."""
    learned = rows[np.isfinite(rows["value"])]
    return float(np.polyfit(np.log(learned[f"sep_{concept}"]), np.log(learned["value"]), 1)[0])


def judge_turn(frame: pd.DataFrame) -> Verdict:
    """Item 8: the path first leads to the class with the stronger concept, then bends, inside, in 4 of 5 seeds."""
    words, met = [], True
    for dataset in ("discs", "vectors"):
        at = {"dataset": dataset, "sep_colour": 0.2, "sep_size": 0.4, "variant": "plain"}
        metrics = ("first to the stronger", "turn inside", "turn in degrees", "turn at")
        first, inside, degrees, step = (values(frame, metric=metric, **at) for metric in metrics)
        if min(map(len, (first, inside, degrees, step))) < SEEDS:
            return Verdict(None)
        both, when = ((first > 0) & (inside > 0)).mean(), summary(step)
        met &= both >= 0.8
        words.append(f"{dataset}: {both:.0%} of {len(first)} runs, bending by {np.median(degrees):.0f} degrees at step "
                     f"{when.value:.0f} [{when.low:.0f}, {when.high:.0f}]")  # fmt: skip
    return Verdict(bool(met), "toward the class with the stronger concept and a turn inside the path in "
                   + "; ".join(words))  # fmt: skip


def elicited(frame: pd.DataFrame, dataset: str) -> dict[str, np.ndarray] | None:
    """Times of joint success by protocol at sep_colour 0.2, by seed."""
    at = {"dataset": dataset, "sep_colour": 0.2, "sep_size": 0.4, "variant": "plain", "metric": "time"}
    methods = ["naive", "over-prompting", "latent"] + (["patched"] if dataset == "discs" else [])
    found = {method: values(frame, method=method, **at) for method in methods}
    return found if min(map(len, found.values())) >= SEEDS else None


def judge_elicitation(frame: pd.DataFrame) -> Verdict:
    """Item 9: over-prompting or latent intervention succeeds at an earlier checkpoint, in 4 of 5 seeds."""
    words, met = [], True
    for dataset in ("discs", "vectors"):
        times = elicited(frame, dataset)
        if times is None:
            return Verdict(None)
        best = np.minimum(times["over-prompting"], times["latent"])
        earlier = (best < times["naive"]).mean()
        met &= earlier >= 0.8
        text = ", ".join(f"{name} {np.median(found):g}" for name, found in times.items())
        words.append(f"{dataset}: earlier in {earlier:.0%} of {len(best)} runs (median steps: {text})")
    return Verdict(bool(met), "; ".join(words))


def judge_protocols_agree(frame: pd.DataFrame) -> Verdict:
    """Item 10: on discs, over-prompting and latent intervention succeed within one checkpoint of each other."""
    times = elicited(frame, "discs")
    if times is None:
        return Verdict(None)
    steps = np.unique(select(frame, dataset="discs", metric="both right", method="latent")["step"].to_numpy())
    over, latent = times["over-prompting"], times["latent"]
    gap = np.abs(np.searchsorted(steps, over) - np.searchsorted(steps, latent))
    close = ((gap <= 1) & np.isfinite(over) & np.isfinite(latent)).mean()
    scatter = ", ".join(f"{a:g} and {b:g}" for a, b in zip(over, latent, strict=True))
    return Verdict(bool(close > 0.5), f"within one checkpoint in {close:.0%} of {len(gap)} runs (steps: {scatter})")


def judge_underspecified(frame: pd.DataFrame) -> Verdict:
    """Item 11: the unseen class's accuracy falls with the probability of leaving the colour out, trend over runs."""
    rows = select(frame, dataset="vectors", variant="underspecified", metric="final both right")
    if len(rows) < 4 * SEEDS:
        return Verdict(None)
    trend: Any = scipy.stats.kendalltau(rows["alpha"].to_numpy(), rows["value"].to_numpy())
    means = ", ".join(f"{part['value'].mean():.2f} at {alpha:g}" for (alpha,), part in groups(rows, "alpha"))
    return Verdict(bool(trend.statistic < 0 and trend.pvalue < 0.05),
                   f"Kendall's tau {trend.statistic:.2f} (p = {trend.pvalue:.2g}): {means}")  # fmt: skip


def judge_delayed(frame: pd.DataFrame) -> Verdict:
    """Item 11, the paper's "delay": the first step of joint success grows with the same probability."""
    rows = select(frame, dataset="vectors", variant="underspecified", metric="time", method="naive")
    if len(rows) < 4 * SEEDS:
        return Verdict(None)
    times = rows["value"].replace(np.inf, 1e9).to_numpy()
    trend: Any = scipy.stats.kendalltau(rows["alpha"].to_numpy(), times)
    middle = ", ".join(f"{np.median(part['value']):g} at {alpha:g}" for (alpha,), part in groups(rows, "alpha"))
    return Verdict(bool(trend.statistic > 0 and trend.pvalue < 0.05),
                   f"Kendall's tau {trend.statistic:.2f} (p = {trend.pvalue:.2g}), median steps: {middle}")  # fmt: skip


def judge_controls(frame: pd.DataFrame) -> Verdict:
    """Item 12: without or with permuted prompts the unseen class is never shown above chance (a quarter)."""
    words, met = [], True
    for variant in ("unconditional", "permuted"):
        found = values(frame, dataset="vectors", variant=variant, metric="final both right")
        if len(found) < SEEDS:
            return Verdict(None)
        met &= found.max() <= 0.25
        words.append(f"{variant} {found.max():.2f} at most")
    return Verdict(bool(met), ", ".join(words))


TESTS = "tests/interp/test_concept_space.py::"
CLAIMS = (
    Claim("1a", "The disc has its area, the triangle the disc's, and colours are exact",
          ShownByTest(TESTS + "test_discs_and_triangles_have_their_area_and_colour")),
    Claim("1b", "Colour and size measured from pixels are those rendered, to 0.02",
          ShownByTest(TESTS + "test_measurement_recovers_what_was_rendered")),
    Claim("2a", "The loss of a linear denoiser on Gaussian data is its closed form",
          ShownByTest("tests/latent/test_diffusion_vocabulary.py::"
                      "test_the_loss_of_a_linear_denoiser_on_gaussian_data_is_its_closed_form")),
    Claim("2b", "The loss is invariant to the path between fixed ends",
          ShownByTest("tests/latent/test_diffusion_vocabulary.py::"
                      "test_the_diffusion_term_does_not_see_the_path_between_the_ends")),
    Claim("3", "Concept signals equal finite differences and grow with the separation",
          ShownByTest(TESTS + "test_concept_signals_are_derivatives_and_grow_with_the_separation")),
    Claim("4a", "Leaving the colour out of a prompt leaves the rest of it bit for bit",
          ShownByTest(TESTS + "test_masking_a_prompt_leaves_the_rest")),
    Claim("4b", "Guidance of weight 1 is no guidance",
          ShownByTest("tests/latent/test_diffusion_vocabulary.py::"
                      "test_weights_one_and_zero_are_exact_where_no_program_is_fused")),
    Claim("5a", "Scanned, unrolled and host-dispatched training of the U-Net agree",
          ShownByTest(TESTS + "test_loops_of_training_agree")),
    Claim("5b", "Both forms of convolution agree: XLA's derivatives, and ours written as forward passes",
          ShownByTest("tests/core/test_conv.py::test_forms_of_convolution_agree")),
    Claim("6", "Concepts of the training classes are learned (accuracy above 0.9) at sep_colour 0.2 and 0.8",
          ShownByRecords("final accuracies of discs, mean over seeds", judge_learned)),
    Claim("7", "The time to learn a concept falls with its separation (rank correlation below -0.7)",
          ShownByRecords("vectors, six separations each, per seed", judge_speed)),
    Claim("8", "The unseen class first looks like the seen one with the stronger concept and then turns",
          ShownByRecords("trajectories at sep_colour 0.2, discs and vectors", judge_turn)),
    Claim("9", "Exaggerated prompts or latent interventions succeed at an earlier checkpoint than naive prompts",
          ShownByRecords("first checkpoint with joint accuracy above 0.8, sep_colour 0.2", judge_elicitation)),
    Claim("10", "The protocols' times agree within one checkpoint for most runs",
          ShownByRecords("discs, sep_colour 0.2", judge_protocols_agree)),
    Claim("11a", "Final accuracy on the unseen class falls with the share of underspecified prompts",
          ShownByRecords("vectors, Kendall's trend over alpha", judge_underspecified)),
    Claim("11b", "Underspecified prompts delay the first success on the unseen class",
          ShownByRecords("vectors, Kendall's trend of the time over alpha", judge_delayed)),
    Claim("12", "Unconditional models and permuted prompts stay at chance",
          ShownByRecords("vectors, largest final accuracy over seeds", judge_controls)),
    Claim("13", "On an accelerator the cost per run does not grow with the number of vmapped runs",
          NotShown("no accelerator was at hand; the vectors of all settings and seeds run as one vmapped program")),
)  # fmt: skip
