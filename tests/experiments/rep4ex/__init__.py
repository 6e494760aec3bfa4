"""The settings with which everything of a run is done in a moment."""

TINY = (
    "rows=200", "fresh=100", "validation=50", "steps=2", "batch=50", "hidden=4", "outcome_rows=200", "outcome_steps=2",
    "features=8", "actions=20", "network_steps=2", "bootstrap=2", "oracle_seeds=1", "tests=2", "test_rows=60",
    "thorough=True", "image_steps=2", "image_seeds=1", "cost_repeats=1", "cost_seeds=1", "cost_strengths=1",
    "cost_steps=1", "lambdas=1,10", "refits=2", "refit_worlds=1", "refit_restarts=1",
)  # fmt: skip

CUT = (
    "worlds=1 rows=600 fresh=100 validation=100 outcome_rows=600 actions=20 oracle_seeds=1 tests=2 "
    "plain_worlds=1 test_rows=60 refit_worlds=1 refits=2 bootstrap=2 cost_repeats=0 cost_seeds=1 features=20"
)
"""Counts (people, images, repetitions) that are cut down where the trainings of presets are traced."""
