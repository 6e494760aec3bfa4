"""Parts of the experiments on influence functions."""
