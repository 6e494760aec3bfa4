"""The settings with which everything of a run is done in a moment."""

TINY = (
    "methods=SASRec,Popularity",
    "walk_users=300",
    "walk_items=60",
    "walk_groups=6",
    "walk_dim=16",
    "walk_epochs=6",
    "walk_ks=8",
    "negatives=16",
    "batch_rows=16",
    "sae_epochs=4",
    "sae_batch=256",
    "sae_rate=0.005",
    "clusters=6",
    "steered=5",
    "top=4",
)

CUT = "walk_users=300 walk_items=60 walk_groups=6 dataset="
"""Counts (people, images, repetitions) that are cut down where the trainings of presets are traced."""
