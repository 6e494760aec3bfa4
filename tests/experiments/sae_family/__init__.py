"""The settings with which everything of a run is done in a moment."""

SMALL = ("batch_size=16", "sweep_batch=16", "examples=96", "features=12", "d=6", "latents=16", "dead_after=20",
         "sweep_steps=3")  # fmt: skip
TINY = (*SMALL, "steps=4", "wide=32", "wide_steps=6", "repeats=1", "ks=2", "l1s=", "l0s=", "k=2", "lm_steps=0",
              "real_steps=0")  # fmt: skip

CUT = "examples=512 lm_steps=0 real_steps=0 repeats=0"
"""Counts (people, images, repetitions) that are cut down where the trainings of presets are traced."""
