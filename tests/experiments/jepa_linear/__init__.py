"""The settings with which everything of a run is done in a moment."""

TINY = ("depths=1", "simulated_depths=3", "replications=2", "until=40", "until_mae=16", "grid=2", "cost_steps=10",
        "slow_until=100", "batch_until=20")  # fmt: skip

BY_HAND = "gradient flows of closed form, which the tests of the system run at every preset's depth"
"""Why no training of its presets is traced."""
