"""What must be shown of ``mm_gpvae``, and how its records are judged: by intervals over seeds."""

import itertools

import numpy as np
import pandas as pd

from core.stats import all_of, summary, within
from experiments.lab.frames import select, values
from experiments.lab.statistics import Statistic
from experiments.lab.system import Claim, ShownByRecords, ShownByTest, Verdict

STATISTICS = (Statistic("deterministic", method="ridge regression", dataset="chewie"),)
SEEDS = 3
"""At fewer seeds nothing is judged."""
MAIN = "MM-GPVAE"


def best(frame: pd.DataFrame, method: str, metric: str, restarts: int | None = None) -> np.ndarray:
    """A metric by seed, of the restart with the highest ELBO among the first ``restarts``."""
    rows = select(frame, dataset="simulation", method=method)
    if "restart" not in rows or not len(rows):
        return np.array([])
    rows = rows.loc[rows["restart"].notna()]
    if restarts is not None:
        rows = rows.loc[rows["restart"] < restarts]
    found = rows.pivot_table(index=["seed", "restart"], columns="metric", values="value")
    if metric not in found or not len(found):
        return np.array([])
    chosen = found.groupby("seed")["ELBO"].idxmax()
    return found.loc[chosen, metric].to_numpy()


def together(frame: pd.DataFrame, metric: str, *methods: str) -> list[np.ndarray] | None:
    """A metric of several methods by the same seeds, with as many restarts each; None where rows are missing."""
    counts = []
    for method in methods:
        rows = select(frame, dataset="simulation", method=method)
        counts.append(len(set(rows["restart"].dropna())) if "restart" in rows else 0)
    found = [best(frame, method, metric, min(counts)) for method in methods]
    sizes = {len(f) for f in found}
    return found if len(sizes) == 1 and min(sizes) >= SEEDS else None


def shown(x: np.ndarray) -> tuple[str, tuple[float, float]]:
    """A mean with its interval, in words and as numbers."""
    s = summary(x)
    return f"{s.value:.3f} [{s.low:.3f}, {s.high:.3f}]", s.interval


def judge_recovery(frame: pd.DataFrame) -> Verdict:
    """Item 5: the intervals lie above 0.8, 0.8 and 0.6."""
    words, answers, bounds = [], [], None
    for metric, threshold in (("shared R2", 0.8), ("neural R2", 0.8), ("zoom R2", 0.6)):
        found = best(frame, MAIN, metric)
        if len(found) < SEEDS:
            return Verdict(None)
        text, own = shown(found)
        bounds = bounds or own
        answers.append(within(own, threshold))
        words.append(f"{metric} {text}")
    return Verdict(all_of(answers), ", ".join(words), bounds)


def judge_domain(frame: pd.DataFrame) -> Verdict:
    """Item 6: the gain over the better one of the two time-domain models is above 0 for shared latent and rates."""
    words, answers, bounds = [], [], None
    for metric in ("shared R2", "rate R2"):
        found = together(frame, metric, MAIN, "time domain", "time domain with map")
        if found is None:
            return Verdict(None)
        text, own = shown(found[0] - np.maximum(found[1], found[2]))
        bounds = bounds or own
        answers.append(within(own, 0))
        means = ", ".join(f"{f.mean():.3f}" for f in found)
        words.append(f"{metric} {means} (Fourier, time, time with map), gain {text}")
    return Verdict(all_of(answers), "; ".join(words), bounds)


def judge_pruning(frame: pd.DataFrame) -> Verdict:
    """Item 7: pruned less unpruned is above -0.03 for each latent."""
    words, answers, bounds = [], [], None
    for metric in ("shared R2", "neural R2", "zoom R2"):
        found = together(frame, metric, MAIN, "unpruned")
        if found is None:
            return Verdict(None)
        text, own = shown(found[0] - found[1])
        bounds = bounds or own
        answers.append(within(own, -0.03))
        words.append(f"{metric} {text}")
    return Verdict(all_of(answers), "pruned less unpruned: " + ", ".join(words), bounds)


def judge_modalities(frame: pd.DataFrame) -> Verdict:
    """Item 8, first half: both modalities together lose at most 0.02 to the better one alone."""
    found = together(frame, "shared R2", MAIN, "images only", "counts only")
    if found is None:
        return Verdict(None)
    text, bounds = shown(found[0] - np.maximum(found[1], found[2]))
    means = ", ".join(f"{f.mean():.3f}" for f in found)
    return Verdict(within(bounds, -0.02), f"shared R2 {means} (both, images, counts), gain {text}", bounds)


def judge_rotation(frame: pd.DataFrame) -> Verdict:
    """Item 8, second half: over starts, one fixed column of the counts' latents tells all or nothing of the shared."""
    rows = select(frame, dataset="simulation", method="counts only", metric="shared R2, fixed column")
    x = rows.loc[rows["restart"].notna(), "value"].to_numpy() if "restart" in rows else np.array([])
    if len(x) < 2 * SEEDS:
        return Verdict(None)
    text = f"R2 of a fixed column from {x.min():.2f} to {x.max():.2f} over {len(x)} starts"
    return Verdict(bool(np.ptp(x) > 0.5), text, (float(x.min()), float(x.max())))


def judge_neurons(frame: pd.DataFrame) -> Verdict:
    """Item 9, first half: the interval of the gain lies above 0.05."""
    found = together(frame, "shared R2", MAIN, "N = 10")
    if found is None:
        return Verdict(None)
    gain = found[0] - found[1]
    text, bounds = shown(gain)
    words = f"shared R2 {found[0].mean():.3f} and {found[1].mean():.3f}, gain {text}"
    return Verdict(within(bounds, 0.05), words, bounds)


def judge_one_neuron(frame: pd.DataFrame) -> Verdict:
    """Item 9, second half: the interval of the difference lies within 0.05 of 0."""
    found = together(frame, "shared R2", "N = 1", "images only")
    if found is None:
        return Verdict(None)
    text, bounds = shown(found[0] - found[1])
    words = f"shared R2 {found[0].mean():.3f} with one neuron, {found[1].mean():.3f} without, difference {text}"
    return Verdict(within(bounds, -0.05, 0.05), words, bounds)


def judge_lengths(frame: pd.DataFrame) -> Verdict:
    """Item 10: every latent's length scale of every seed lies in 6 to 14 bins."""
    low, high = best(frame, MAIN, "shortest length"), best(frame, MAIN, "longest length")
    if min(len(low), len(high)) < SEEDS:
        return Verdict(None)
    bounds = (float(low.min()), float(high.max()))
    text = f"{bounds[0]:.1f} to {bounds[1]:.1f} bins over {len(low)} seeds and three latents"
    return Verdict(bool(bounds[0] >= 6 and bounds[1] <= 14), text, bounds)


AVERAGE, PRODUCT = "average", "product, velocity hidden at times"


def real(frame: pd.DataFrame, metric: str, method: str = AVERAGE) -> np.ndarray:
    """A metric on the monkey's recordings, by seed."""
    return values(frame, dataset="chewie", method=method, metric=metric)


def judge_above(metric: str, threshold: float, method: str = AVERAGE):
    """A judge: a metric's interval on the monkey's recordings lies above a threshold."""

    def judge(frame: pd.DataFrame) -> Verdict:
        found = real(frame, metric, method)
        if len(found) < SEEDS:
            return Verdict(None)
        text, bounds = shown(found)
        return Verdict(within(bounds, threshold), f"{metric} {text}", bounds)

    return judge


def judge_monkey_lengths(frame: pd.DataFrame) -> Verdict:
    """The interval of the mean length lies in 6 to 9 bins."""
    found = real(frame, "mean length")
    if len(found) < SEEDS:
        return Verdict(None)
    text, bounds = shown(found)
    low, high = real(frame, "shortest length").min(), real(frame, "longest length").max()
    words = f"mean length {text} bins; single latents {low:.1f} to {high:.1f}"
    return Verdict(within(bounds, 6, 9), words, bounds)


def judge_exchanged(frame: pd.DataFrame) -> Verdict:
    """Exchanged velocities lower the bits per spike: the interval of the paired difference lies below 0."""
    own, other = real(frame, "bits/spike"), real(frame, "bits/spike, exchanged velocity")
    if min(len(own), len(other)) < SEEDS:
        return Verdict(None)
    text, bounds = shown(other - own)
    return Verdict(within(bounds, most=0), f"{own.mean():.3f} to {other.mean():.3f} bits/spike, change {text}", bounds)


def judge_poor_average(frame: pd.DataFrame) -> Verdict:
    """With average fusion the interval of R2 from counts alone lies below that of ridge regression."""
    found, ridge = (real(frame, "velocity R2, counts alone", m) for m in (AVERAGE, "ridge regression"))
    if min(len(found), len(ridge)) < SEEDS:
        return Verdict(None)
    text, bounds = shown(found)
    words = f"velocity R2 from counts alone {text}, ridge regression {ridge.mean():.3f}"
    return Verdict(within(bounds, most=ridge.mean()), words, bounds)


def ratios(frame: pd.DataFrame, metric: str, domain: str) -> list[np.ndarray]:
    """Time at twice the bins over time at once, by repeat, for neighbouring lengths at 16 trials."""
    rows = select(frame, dataset="timing", method=domain, metric=metric, trials=16)
    sizes = sorted(rows["bins"].unique()) if "bins" in rows else []
    by = [values(rows, bins=size) for size in sizes]
    return [b / a for a, b in itertools.pairwise(by) if len(a) == len(b) >= SEEDS]


def judge_linear(frame: pd.DataFrame) -> Verdict:
    """Item 12, first half: the median ratio of a step is below 3 for twice the bins and for twice the trials."""
    steps = ratios(frame, "seconds of a step", "fourier")
    at = select(frame, dataset="timing", method="fourier", metric="seconds of a step")
    if not steps:
        return Verdict(None)
    once, many = (values(at, trials=trials, bins=at["bins"].max()) for trials in (16, 32))
    if not SEEDS <= len(once) == len(many):
        return Verdict(None)
    by_trials = many / once
    medians = [float(np.median(r)) for r in (*steps, by_trials)]
    text = f"step time x {', '.join(f'{m:.2f}' for m in medians[:-1])} for twice the bins, "
    return Verdict(max(medians) < 3, f"{text}x {medians[-1]:.2f} for twice the trials", (min(medians), max(medians)))


def judge_cubic(frame: pd.DataFrame) -> Verdict:
    """Item 12, second half: over the whole range of lengths the dense divergence grows more than the Fourier one."""
    growth = {}
    for domain in ("fourier", "time"):
        found = ratios(frame, "seconds of the divergence", domain)
        if not found:
            return Verdict(None)
        growth[domain] = np.prod(found, axis=0)
    logs = np.log(growth["time"] / growth["fourier"])
    s = summary(logs)
    text = f"divergence x {np.median(growth['fourier']):.1f} in Fourier, x {np.median(growth['time']):.1f} in time"
    return Verdict(within(s.interval, 0), text, (float(np.exp(s.low)), float(np.exp(s.high))))


THEORY = "tests/latent/test_mm_gpvae_theory.py::"
MODEL = "tests/latent/test_mm_gpvae.py::"
CLAIMS = (
    Claim(
        "1a", "B B' = I for n = T without pruning",
        ShownByTest(THEORY + "test_rows_of_the_unpruned_basis_are_orthonormal"),
    ),
    Claim(
        "1b", "B' diag(k) B with pruning is the periodised RBF kernel to 1e-8",
        ShownByTest(THEORY + "test_pruned_covariance_is_the_periodised_kernel"),
    ),
    Claim(
        "1c", "It is the plain RBF kernel to 1e-3 for n >= T + 4 l",
        ShownByTest(THEORY + "test_covariance_is_plain_rbf_on_a_long_enough_circle"),
    ),
    Claim(
        "1d", "F = 2 m + 1: 13 for T = 60, n = 72, l_min = 10, and 19 for n = 100",
        ShownByTest(THEORY + "test_number_of_coefficients"),
    ),
    Claim(
        "2a", "KL divergences equal those of torch.distributions",
        ShownByTest(THEORY + "test_divergences_are_those_of_torch"),
    ),
    Claim(
        "2b", "Closed-form expected likelihoods equal Monte Carlo within 4 standard errors",
        ShownByTest(THEORY + "test_expected_likelihoods_equal_monte_carlo"),
    ),
    Claim(
        "2c", "The gradient of the bound equals finite differences",
        ShownByTest(MODEL + "test_gradient_of_the_bound_equals_finite_differences"),
    ),
    Claim(
        "3a", "For a linear Gaussian read-out exact Fourier inference is Gaussian-process regression to 1e-3",
        ShownByTest(THEORY + "test_exact_inference_is_gaussian_process_regression"),
    ),
    Claim(
        "3b", "That posterior is the optimum of the Fourier bound with full covariance",
        ShownByTest(THEORY + "test_the_optimum_of_the_bound_with_full_covariance_is_the_exact_posterior"),
    ),
    Claim(
        "4", "Behaviour-only latents leave rates unchanged, neural-only ones images; shared ones change both",
        ShownByTest(MODEL + "test_each_modality_depends_on_its_own_and_the_shared_latents_only"),
    ),
    Claim(
        "5", "In the small simulation R2 of the shared, the neural latent and the zoom exceed 0.8, 0.8 and 0.6",
        ShownByRecords("best restart by ELBO of each seed, intervals over seeds", judge_recovery),
    ),
    Claim(
        "6", "The Fourier domain beats mean field in the time domain at equal budget, in shared latent and rates",
        ShownByRecords("paired gain over the better of two time-domain models, with and without a map over time; as "
                       "many restarts each", judge_domain),
    ),
    Claim(
        "7", "Pruning costs nothing",
        ShownByRecords("paired differences of R2, pruned less unpruned, above -0.03", judge_pruning),
    ),
    Claim(
        "8a", "Both modalities together recover the shared latent as well as the better one alone, but for 0.02",
        ShownByRecords("paired difference of shared R2", judge_modalities),
    ),
    Claim(
        "8b", "Counts alone cannot name the shared latent: R2 of a fixed latent varies over starts",
        ShownByRecords("range over seeds and restarts of Poisson GPFA exceeds 0.5", judge_rotation),
    ),
    Claim(
        "9a", "Shared R2 with 100 neurons exceeds that with 10 by at least 0.05",
        ShownByRecords("paired difference of shared R2", judge_neurons),
    ),
    Claim(
        "9b", "With one neuron it is within 0.05 of that of images alone",
        ShownByRecords("interval of the paired difference of shared R2", judge_one_neuron),
    ),
    Claim(
        "10", "Learned length scales fall in 6 to 14 bins where the truth is 10",
        ShownByRecords("all latents of the best restarts", judge_lengths),
    ),
    Claim(
        "11a", "On a monkey's reaches, posterior rates gain more than 0.15 bits per spike over mean rates",
        ShownByRecords("average fusion, test trials of the other recording", judge_above("bits/spike", 0.15)),
    ),
    Claim(
        "11b", "Velocity is reconstructed with R2 above 0.9",
        ShownByRecords("average fusion, test trials of the other recording", judge_above("velocity R2", 0.9)),
    ),
    Claim(
        "11c", "Its learned length scales are 6 to 9 bins",
        ShownByRecords("mean over latents, interval over seeds", judge_monkey_lengths),
    ),
    Claim(
        "11d", "Pairing counts with another trial's velocity lowers the bits per spike",
        ShownByRecords("paired difference over seeds", judge_exchanged),
    ),
    Claim(
        "11e", "With average fusion velocity from counts alone is worse than ridge regression",
        ShownByRecords("velocity hidden at test time", judge_poor_average),
    ),
    Claim(
        "11f", "A product of experts with the velocity hidden in 3 of 10 trials of training raises it above 0.4",
        ShownByRecords("velocity hidden at test time", judge_above("velocity R2, counts alone", 0.4, PRODUCT)),
    ),
    Claim(
        "12a", "Twice the bins or trials take less than three times as long per Fourier step",
        ShownByRecords("medians over repeats", judge_linear),
    ),
    Claim(
        "12b", "The dense divergence of the time domain grows faster with the number of bins",
        ShownByRecords("growth over all lengths, interval over repeats", judge_cubic),
    ),
)  # fmt: skip
