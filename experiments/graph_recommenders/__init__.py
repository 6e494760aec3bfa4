"""The comparison of graph recommenders behind ``experiments.dccf``: settings, methods, runs, judgements, figures."""
