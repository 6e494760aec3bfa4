"""One module per paper (its data, baselines and table), and the command line."""
