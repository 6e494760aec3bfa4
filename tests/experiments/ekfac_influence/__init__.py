"""The settings with which everything of a run is done in a moment."""

TINY = ("queries=3", "moved=2", "regression_steps=40", "response_steps=40", "lissa_iterations=20", "subsets=6",
        "corpus_steps=40", "width=4")  # fmt: skip

CUT = "image_train=96 language_train=32 mislabelled=200 cost=false costly_seeds=1 subsets=2 retrained=1"
"""Counts (people, images, repetitions) that are cut down where the trainings of presets are traced."""
