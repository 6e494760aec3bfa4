"""What must be shown of ``causal_diffae``, and how its records are judged."""

from typing import cast

import numpy as np
import pandas as pd

from core.stats import all_of, correlation_limits, paired, share, summary, within
from experiments.causal_diffae.study import digits
from experiments.causal_diffae.study.scores import DATASET
from experiments.causal_diffae.study.strokes import DIFFAE, LABELS, MAIN, PROPAGATED, WEAK_GAMMA
from experiments.lab.frames import interval, select, values
from experiments.lab.statistics import Statistic
from experiments.lab.system import Claim, ShownByRecords, ShownByTest, Verdict

STATISTICS = tuple(Statistic("share", metric) for metric in ("digits kept*", "accuracy"))
SEEDS = 3
"""At fewer seeds nothing is judged of strokes."""


def strokes(frame: pd.DataFrame, method: str, metric: str, **more: object) -> np.ndarray:
    """Values by seed; none where there are too few. Without a weight, those of plain decoding."""
    if "weight" not in more:
        frame = unguided(frame)
    found = values(frame, dataset=DATASET, method=method, metric=metric, **more)
    return found if len(found) >= SEEDS else np.empty(0)


def unguided(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that belong to no weight of guidance."""
    return cast(pd.DataFrame, frame.loc[frame["weight"].isna()]) if "weight" in frame else frame


def missing(*found: np.ndarray) -> bool:
    """Whether one of several is not there, or was not measured for the same number of seeds."""
    return not min(map(len, found)) or len(set(map(len, found))) > 1


def judge_inversions(frame: pd.DataFrame) -> Verdict:
    """Item 3, last part: a report, met when the errors of the three modes are there and finite."""
    modes = ("explicit", "fixed_point", "heun")
    found = [strokes(frame, MAIN, "inversion MSE", mode=mode) for mode in modes]
    if missing(*found):
        return Verdict(None)
    text = ", ".join(f"{mode} {each.mean():.2g}" for mode, each in zip(modes, found, strict=True))
    return Verdict(bool(np.isfinite(found).all()), f"mean squared error, trained network: {text}")


def judge_order(frame: pd.DataFrame) -> Verdict:
    """Item 6: causal < do nothing < DiffAE in distance to the true counterfactual, paired intervals away from 0."""
    causal, nothing, plain = (strokes(frame, method, "cf-MSE do(t)") for method in (MAIN, "do nothing", DIFFAE))
    if missing(causal, nothing, plain):
        return Verdict(None)
    gain, loss = paired(nothing, causal), paired(plain, nothing)
    text = f"causal {interval(causal, 4)}, do nothing {nothing.mean():.4f}, DiffAE {interval(plain, 4)}"
    return Verdict(all_of(within(found.interval, 0) for found in (gain, loss)), text, gain.interval)


def judge_abduction(frame: pd.DataFrame) -> Verdict:
    """Item 6: the error with random x_T is at least twice that with the abducted one."""
    own, random = (strokes(frame, MAIN, metric) for metric in ("cf-MSE do(t)", "cf-MSE do(t), random x_T"))
    if missing(own, random):
        return Verdict(None)
    ratio = summary(random / own)
    text = f"random over abducted: {ratio.value:.2f} ({random.mean():.4f} against {own.mean():.4f})"
    return Verdict(within(ratio.interval, 2.0), text, ratio.interval)


def judge_alignment(frame: pd.DataFrame) -> Verdict:
    """Item 6: block means correlate with their labels, the weaker of the two."""
    found = strokes(frame, MAIN, "label correlation")
    if missing(found):
        return Verdict(None)
    mean = summary(found)
    return Verdict(within(mean.interval, 0.97), f"smallest correlation {interval(found)}", mean.interval)


def judge_trade_off(frame: pd.DataFrame) -> Verdict:
    """Item 6: small gamma reconstructs better, large gamma is aligned better."""
    images = [strokes(frame, method, "reconstruction MSE") for method in (MAIN, WEAK_GAMMA)]
    aligned = [strokes(frame, method, "label correlation") for method in (MAIN, WEAK_GAMMA)]
    if missing(*images, *aligned):
        return Verdict(None)
    worse, better = paired(images[0], images[1]), paired(aligned[0], aligned[1])
    text = f"reconstruction {images[0].mean():.5f} and {images[1].mean():.5f} at gamma 1 and small gamma; label "
    text += f"correlation {aligned[0].mean():.3f} and {aligned[1].mean():.3f}"
    return Verdict(all_of([within(worse.interval, 0), better.value > 0]), text, worse.interval)


def judge_follows(frame: pd.DataFrame) -> Verdict:
    """Item 7: under do(t) the measured intensity correlates with the one which the causal model says."""
    found = strokes(frame, MAIN, "r(i), do(t)")
    if missing(found):
        return Verdict(None)
    mean = summary(found)
    return Verdict(within(mean.interval, 0.8), f"r = {interval(found)}", mean.interval)


def judge_stays(frame: pd.DataFrame) -> Verdict:
    """Item 7: under do(i) the measured thickness stays within half a pixel."""
    found = strokes(frame, MAIN, "thickness kept under do(i), px")
    if missing(found):
        return Verdict(None)
    mean = summary(found)
    return Verdict(within(mean.interval, most=0.5), f"mean change {interval(found)} px", mean.interval)


def judge_labels(frame: pd.DataFrame) -> Verdict:
    """Item 7: with independent labels the intensity does not follow, with propagated ones it does better."""
    alone, told = (strokes(frame, method, "r(i), do(t)") for method in (LABELS, PROPAGATED))
    if missing(alone, told):
        return Verdict(None)
    gap = paired(told, alone)
    text = f"r(measured i, i') under do(t): independent {interval(alone, 2)}, propagated {interval(told, 2)}"
    met = all_of([within(summary(alone).interval, most=0.8), within(gap.interval, 0)])
    return Verdict(met, text, gap.interval)


def judge_few_labels(frame: pd.DataFrame) -> Verdict:
    """Item 8: the error of measured attributes under do(t) grows by less than half at 50 % labels."""
    metrics = ("MAE(t) measured, do(t)", "MAE(i) measured, do(t)")
    errors = []
    for method in (MAIN, f"{MAIN}, 50% labels", f"{MAIN}, 20% labels"):
        found = [strokes(frame, method, metric) for metric in metrics]
        if missing(*found):
            return Verdict(None)
        errors.append(np.mean(found, axis=0))
    ratio = summary(errors[1] / errors[0])
    text = "MAE in standard deviations: " + ", ".join(
        f"{each.mean():.3f} at {share}" for each, share in zip(errors, ("100 %", "50 %", "20 %"), strict=True)
    )
    return Verdict(within(ratio.interval, most=1.5), text, ratio.interval)


def judge_guidance(frame: pd.DataFrame) -> Verdict:
    """Item 8: the measured effect of do(t) rises with the weight, each step in the mean, the whole beyond doubt."""
    rows = select(frame, dataset=DATASET, method=MAIN, metric="effect of do(t)")
    weights = sorted(rows["weight"].unique()) if len(rows) else []
    found = [strokes(rows, MAIN, "effect of do(t)", weight=weight) for weight in weights]
    if len(found) < 4 or missing(*found):
        return Verdict(None)
    means, whole = [each.mean() for each in found], paired(found[-1], found[0])
    text = ", ".join(f"{mean:.2f} at w = {weight:g}" for mean, weight in zip(means, weights, strict=True))
    met = all_of([bool(np.all(np.diff(means) > 0)), within(whole.interval, 0)])
    return Verdict(met, f"share of the change carried out: {text}", whole.interval)


def judge_real_intensity(frame: pd.DataFrame) -> Verdict:
    """Item 9: correlation over test images of measured and wanted intensity, with Fisher's interval."""
    at = {"dataset": digits.DATASET, "method": MAIN}
    found, count = values(frame, metric="r(i), do(i)", **at), values(frame, metric="digits, do(i)", **at)
    if missing(found, count):
        return Verdict(None)
    r, n = float(found.mean()), float(count.sum())
    low, high = correlation_limits(r, n)
    return Verdict(within((low, high), 0.9), f"r = {r:.3f} over {n:.0f} digits", (low, high))


def judge_real_digits(frame: pd.DataFrame, question: str, least: float) -> Verdict:
    """Item 9: the share of digits read as before, with Wilson's interval."""
    at = {"dataset": digits.DATASET, "method": MAIN}
    fractions, count = (
        values(frame, metric=f"digits kept, {question}", **at),
        values(frame, metric="digits, do(i)", **at),
    )
    accuracy = values(frame, dataset=digits.DATASET, metric="accuracy")
    if missing(fractions, count, accuracy):
        return Verdict(None)
    kept, n = round(float((fractions * count).sum())), round(float(count.sum()))
    text = (
        f"{kept / n:.0%} of {n} digits under {question}; the classifier reads {accuracy.mean():.1%} of originals right"
    )
    interval = share(kept, n).interval
    return Verdict(within(interval, least), text, interval)


TESTS, METRICS = "tests/causal/test_causal_diffae.py::", "tests/causal/test_disentanglement.py::"
CLAIMS = (
    Claim("1a", "The causal layer equals a topological loop, and the code's mode its formula, to 1e-5",
          ShownByTest(TESTS + "test_the_causal_layer_equals_a_topological_loop_and_the_formula_of_the_code")),
    Claim("1b", "do leaves non-descendants bit for bit, recomputes descendants from the same u, and commutes",
          ShownByTest(TESTS + "test_interventions_leave_non_descendants_alone_and_commute")),
    Claim("2a", "Both divergences equal quadrature",
          ShownByTest(TESTS + "test_divergences_equal_quadrature")),
    Claim("2b", "gamma rises from 0 to its largest value",
          ShownByTest(TESTS + "test_gamma_starts_at_zero_and_ends_at_its_largest")),
    Claim("2c", "Dropped examples contribute 0; an all-dropped batch is finite",
          ShownByTest(TESTS + "test_dropped_examples_contribute_nothing")),
    Claim("3a", "A null intervention gives the image back, to 1e-5 and 1e-3",
          ShownByTest(TESTS + "test_null_interventions_give_the_image_back")),
    Claim("3b", "The error of explicit inversion falls as 1/N",
          ShownByTest(TESTS + "test_explicit_inversion_is_of_first_order")),
    Claim("3c", "Errors of the three modes of inversion are reported for a trained network",
          ShownByRecords("null interventions without clipping, StrokeToy", judge_inversions)),
    Claim("4", "Weight 1 is plain decoding, weight 0 ignores the intervention, a doubled batch is two calls",
          ShownByTest(TESTS + "test_guidance_of_weight_one_is_none_and_of_zero_ignores_the_intervention")),
    Claim("5a", "DCI is 1 for one-hot and 0 for uniform importances",
          ShownByTest(METRICS + "test_one_hot_importances_score_one_and_uniform_ones_zero")),
    Claim("5b", "DCI equals the entropies of SciPy to 1e-12",
          ShownByTest(METRICS + "test_scores_agree_with_the_entropies_of_scipy")),
    Claim("5c", "Counterfactual intensities reproduce the factual one and go there and back",
          ShownByTest("tests/causal/test_image_scms.py::test_counterfactual_intensities_go_there_and_back")),
    Claim("6a", "Distance to the true counterfactual: causal < do nothing < DiffAE",
          ShownByRecords("StrokeToy, do(t), paired over seeds", judge_order)),
    Claim("6b", "Abducted noise is at least twice as good as random noise",
          ShownByRecords("StrokeToy, do(t), gamma 1", judge_abduction)),
    Claim("6c", "Block means correlate with labels by 0.97 or more",
          ShownByRecords("StrokeToy, gamma 1", judge_alignment)),
    Claim("6d", "Reconstruction is better at small gamma, alignment at large",
          ShownByRecords("StrokeToy, paired over seeds", judge_trade_off)),
    Claim("7a", "Under do(t) intensity follows the causal model (r >= 0.8)",
          ShownByRecords("StrokeToy, measured", judge_follows)),
    Claim("7b", "Under do(i) thickness stays within 0.5 px",
          ShownByRecords("StrokeToy, measured", judge_stays)),
    Claim("7c", "Label-conditional diffusion shows this only where labels are propagated",
          ShownByRecords("StrokeToy, paired over seeds", judge_labels)),
    Claim("8a", "At 50 % labels errors grow by less than 50 %",
          ShownByRecords("StrokeToy, do(t), measured", judge_few_labels)),
    Claim("8b", "The effect of do rises with the weight of guidance",
          ShownByRecords("StrokeToy, do(t), w = 0, 0.5, 1, 1.5", judge_guidance)),
    Claim("9a", "Real digits: measured intensity under do(i) correlates with the wanted one by 0.9 or more",
          ShownByRecords("MorphoMNIST", judge_real_intensity)),
    Claim("9b", "Real digits: 85 % keep their identity under do(i)",
          ShownByRecords("MorphoMNIST", lambda frame: judge_real_digits(frame, "do(i)", 0.85))),
    Claim("9c", "Real digits: 75 % keep their identity under do(t)",
          ShownByRecords("MorphoMNIST", lambda frame: judge_real_digits(frame, "do(t)", 0.75))),
    Claim("10a", "Many interventions cost one encoding, one inversion and their decodings",
          ShownByTest(TESTS + "test_many_interventions_cost_one_encoding_one_inversion_and_their_decodings")),
    Claim("10b", "Decoding scales linearly with the number of interventions",
          ShownByTest(TESTS + "test_decoding_scales_linearly_with_the_number_of_interventions")),
    Claim("10c", "One compiled program serves all interventions and weights",
          ShownByTest(TESTS + "test_one_program_serves_all_interventions_and_weights")),
)  # fmt: skip
