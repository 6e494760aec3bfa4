"""Further tables of ``pac_invariance``."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from experiments.lab.frames import interval, select
from experiments.pac_invariance.claims import GENERALIZATION
from experiments.pac_invariance.config import PANELS


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Further tables, those whose records are there."""
    made = {
        "By training environments and samples: accepted sets / median generalization %": by_size(frame),
        "Subsets that survive, N and m as in the claims": by_set(frame),
        "Bound for finite classes": bounds(frame),
        "Sachs' cells": survivors_of_cells(frame),
    }
    return {title: table for title, table in made.items() if not table.empty}


def by_size(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over repeats."""
    rows: list[dict[str, Any]] = []
    for panel in (" + ".join(panel) for panel in PANELS):
        for n in _levels(frame, "N", dataset=panel, metric="accepted sets"):
            row: dict[str, Any] = {"training + new": panel, "N": f"{n:,.0f}"}
            for m in _levels(frame, "m", dataset=panel, metric="accepted sets", N=n):
                at = {"dataset": panel, "method": "subsets", "N": n, "m": m}
                count = select(frame, metric="accepted sets", **at)["value"].mean()
                row[f"m = {m:.0f}"] = f"{count:.1f} / {select(frame, metric=MEDIAN, **at)['value'].mean():.1f}"
            rows.append(row)
    return pd.DataFrame(rows)


MEDIAN = "median generalization %"


def by_set(frame: pd.DataFrame) -> pd.DataFrame:
    """At the largest N: how often each set is accepted and how often it holds in a new environment."""
    chosen = select(frame, metric="generalization of a set %")
    if chosen.empty:
        return pd.DataFrame()
    chosen = select(chosen, N=chosen["N"].max())
    rows: dict[str, dict[str, str]] = {}
    for name in sorted(chosen["set"].unique(), key=lambda s: (len(s), s)):
        for panel in chosen["dataset"].unique():
            values = select(chosen, set=name, dataset=panel)["value"].to_numpy()
            if values.size:
                rows.setdefault(name, {"set": name})[panel] = interval(values, 1, GENERALIZATION)
    return pd.DataFrame(list(rows.values())).fillna("–")


def bounds(frame: pd.DataFrame) -> pd.DataFrame:
    """Frequencies at the (m, z) of the claim."""
    rows = []
    for m, z in ((72, 0.1), (21, 0.3), (11, 0.5)):
        found = select(frame, metric="times a subset passes with V > z", m=m, z=z)
        for _, row in found.iterrows():
            share = f"{row['value']:.0f} of {row['repeats']:.0f}"
            rows.append({"family": row["dataset"], "radius": row["radius"], "m": m, "z": z, "V > z passes": share,
                         "bound": f"{row['bound']:.3f}"})  # fmt: skip
    return pd.DataFrame(rows)


def survivors_of_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """What each method chooses, and how much of it is in the consensus graph."""
    chosen = select(frame, dataset="sachs")
    rows = []
    for protein in chosen["protein"].unique() if "protein" in chosen else ():
        row = {"protein": protein}
        for method in chosen["method"].unique():
            part = select(chosen, protein=protein, method=method)
            hits = select(part, metric="chosen in the consensus")["value"].iloc[0]
            row["consensus parents"] = f"{select(part, metric='consensus parents')['value'].iloc[0]:.0f}"
            row[method] = f"{part['set'].iloc[0] or 'nothing'} ({hits:.0f})"
        rows.append(row)
    return pd.DataFrame(rows)


def _levels(frame: pd.DataFrame, column: str, **where: Any) -> Sequence[float]:
    found = select(frame, **where)
    return sorted(found[column].dropna().unique()) if column in found else ()
