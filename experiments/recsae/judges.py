"""Judgements of RecSAE's claims from records."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
import scipy.stats

from core.stats import Summary, all_of, summary, within
from experiments.lab import frames
from experiments.lab.frames import select
from experiments.lab.statistics import Statistic, statistic
from experiments.lab.system import Verdict
from experiments.recsae.config import MAIN_K, PAPER_K, SUBJECT, WALKS

STATISTICS = (
    *(Statistic("deterministic", method=name, dataset="amazon_beauty") for name in ("Popularity", "Item-kNN")),
    *(
        Statistic("share", metric)
        for metric in (
            *("hr@?", "hr@??", "ndcg@*", "mrr@*", "dead", "coherence*", "interpretable", "f1", "precision", "recall"),
            *("significant", "groups recovered", "share of *", "latents whose *", "sign test *"),
        )
    ),
)
Judge = Callable[[pd.DataFrame], Verdict]
BEAUTY = "amazon_beauty"
LEAST_SEEDS = 3
RECOVERY_K = 4


def latents(k: int) -> str:
    """Their name in records."""
    return f"latents, k = {k}"


def by_seed(frame: pd.DataFrame, **where) -> pd.Series:
    """Values of a metric by seed, at no dose, state or factor unless one is named."""
    for coordinate in ("dose", "state", "factor"):
        if coordinate in frame and coordinate not in where:
            frame = frame.loc[frame[coordinate].isna()]
    return frames.by_seed(frame, **where)


def of(metric: str, values: pd.Series, trials: int = 1) -> Summary:
    """A metric over seeds with the interval that is declared for it."""
    return dataclasses.replace(statistic(STATISTICS, metric=metric), trials=trials).of(values.to_numpy())


def compared(frame: pd.DataFrame, better: str, worse: str, *, least: float = 0.0, **where) -> Verdict:
    """Whether the difference of two methods surely exceeds a number: the interval over seeds lies above it."""
    a, b = (by_seed(frame, method=method, **where) for method in (better, worse))
    difference = (a - b).dropna().to_numpy()
    if len(difference) < LEAST_SEEDS:
        return Verdict(None)
    found = summary(difference)
    words = f"{better} {a.mean():.4f}, {worse} {b.mean():.4f}: {found.value:+.4f} ({found.n} seeds)"
    return Verdict(within(found.interval, least), words, found.interval)


def judge_order(better: str, worse: str) -> Judge:
    """NDCG@10 on Amazon Beauty: better than another, or not worse."""
    return lambda frame: compared(frame, better, worse, dataset=BEAUTY, metric="ndcg@10")


def judge_accuracy(frame: pd.DataFrame) -> Verdict:
    """HR@10 of SASRec within .06 to .09: the whole interval over seeds."""
    values = by_seed(frame, dataset=BEAUTY, method=SUBJECT, metric="hr@10")
    if len(values) < LEAST_SEEDS:
        return Verdict(None)
    found = of("hr@10", values)
    words = f"HR@10 {found.value:.4f} ({found.n} seeds)"
    return Verdict(within(found.interval, 0.06, 0.09), words, found.interval)


def kept(frame: pd.DataFrame, k: int, metric: str) -> np.ndarray:
    """The share of a metric that is kept with x_hat in the place of x."""
    whole, spliced = (
        by_seed(frame, dataset=BEAUTY, method=method, metric=metric)
        for method in (f"{SUBJECT}, probed", f"{SUBJECT}, k = {k} in place")
    )
    return (spliced / whole).dropna().to_numpy()


def judge_in_place(frame: pd.DataFrame) -> Verdict:
    """At the paper's k: both metrics keep at least 95 %, fewer than 20 % dead; interval over seeds."""
    shares = {metric: kept(frame, PAPER_K, metric) for metric in ("hr@10", "ndcg@10")}
    dead = by_seed(frame, dataset=BEAUTY, method=f"{SUBJECT}, k = {PAPER_K} in place", metric="dead")
    if min(map(len, (*shares.values(), dead))) < LEAST_SEEDS:
        return Verdict(None)
    found = {metric: summary(values) for metric, values in shares.items()}
    words = ", ".join(f"{metric} keeps {s.value:.1%}" for metric, s in found.items()) + f", {dead.mean():.1%} dead"
    met = all_of([*(within(s.interval, 0.95) for s in found.values()), bool(dead.max() < 0.2)])
    return Verdict(met, words, found["hr@10"].interval)


def judge_smooth(frame: pd.DataFrame) -> Verdict:
    """Fewer latents keep less of HR@10 on average, and no halving of k costs more than 20 points."""
    ks = sorted(
        int(name.split("k = ")[1].split()[0])
        for name in set(select(frame, dataset=BEAUTY)["method"])
        if name.endswith("in place")
    )
    shares = [kept(frame, k, "hr@10") for k in ks]
    if len(ks) < 3 or min(map(len, shares)) < LEAST_SEEDS:
        return Verdict(None)
    means = np.array([s.mean() for s in shares])
    words = "HR@10 kept: " + ", ".join(f"{m:.1%} at k = {k}" for k, m in zip(ks, means, strict=True))
    steps = np.diff(means)
    return Verdict(bool((steps > -0.01).all() and (steps < 0.2).all()), words)


def judge_coherence(frame: pd.DataFrame) -> Verdict:
    """At k = 8 above neurons and random directions by .08 or more, and intervals over seeds exclude 0."""
    found = [
        compared(frame, latents(MAIN_K), other, dataset=BEAUTY, metric="coherence", part="concepts")
        for other in ("neurons", "random directions")
    ]
    means = [sum(v.interval) / 2 for v in found if v.interval]
    if len(means) < len(found):
        return Verdict(None)
    met = all_of([*(v.met for v in found), min(means) >= 0.08])
    return Verdict(met, "; ".join(v.value for v in found), found[0].interval)


def judge_reported_coherence(frame: pd.DataFrame) -> Verdict:
    """At the paper's k the difference to neurons is reported with its interval, whatever it is."""
    found = compared(frame, latents(PAPER_K), "neurons", dataset=BEAUTY, metric="coherence", part="concepts")
    return Verdict(True, found.value, found.interval) if found.interval else found


def judge_interpretable(frame: pd.DataFrame) -> Verdict:
    """The interpretable share of latents above that of neurons: the interval over seeds excludes 0."""
    return compared(frame, latents(MAIN_K), "neurons", dataset=BEAUTY, metric="interpretable", part="concepts")


def judge_shuffled(frame: pd.DataFrame) -> Verdict:
    """Of shuffled activations fewer than 5 % are called interpretable."""
    values = by_seed(frame, dataset=BEAUTY, method="latents, shuffled", metric="interpretable", part="concepts")
    if len(values) < LEAST_SEEDS:
        return Verdict(None)
    units = by_seed(frame, dataset=BEAUTY, method="latents, shuffled", metric="units judged", part="concepts")
    found = of("interpretable", values, trials=int(units.min()) if len(units) else 1)
    return Verdict(within(found.interval, most=0.05), f"{found.value:.1%} of shuffled latents", found.interval)


def judge_halves(frame: pd.DataFrame) -> Verdict:
    """Rank correlation over latents of the confidence on two halves of the users above .5."""
    values = by_seed(frame, dataset=BEAUTY, method=latents(MAIN_K), metric="halves agree", part="concepts")
    if len(values) < LEAST_SEEDS:
        return Verdict(None)
    found = summary(values.to_numpy())
    return Verdict(within(found.interval, 0.5), f"Spearman {found.value:.3f} ({found.n} seeds)", found.interval)


def judge_signs(metric: str) -> Judge:
    """The sign test over latents, seeds combined by Fisher's method, and in every seed below .05."""

    def judge(frame: pd.DataFrame) -> Verdict:
        at = {"dataset": BEAUTY, "method": latents(MAIN_K), "part": "steering"}
        p = by_seed(frame, metric=metric, **at)
        change = by_seed(frame, metric="change by ablation", **at)
        random = by_seed(frame, metric="change by ablating another", **at)
        if len(p) < LEAST_SEEDS:
            return Verdict(None)
        combined = float(np.asarray(scipy.stats.combine_pvalues(np.maximum(p.to_numpy(), 1e-300)))[1])
        words = (
            f"share of concept items {change.mean():+.3f} by ablation, {random.mean():+.3f} by that of another active "
            f"latent; p in each seed {', '.join(f'{x:.1e}' for x in p)}; combined {combined:.1e}"
        )
        found = summary(change.to_numpy())
        return Verdict(bool(combined < 0.01 and p.max() < 0.05), words, found.interval)

    return judge


def judge_dose(frame: pd.DataFrame) -> Verdict:
    """The share of concept items rises with every step of the dose, in the mean over latents of each seed."""
    rows = select(frame, dataset=BEAUTY, metric="share of concept items", part="steering")
    if len(set(rows["seed"])) < LEAST_SEEDS:
        return Verdict(None)
    table = rows.pivot_table(index="dose", columns="seed", values="value").sort_index()
    words = "share " + ", ".join(f"{v:.3f} at {d:g}" for d, v in table.mean(axis=1).items())
    return Verdict(bool((np.diff(table.to_numpy(), axis=0) > 0).all()), words)


def judge_recovery(frame: pd.DataFrame) -> Verdict:
    """Of planted groups at least 80 % are matched by a latent with F1 above .8; interval over seeds."""
    values = by_seed(frame, dataset=WALKS, method=latents(RECOVERY_K), metric="groups recovered", part="recovery")
    if len(values) < LEAST_SEEDS:
        return Verdict(None)
    found = of("groups recovered", values)
    words = f"{found.value:.1%} of the groups ({found.n} seeds)"
    return Verdict(within(found.interval, 0.8), words, found.interval)
