"""Further tables of ``mm_gpvae``."""

import pandas as pd

from experiments.lab.frames import interval, select

SHOWN = {
    "simulation": (
        "shared R2", "neural R2", "zoom R2", "shared R2, fixed column", "rate R2", "bits/spike", "image MSE",
        "shared R2, counts alone", "shared R2, images alone", "shortest length", "longest length",
    ),
    "chewie": (
        "bits/spike", "bits/spike, exchanged velocity", "velocity R2", "velocity R2, counts alone", "mean length",
    ),
}  # fmt: skip


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Means over seeds with 95 % intervals, the best restart of each seed."""
    titles = {"simulation": "Simulation: counts and a turning digit", "chewie": "Monkey reaches: counts and velocity"}
    out = {}
    for dataset, metrics in SHOWN.items():
        rows = []
        plain = select(frame, dataset=dataset)
        for column in ("restart", "part"):
            plain = plain.loc[plain[column].isna()] if column in plain else plain
        for method in plain["method"].unique():
            cells = {m: select(plain, method=method, metric=m)["value"].to_numpy() for m in metrics}
            rows.append({"method": method} | {m: interval(v, 2) if len(v) else "–" for m, v in cells.items()})
        if rows:
            out[titles[dataset]] = pd.DataFrame(rows)
    return out
