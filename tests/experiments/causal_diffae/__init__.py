"""The settings with which everything of a run is done in a moment."""

TINY = ("train=64", "test=6", "sampling=3", "width=8", "block=2", "steps=4", "batch=8", "vae_steps=4",
        "predictor_steps=4", "world_train=16", "world_steps=4", "world_width=8")  # fmt: skip

CUT = "train=256 test=6 traversed=4 world_train=256"
"""Counts (people, images, repetitions) that are cut down where the trainings of presets are traced."""
