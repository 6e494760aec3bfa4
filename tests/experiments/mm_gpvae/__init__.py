"""The settings with which everything of a run is done in a moment."""

TINY = (
    "steps=4", "gpfa_steps=2", "trials=8", "test_trials=4", "bins=16", "circle=32", "neurons=6", "variants=MM-GPVAE",
    "neural_hidden=4", "behaviour_hidden=4", "decoder_hidden=4", "restarts=2", "scale_bins=8", "repeats=1",
)  # fmt: skip

CUT = "trials=24 test_trials=4 digits=drawn restarts=1 other_restarts=1 monkey_steps=0 repeats=1"
"""Counts (people, images, repetitions) that are cut down where the trainings of presets are traced."""
