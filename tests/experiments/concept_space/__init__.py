"""The settings with which everything of a run is done in a moment."""

TINY = ("side=4", "channels=(8,)", "images=16", "steps=4", "checkpoints=2", "generations=2", "sampling_steps=3",
        "sweep=0.8", "alphas=0.5", "vector_steps=6", "vector_checkpoints=6", "vector_width=8",
        "vector_generations=2")  # fmt: skip

CUT = "images=64 generations=2 cubes=1"
"""Counts (people, images, repetitions) that are cut down where the trainings of presets are traced."""
