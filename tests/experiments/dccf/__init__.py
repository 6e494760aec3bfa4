"""The settings with which everything of a run is done in a moment."""

TINY = (
    "methods=Popularity,LightGCN,DCCF K=3", "robust=DCCF K=3", "evaluations=2", "dim=4", "layers=1", "batch_size=16",
    "dccf_batch_size=16", "users=40", "items=30", "simulated_steps=4", "simulated_dccf_steps=4",
)  # fmt: skip

CUT = "users=300 items=200 dataset=intents simulate_if_missing=true"
"""Counts (people, images, repetitions) that are cut down where the trainings of presets are traced."""
