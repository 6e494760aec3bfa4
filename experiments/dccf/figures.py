"""Tables, figures and the conclusion of the DCCF comparison."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.dccf.config import (
    BASELINE,
    BEST_STEP,
    CLOSED_FORM,
    CURVES,
    MAIN,
    PEER,
    SIMULATED,
    SMALL,
    STOPPED,
    VALIDATED,
    noisy,
)  # fmt: skip
from experiments.lab import Palette, Statistic, compared, drawing, finish, lines, numbers, panels, pivot, select
from experiments.lab.plots import along, line
from experiments.lab.statistics import rule_of
from experiments.lab.style import plain_log, whiskers
from experiments.lab.summaries import difference

STATISTICS = (
    *(Statistic("deterministic", method=m, dataset=data) for m in CLOSED_FORM for data in ("lastfm_cf", "gowalla")),
    *(Statistic("share", metric) for metric in ("recall@*", "ndcg@*", "mrr@*", "map@*", "auc *")),
)
"""Methods in closed form depend on no seed where the data do not."""
LABELS = {"recall@20": "Recall@20", "ndcg@20": "NDCG@20"}
METHOD, LOST, DEGREE = "DCCF", f"share of NDCG@20 lost with {SMALL.false_edges:.0%} false edges", "least training items"
_BOLD = (BASELINE, METHOD)
COLOURS = Palette(*_BOLD, "EASE", *(name for name in MAIN if name not in (*_BOLD, "EASE")), PEER)
AT_THE_END: dict[str, Any] = {"step": None, "degree": None, "part": None}
"""What numbers lack that stand for the end of training and all users."""

TABLES = {
    "Embeddings and weights": pivot(
        ("dataset", "method"), "metric", only=("mad", "purity", "auc of true edges", "auc of wanted edges"),
        **AT_THE_END,
    ),
    "Settings chosen on held-out training items": pivot(
        ("dataset", "method"), "metric", only=[f"chosen {name}" for name in (
            "ssl", "embedding_reg", "prototype_reg", "intents", "learning_rate", "reg")],
    ),
    "Gain in N@20 per user, seeds averaged, with its bootstrap interval": pivot(("metric", "method"), "part"),
}  # fmt: skip


@drawing(BEST_STEP)
def validated(frame: pd.DataFrame) -> Figure:
    """Each method is trained until held-out training items are ranked no better, and then tested.

    Left: the ranking of the held-out items during training, a line per seed; a dot marks the step whose parameters
    were tested. Right: the ranking of the test items, a dot per seed and the mean with its 95 % interval.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    tested = select(frame, metric=VALIDATED, **AT_THE_END)
    names = list(tested["method"].unique())
    for place, name in enumerate(names):
        _course(left, frame, name)
        values = select(tested, method=name)["value"].to_numpy(float)
        found = rule_of(STATISTICS, frame["dataset"].iloc[0], name, VALIDATED).of(values)
        right.plot(values, np.full(len(values), place), ".", color=COLOURS[name], alpha=0.5)
        right.errorbar(found.value, place, xerr=whiskers(found), fmt="s", ms=4, color=COLOURS[name], capsize=3)
    finish(left, "training steps", f"{LABELS[VALIDATED]}, held-out training items", log="x", legend=True)
    plain_log(left.xaxis)
    right.set_yticks(range(len(names)), names)
    right.set_ylim(len(names) - 0.5, -0.5)
    right.set_xlabel(f"{LABELS[VALIDATED]}, test items")
    return figure


def _course(axes: Axes, frame: pd.DataFrame, name: str) -> None:
    """A validation curve per seed, its best step marked; nothing for methods without steps."""
    label = name
    for seed, best in numbers(BEST_STEP, method=name).of(frame).items():
        course = select(frame, metric=f"validation {VALIDATED}", method=name, seed=seed).set_index("step")["value"]
        axes.plot(course.index, course, lw=1, alpha=0.7, label=label, **COLOURS.line(name))
        axes.plot(best, course[best], "o", ms=4, color=COLOURS[name])
        label = None


@drawing()
def curves(frame: pd.DataFrame) -> Figure | None:
    """How well test items are ranked during training: means over seeds with 95 % intervals."""
    chosen = frame.loc[frame["metric"].isin(CURVES) & (frame["method"] != PEER)]
    if "step" not in chosen or chosen["step"].isna().all():
        return None
    figure, axes = panels(2, width=4.5, height=3.6)
    for axis, metric in zip(axes, CURVES, strict=True):
        for name in chosen.loc[chosen["step"].notna(), "method"].unique():
            points = along(select(chosen, metric=metric, method=name), "step")
            line(axis, points, label=name, marker="", linewidth=1 + (name in _BOLD), **COLOURS.line(name))
        finish(axis, "steps", LABELS[metric], log="x", title=frame["dataset"].iloc[0])
        plain_log(axis.xaxis)
    axes[-1].legend(fontsize=7, frameon=False)
    return figure


def by_degree(frame: pd.DataFrame) -> Figure | None:
    """The figure of groups of users, which differ from draw to draw of the generator and are not drawn there."""
    if "degree" not in frame or frame["dataset"].iloc[0].startswith(SIMULATED):
        return None
    first = frame["degree"].str.extract(r"^(\d+)-", expand=False).astype(float)
    return lines(
        "How methods cope with users of whom little is known: ranking by number of training items, means over seeds.",
        "ndcg@20", DEGREE, log="x", xlabel="training items of the user, and more", ylabel="NDCG@20", colours=COLOURS,
    )(frame.assign(**{DEGREE: first}))  # fmt: skip


def ablation(frame: pd.DataFrame) -> Figure | None:
    """The figure of the variants, where there are any."""
    if not len(select(frame, dataset=SIMULATED, method="DCCF -Disen")):
        return None
    return compared(
        "What each part of DCCF adds on simulated intents: the ranking of its variants, 95 % intervals over seeds.",
        ["ndcg@20"], dataset=SIMULATED, statistic="share", colours=COLOURS, **AT_THE_END,
    )(frame)  # fmt: skip


def robustness(frame: pd.DataFrame) -> Figure | None:
    """The figure of what false edges cost, from the ranking with them and without."""
    found = [
        pd.DataFrame({"metric": LOST, "method": name, "seed": lost.index, "value": lost.to_numpy()})
        for name in select(frame, dataset=noisy(SMALL))["method"].unique()
        if len(lost := (1 - _final(frame, noisy(SMALL), name) / _final(frame, SIMULATED, name)).dropna())
    ]
    return compared(
        "The share of the ranking quality that is lost to false edges, with 95 % intervals over seeds; less is better.",
        [LOST], colours=COLOURS,
    )(pd.concat(found)) if found else None  # fmt: skip


def _final(frame: pd.DataFrame, dataset: str, method: str) -> pd.Series:
    return numbers(VALIDATED, dataset=dataset, method=method, **AT_THE_END).of(frame)


BY_DATASET = {"validated": validated, "curves": curves, "degree": by_degree}


def figures(frame: pd.DataFrame) -> Mapping[str, Figure]:
    """Every figure for which there are records, by file stem."""
    drawn: dict[str, Figure | None] = {}
    for dataset in frame["dataset"].unique():
        name = "".join(c if c.isalnum() else "_" for c in dataset)
        drawn |= {f"{stem}_{name}": draw(select(frame, dataset=dataset)) for stem, draw in BY_DATASET.items()}
    drawn |= {"ablation": ablation(frame), "robustness": robustness(frame)}
    return {stem: figure for stem, figure in drawn.items() if figure is not None}


def conclusion(frame: pd.DataFrame) -> str:
    """How DCCF ranks beside LightGCN on the first data set that has both; empty where one was not measured.

    No winner is named where the interval of the difference holds 0, nor where runs of the loser used up their steps
    before validation stopped them: these might have become better.
    """
    for dataset in frame["dataset"].unique():
        words, sign = difference(select(frame, **AT_THE_END), dataset, METHOD, BASELINE, VALIDATED)
        if words:
            return _sentence(dataset, words, sign, unstopped(frame, dataset))
    return ""


def unstopped(frame: pd.DataFrame, dataset: str) -> dict[str, int] | None:
    """By method, how many runs used up their steps before validation stopped them; None where nothing stops runs."""
    stopped = {name: numbers(STOPPED, dataset=dataset, method=name).of(frame) for name in (METHOD, BASELINE)}
    if any(values.empty for values in stopped.values()):
        return None
    return {name: int((values == 0).sum()) for name, values in stopped.items()}


def _sentence(dataset: str, words: str, sign: int, cut: dict[str, int] | None) -> str:
    how = "each after a fixed number of steps" if cut is None else "each at its best step on held-out training items"
    winner = {1: METHOD, -1: BASELINE}.get(sign)
    loser = {1: BASELINE, -1: METHOD}.get(sign)
    verdict = f"{winner} ranks better here"
    if winner is None:
        verdict = "these seeds do not tell which ranks better"
    elif cut and loser and cut[loser]:
        verdict = f"{cut[loser]} runs of {loser} used up their steps while still improving, so no winner is named"
    return f"On {dataset}, {words}, {how}: {verdict}."
