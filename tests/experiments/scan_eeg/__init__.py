"""The settings with which everything of a run is done in a moment."""

TINY = (
    "train=24", "test=24", "trials=2", "kept=2", "features=2,2", "hidden=4", "latents=3", "steps=2",
    "supervised_steps=2", "batch_size=8", "scan_steps=2", "scan_batch=8", "recombination_steps=2", "cost_steps=1",
)  # fmt: skip

CUT = "train=100 test=100 trials=4 kept=2 models=1 real=false cost_models=1 cost_steps=1 cost_repeats=1"
"""Counts (people, images, repetitions) that are cut down where the trainings of presets are traced."""
