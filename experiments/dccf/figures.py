"""Tables, figures and the conclusion of the DCCF comparison."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
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
from experiments.lab.judges import Numbers
from experiments.lab.plots import along, line
from experiments.lab.statistics import rule_of
from experiments.lab.style import plain_log, whiskers
from experiments.lab.summaries import difference

STATISTICS = (
    *(Statistic("deterministic", method=m, dataset=data) for m in CLOSED_FORM for data in ("lastfm_cf", "gowalla")),
    *(Statistic("share", metric) for metric in ("recall@*", "ndcg@*", "mrr@*", "map@*", "auc *")),
)
"""Methods in closed form depend on no seed where the data do not."""
METHOD, LOST, DEGREE = "DCCF", f"share of NDCG@20 lost with {SMALL.false_edges:.0%} false edges", "least training items"
COLOURS = Palette(*dict.fromkeys((BASELINE, METHOD, "EASE", *MAIN, PEER)))
AT_THE_END: dict[str, Any] = {"step": None, "degree": None, "part": None}
"""What numbers lack that stand for the end of training and all users."""
SETTINGS = ("ssl", "embedding_reg", "prototype_reg", "intents", "learning_rate", "reg")

TABLES = {
    "Embeddings and weights": pivot(
        ("dataset", "method"), "metric", only=("mad", "purity", "auc of true edges", "auc of wanted edges"),
        **AT_THE_END,
    ),
    "Settings chosen on held-out training items": pivot(
        ("dataset", "method"), "metric", only=[f"chosen {name}" for name in SETTINGS]
    ),
    "Gain in N@20 per user, seeds averaged, with its bootstrap interval": pivot(("metric", "method"), "part"),
}  # fmt: skip


def ranking(dataset: str, method: str) -> Numbers:
    """N@20 at the end of training."""
    return numbers(VALIDATED, dataset=dataset, method=method, **AT_THE_END)


def kept(method: str) -> Numbers:
    """The share of N@20 that false edges leave."""
    share = ranking(noisy(SMALL), method) / ranking(SIMULATED, method)
    return share.named(f"share of N@20 that {method} keeps")


@drawing(BEST_STEP)
def validated(frame: pd.DataFrame) -> Figure:
    """Each method is trained until held-out training items are ranked no better, and then tested.

    Left: the ranking of the held-out items during training, a line per seed; a dot marks the step whose parameters
    were tested. Right: the ranking of the test items, a dot per seed and the mean with its 95 % interval.
    """
    figure, (left, right) = panels(2, width=4.3, height=3.4)
    tested = select(frame, metric=VALIDATED, **AT_THE_END)
    names = list(tested["method"].unique())
    for place, name in enumerate(names):
        for nth, (seed, best) in enumerate(numbers(BEST_STEP, method=name).of(frame).items()):
            course = select(frame, metric=f"validation {VALIDATED}", method=name, seed=seed).set_index("step")["value"]
            left.plot(course, lw=1, alpha=0.7, label=None if nth else name, **COLOURS.line(name))
            left.plot(best, course[best], "o", ms=4, color=COLOURS[name])
        values = select(tested, method=name)["value"].to_numpy(float)
        found = rule_of(STATISTICS, frame["dataset"].iloc[0], name, VALIDATED).of(values)
        right.plot(values, np.full(len(values), place), ".", color=COLOURS[name], alpha=0.5)
        right.errorbar(found.value, place, xerr=whiskers(found), fmt="s", ms=4, color=COLOURS[name], capsize=3)
    finish(left, "training steps", "NDCG@20, held-out training items", log="x", legend=True)
    plain_log(left.xaxis)
    right.set_yticks(range(len(names)), names)
    right.invert_yaxis()
    finish(right, "NDCG@20, test items", "")
    return figure


@drawing()
def curves(frame: pd.DataFrame) -> Figure | None:
    """How well test items are ranked during training: means over seeds with 95 % intervals."""
    chosen = frame.loc[frame["metric"].isin(CURVES) & (frame["method"] != PEER)]
    if "step" not in chosen or chosen["step"].isna().all():
        return None
    figure, axes = panels(2, width=4.5, height=3.6)
    for axis, metric in zip(axes, CURVES, strict=True):
        for name in chosen.loc[chosen["step"].notna(), "method"].unique():
            style = {"label": name, "marker": "", "linewidth": 1 + (name in (BASELINE, METHOD)), **COLOURS.line(name)}
            line(axis, along(select(chosen, metric=metric, method=name), "step"), **style)
        title = {"recall@20": "Recall@20", VALIDATED: "NDCG@20"}[metric]
        finish(axis, "steps", title, log="x", title=frame["dataset"].iloc[0], legend=axis is axes[-1])
        plain_log(axis.xaxis)
    return figure


def by_degree(frame: pd.DataFrame) -> Figure | None:
    """The figure of groups of users, which differ from draw to draw of the generator and are not drawn there."""
    if "degree" not in frame or frame["dataset"].iloc[0].startswith(SIMULATED):
        return None
    first = frame["degree"].str.extract(r"^(\d+)-", expand=False).astype(float)
    return lines(
        "How methods cope with users of whom little is known: ranking by number of training items, means over seeds.",
        VALIDATED, DEGREE, log="x", xlabel="training items of the user, and more", ylabel="NDCG@20", colours=COLOURS,
    )(frame.assign(**{DEGREE: first}))  # fmt: skip


def ablation(frame: pd.DataFrame) -> Figure | None:
    """The figure of the variants, where there are any."""
    if not len(select(frame, dataset=SIMULATED, method="DCCF -Disen")):
        return None
    return compared(
        "What each part of DCCF adds on simulated intents: the ranking of its variants, 95 % intervals over seeds.",
        [VALIDATED], dataset=SIMULATED, statistic="share", colours=COLOURS, **AT_THE_END,
    )(frame)  # fmt: skip


def robustness(frame: pd.DataFrame) -> Figure | None:
    """The figure of what false edges cost, from the ranking with them and without."""
    found = [
        pd.DataFrame({"metric": LOST, "method": name, "seed": left.index, "value": 1 - left.to_numpy()})
        for name in select(frame, dataset=noisy(SMALL))["method"].unique()
        if len(left := kept(name).of(frame).dropna())
    ]
    return compared(
        "The share of the ranking quality that is lost to false edges, with 95 % intervals over seeds; less is better.",
        [LOST], colours=COLOURS,
    )(pd.concat(found)) if found else None  # fmt: skip


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
            return f"On {dataset}, {words}, {_ending(frame, dataset, sign)}."
    return ""


def _ending(frame: pd.DataFrame, dataset: str, sign: int) -> str:
    stopped = {name: numbers(STOPPED, dataset=dataset, method=name).of(frame) for name in (METHOD, BASELINE)}
    by_validation = all(map(len, stopped.values()))
    how = "each at its best step on held-out training items" if by_validation else "each after a fixed number of steps"
    if not sign:
        return f"{how}: these seeds do not tell which ranks better"
    winner, loser = (METHOD, BASELINE)[::sign]
    cut = int((stopped[loser] == 0).sum()) if by_validation else 0
    if cut:
        return f"{how}: {cut} runs of {loser} used up their steps while still improving, so no winner is named"
    return f"{how}: {winner} ranks better here"
