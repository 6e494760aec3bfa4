"""What the records say of the claims about DCCF."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from core.stats import summary, within
from experiments.dccf.config import BASELINE, CLOSED_FORM, CURVES, MAIN, PEER, SIMULATED, SMALL, noisy
from experiments.dccf.published import PEER_CURVE, PEER_STEPS_PER_EPOCH
from experiments.lab.statistics import SHARE, Statistic
from experiments.lab.system import Verdict

STATISTICS = (
    *(
        Statistic("deterministic", method=name, dataset=data)
        for name in CLOSED_FORM
        for data in ("lastfm_cf", "gowalla")
    ),
    *(Statistic("share", metric) for metric in ("recall@*", "ndcg@*", "mrr@*", "map@*", "auc *")),
)
"""Methods in closed form depend on no seed where the data do not."""
Judge = Callable[[pd.DataFrame], Verdict]
_FIELDS = ("system", "preset", "dataset", "method", "metric", "seed", "value")


def without_coordinates(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that stand for the end of training and all users."""
    return frame.loc[frame[[c for c in frame.columns if c not in _FIELDS]].isna().all(axis=1)]


def finals(frame: pd.DataFrame, dataset: str, method: str, metric: str = "ndcg@20") -> pd.Series:
    """A metric at the end of training, by seed."""
    rows = without_coordinates(frame)
    chosen = rows.loc[_is(rows, dataset, method, metric)]
    return pd.Series(chosen["value"].to_numpy(), index=pd.Index(chosen["seed"])).sort_index()


def _is(frame: pd.DataFrame, dataset: str, method: str, metric: str) -> np.ndarray:
    wanted = {"dataset": dataset, "method": method, "metric": metric}
    return np.all([frame[column].to_numpy() == value for column, value in wanted.items()], axis=0)


def curve(frame: pd.DataFrame, dataset: str, method: str, metric: str) -> pd.DataFrame:
    """A metric during training: steps down, seeds across."""
    if "step" not in frame:
        return pd.DataFrame()
    chosen = frame[_is(frame, dataset, method, metric) & frame["step"].notna()]
    return chosen.pivot_table(index="step", columns="seed", values="value")


def judge_peer_curve(frame: pd.DataFrame) -> Verdict:
    """Item 7: means over seeds at epochs 20 and 40 within 0.010 of the authors' code."""
    found = {metric: curve(frame, "lastfm_cf", PEER, metric) for metric in CURVES}
    words, met = [], True
    for epoch in (20, 40):
        for metric, theirs in zip(CURVES, PEER_CURVE[epoch], strict=True):
            step = epoch * PEER_STEPS_PER_EPOCH
            if step not in found[metric].index:
                return Verdict(None)
            ours = float(found[metric].loc[step].mean())
            met &= abs(ours - theirs) <= 0.010
            words.append(f"{metric} at epoch {epoch}: {ours:.4f} against {theirs:.3f}")
    return Verdict(met, f"{'; '.join(words)} (mean of {found[CURVES[0]].shape[1]} seeds)")


def judge_speed_of_learning(frame: pd.DataFrame) -> Verdict:
    """Item 8a: steps to R@20 = 0.20, each seed's ratio of LightGCN's to DCCF's."""
    steps = {name: curve(frame, "lastfm_cf", name, "recall@20") for name in (BASELINE, "DCCF")}
    if any(table.empty or (table.max() < 0.20).any() for table in steps.values()):
        return Verdict(None, "" if any(t.empty for t in steps.values()) else "R@20 = 0.20 was not reached by all runs")
    first = {name: (table >= 0.20).idxmax() for name, table in steps.items()}
    ratio = (first[BASELINE] / first["DCCF"]).dropna()
    found = summary(ratio.to_numpy())
    words = f"{first['DCCF'].mean():,.0f} steps of DCCF against {first[BASELINE].mean():,.0f} of LightGCN"
    return Verdict(found.value >= 4, f"{words}: {found.value:.1f} times fewer ({found.n} seeds)", found.interval)


def judge_reported(frame: pd.DataFrame) -> Verdict:
    """Item 8b: all methods trained to the end on lastfm_cf, whatever came out."""
    values = {name: finals(frame, "lastfm_cf", name) for name in MAIN}
    if any(series.empty for series in values.values()):
        return Verdict(None)
    ordered = sorted(values, key=lambda name: -values[name].mean())
    return Verdict(True, "N@20: " + ", ".join(f"{name} {values[name].mean():.4f}" for name in ordered))


def judge_order(dataset: str, better: str, worse: str, metric: str = "ndcg@20", standard_errors: float = 0.0) -> Judge:
    """A judge of "better > worse": the mean difference over seeds exceeds so many standard errors, and 0."""

    def judge(frame: pd.DataFrame) -> Verdict:
        ours, theirs = finals(frame, dataset, better, metric), finals(frame, dataset, worse, metric)
        differences = (ours - theirs).dropna().to_numpy()
        if len(differences) < 2:
            return Verdict(None)
        found = summary(differences)
        words = f"{metric}: {better} over {worse} {found.value:+.4f}, standard error {found.error:.4f}"
        met = found.value > 0 and found.value > standard_errors * found.error
        return Verdict(bool(met), f"{words} ({found.n} seeds)", found.interval)

    return judge


def all_of(*judges: Judge) -> Judge:
    """A judge of several things that must all hold."""

    def judge(frame: pd.DataFrame) -> Verdict:
        found = [one(frame) for one in judges]
        known = all(verdict.met is not None for verdict in found)
        return Verdict(all(v.met for v in found) if known else None, "; ".join(v.value for v in found if v.value))

    return judge


def judge_robustness(frame: pd.DataFrame) -> Verdict:
    """Item 11a: the share of N@20 lost to false edges, LightGCN's less DCCF's, is above 0."""
    lost = {name: _lost(frame, name) for name in (BASELINE, "DCCF")}
    gap = (lost[BASELINE] - lost["DCCF"]).dropna()
    if len(gap) < 2:
        return Verdict(None)
    found = summary(gap.to_numpy())
    words = ", ".join(f"{name} loses {series.mean():.1%}" for name, series in lost.items())
    words += f" of N@20 ({found.n} seeds; interval of the difference)"
    return Verdict(within(found.interval, 0), words, found.interval)


def _lost(frame: pd.DataFrame, method: str) -> pd.Series:
    return 1 - finals(frame, noisy(SMALL), method) / finals(frame, SIMULATED, method)


def judge_false_edges(frame: pd.DataFrame) -> Verdict:
    """Item 11b: AUC of the local view's weights for telling true from false edges above 0.6."""
    values = finals(frame, noisy(SMALL), "DCCF", "auc of true edges")
    if len(values) < 2:
        return Verdict(None)
    found = SHARE.of(values.to_numpy())
    return Verdict(found.value > 0.6, f"AUC {found.value:.3f} ({found.n} seeds)", found.interval)


def judge_gowalla(frame: pd.DataFrame) -> Verdict:
    """Item 9: DCCF, SGL and SimGCL above LightGCN above BPR-MF in N@20 on gowalla."""
    orders = [judge_order("gowalla", name, BASELINE) for name in ("DCCF", "SGL-ED", "SimGCL")]
    return all_of(*orders, judge_order("gowalla", BASELINE, "BPR-MF"))(frame)
