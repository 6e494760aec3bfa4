"""The settings with which everything of a run is done in a moment."""

TINY = ("steps=4", "batch_size=16", "width=8", "samples=16", "projections=4", "calls=4", "cost_width=8",
        "cost_batch=4", "repeats=1")  # fmt: skip

CUT = "samples=64 projections=4 repeats=1"
"""Counts (people, images, repetitions) that are cut down where the trainings of presets are traced."""
