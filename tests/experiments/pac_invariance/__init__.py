"""The settings with which everything of a run is done in a moment."""

TINY = (
    "samples=45000", "sizes=3,11", "repeats=2", "radii=0.02", "repeated=20", "bound_sizes=3,11", "pool=20", "dags=2",
    "trend_dags=2", "d=5", "sites=2", "trend_samples=1000,30000", "trend_sizes=3,8", "compared=5", "irm_steps=20",
    "mixings=2", "timed=1000",
)  # fmt: skip

BY_HAND = "subset tests and two regressions, all of them small"
"""Why no training of its presets is traced."""
