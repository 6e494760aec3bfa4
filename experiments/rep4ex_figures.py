"""Tables and figures of ``rep4ex``, from its records."""

import pandas as pd
from matplotlib.figure import Figure


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Those whose records are there."""
    return {}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Those whose records are there."""
    return {}
