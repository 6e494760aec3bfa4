"""Figures as data: lines along a coordinate and numbers beside each other; and what a drawing of one's own needs.

A figure is a function of the tidy frame; it returns None where nothing was measured that it could show. Its caption is
its label.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from core.stats import Summary
from experiments.lab.frames import groups, require_distinct, select
from experiments.lab.statistics import Kind, Statistic
from experiments.lab.style import Palette, whiskers
from experiments.lab.system import Drawing

Frame = pd.DataFrame


def drawing(*metrics: str) -> Callable[[Drawing], Drawing]:
    """Makes a figure of a function that draws one: its docstring is the caption; none where a metric is missing."""

    def decorate(draw: Drawing) -> Drawing:
        caption = " ".join((inspect.getdoc(draw) or "").split())

        @functools.wraps(draw)
        def drawn(frame: Frame) -> Figure | None:
            if not {*metrics} <= {*frame["metric"]}:
                return None
            figure = draw(frame)
            if figure is not None:
                figure.set_label(caption)
            return figure

        return drawn

    return decorate


def panels(
    count: int, width: float = 3.6, height: float = 3.2, columns: int = 4, **share: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of some panels, in rows of at most ``columns``."""
    across, down = min(count, columns), -(-count // columns)
    figure = Figure(figsize=(width * across + 0.6, height * down), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False, **share).flat)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def along(
    frame: Frame, column: str, statistic: Kind = "mean", per: Sequence[str] = ("seed",)
) -> list[tuple[Any, Summary]]:
    """The statistic of the values at each value of a column; several records of one ``per`` are refused."""
    chosen = frame.dropna(subset=[column]) if column in frame else frame.iloc[:0]
    return [(key[0], _of(part, statistic, per)) for key, part in groups(chosen, column)] if len(chosen) else []


def _of(part: Frame, statistic: Kind, per: Sequence[str]) -> Summary:
    require_distinct(part, per)
    return Statistic(statistic).of(part["value"].to_numpy(float))


def line(axis: Axes, points: Sequence[tuple[Any, Summary]], *, shade: bool = True, **style: Any) -> None:
    """A line through the values, with their intervals shaded."""
    if not points:
        return
    x, found = [x for x, _ in points], [each for _, each in points]
    axis.plot(x, [each.value for each in found], **({"marker": "o", "markersize": 3} | style))
    if shade:
        down, up = whiskers(*found)
        value = np.array([each.value for each in found])
        axis.fill_between(x, value - down, value + up, color=style.get("color"), alpha=0.15, linewidth=0)


def lines(
    caption: str, metric: str, x: str, *, by: str = "method", only: Sequence[Any] = (), panel: str | None = None,
    statistic: Kind = "mean", single: bool = False, shade: bool = True, log: str = "", xlabel: str = "",
    ylabel: str = "", colours: Palette | None = None, reference: float | None = None, per: Sequence[str] = ("seed",),
    **where: Any,
) -> Drawing:  # fmt: skip
    """A figure of one metric along a coordinate.

    Args:
      caption: of the figure.
      metric: what is drawn.
      x: the column along the axis.
      by: the column that tells lines apart.
      only: its values that are drawn, in order; all if empty.
      panel: a column with a panel for each of its values.
      statistic: over what is repeated.
      single: whether the lines of single seeds are drawn too, thin.
      shade: whether intervals are.
      log: "x", "y" or "xy" for logarithmic axes.
      xlabel: of the axis; the column's name if empty.
      ylabel: the metric's name if empty.
      colours: of the lines.
      reference: where a dotted line is drawn.
      per: what is repeated; several records of one are refused.
      **where: as in :func:`experiments.lab.judges.numbers`.
    """
    palette = colours or Palette()

    def draw(frame: Frame) -> Figure | None:
        chosen = select(frame, metric=metric, **where)
        needed = [column for column in (x, by, panel) if column]
        if not {*needed} <= {*chosen.columns} or not len(chosen := chosen.dropna(subset=needed)):
            return None
        names = list(dict.fromkeys(chosen[panel])) if panel else [None]
        figure, axes = panels(len(names), sharey=True)
        for axis, name in zip(axes, names, strict=True):
            here = select(chosen, **{panel: name}) if panel else chosen
            for key in [k for k in (only or dict.fromkeys(here[by])) if (here[by] == k).any()]:
                own, style = select(here, **{by: key}), palette.line(key)
                for seed in own["seed"].unique() if single else ():
                    line(
                        axis,
                        along(select(own, seed=seed), x),
                        shade=False,
                        color=style["color"],
                        alpha=0.25,
                        marker="",
                        linewidth=0.7,
                    )
                line(axis, along(own, x, statistic, per), shade=shade, label=_label(key), **style)
            finish(
                axis,
                xlabel or x,
                "",
                log=log,
                title=f"{panel} = {name}" if panel and not isinstance(name, str) else name or "",
            )
            if reference is not None:
                axis.axhline(reference, color="black", linewidth=0.6, linestyle=":")
        axes[0].set_ylabel(ylabel or metric)
        names_numbers = any(isinstance(key, float) for key in chosen[by])
        axes[0].legend(fontsize=7, frameon=False, title=by if names_numbers else None, title_fontsize=7)
        figure.set_label(caption)
        return figure

    return draw


def _label(key: Any) -> str:
    return f"{key:g}" if isinstance(key, float) else str(key)


def compared(
    caption: str, metrics: Sequence[str], *, by: str = "method", only: Sequence[Any] = (), statistic: Kind = "mean",
    log: bool = False, colours: Palette | None = None, reference: float | None = None, xlabel: str = "",
    per: Sequence[str] = ("seed",), **where: Any,
) -> Drawing:  # fmt: skip
    """A figure of numbers beside each other: names down, a panel per metric, dots for seeds, squares with intervals.

    Args:
      caption: of the figure.
      metrics: a panel each.
      by: the column that names the lines.
      only: its values that are drawn, the first at the top; all if empty.
      statistic: over what is repeated.
      log: whether numbers are on a logarithmic axis.
      colours: of the names.
      reference: where a dotted line is drawn.
      xlabel: below all panels.
      per: what is repeated; several records of one are refused.
      **where: as in :func:`experiments.lab.judges.numbers`.
    """
    palette = colours or Palette()

    def draw(frame: Frame) -> Figure | None:
        chosen = select(frame, **where)
        chosen = chosen.loc[chosen["metric"].isin(list(metrics))]
        there = set(chosen[by]) if by in chosen else set()
        names = [name for name in (only or dict.fromkeys(chosen[by] if there else ())) if name in there][::-1]
        if not names:
            return None
        figure = Figure(figsize=(2.2 * len(metrics) + 2.4, 0.9 + 0.28 * len(names)), layout="constrained")
        for axis, metric in zip(figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0], metrics, strict=True):
            for place, name in enumerate(names):
                own = select(chosen, metric=metric, **{by: name})
                require_distinct(own, per)
                values = own["value"].to_numpy(float)
                axis.plot(values, np.full(len(values), place), ".", color=palette[name], alpha=0.5)
                if len(values) > 1:
                    found = Statistic(statistic).of(values)
                    axis.errorbar(
                        found.value,
                        place,
                        xerr=whiskers(found),
                        color=palette[name],
                        marker="s",
                        markersize=4,
                        capsize=2,
                    )
            if reference is not None:
                axis.axvline(reference, color="black", linewidth=0.6, linestyle=":")
            finish(axis, "", "", log="x" if log else "", title=metric)
        figure.axes[0].set_yticks(range(len(names)), [str(name) for name in names])
        figure.supxlabel(xlabel, fontsize=9)
        figure.set_label(caption)
        return figure

    return draw


def finish(axis: Axes, xlabel: str, ylabel: str, *, log: str = "", title: str = "", legend: bool = False) -> None:
    """Labels, scales and title of a panel."""
    for name in log:
        getattr(axis, f"set_{name}scale")("log")
    axis.set_xlabel(xlabel)
    if ylabel:
        axis.set_ylabel(ylabel)
    axis.set_title(title, fontsize=9)
    if legend:
        axis.legend(fontsize=7, frameon=False)


def drawn(figures: Any, frame: Frame) -> Iterator[tuple[str, Figure]]:
    """The figures of which something was measured, by file stem."""
    made: Any = figures(frame) if callable(figures) else {stem: draw(frame) for stem, draw in figures.items()}
    yield from ((stem, figure) for stem, figure in made.items() if figure is not None)
