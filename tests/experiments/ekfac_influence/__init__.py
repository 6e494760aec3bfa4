"""The settings with which everything of a run is done in a moment."""

TINY = ("queries=3", "moved=2", "regression_steps=40", "response_steps=40", "lissa_iterations=20", "subsets=6",
        "corpus_steps=40", "width=4")  # fmt: skip
