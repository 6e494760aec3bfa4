"""The settings with which everything of a run is done in a moment."""

TINY = (
    "persons=120",
    "replications=2",
    "compared=2",
    "batches=1,2",
    "lanes=2",
    "trees=2",
    "forest_persons=220",
    "forest_depth=1",
    "refitted=1",
)

BY_HAND = "an optimiser of its own, on tables of the preset's columns whatever their number of rows"
"""Why no training of its presets is traced."""
