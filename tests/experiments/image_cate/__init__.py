"""The settings with which everything of a run is done in a moment."""

TINY = (
    "images=24", "steps=2", "coverage_steps=2", "trial_steps=2", "batch_images=4", "null_sets=2", "predictive_draws=2",
    "salience_draws=1", "salience_images=2", "clusters=1,2", "coverage_sets=9", "half_samples=8", "fold_seeds=1",
    "folds=2", "replications=1", "tabular_steps=2", "members=2",
)  # fmt: skip

CUT = (
    "images=60 salience_images=4 null_sets=1 coverage_sets=1 half_samples=8 "
    "fold_seeds=1 replications=1 real_images=false clusters=1 parts=S1,S2,coverage,clusters"
)
"""Counts (people, images, repetitions) that are cut down where the trainings of presets are traced."""
