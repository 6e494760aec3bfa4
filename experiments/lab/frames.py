"""Reading the tidy frame of records: rows by column values, groups of rows, means along a column."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from core.errors import DataError


def select(frame: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """The rows with given values; none where a column is missing. None asks for rows that lack a coordinate."""
    mask = np.ones(len(frame), bool)
    for column, value in columns.items():
        if value is None:
            mask &= frame[column].isna().to_numpy() if column in frame else True
        else:
            mask &= (frame[column] == value).to_numpy() if column in frame else False
    return cast(pd.DataFrame, frame.loc[mask])


def groups(frame: pd.DataFrame, *columns: str) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """The rows by columns."""
    for key, part in frame.groupby(list(columns)):
        yield cast(tuple[Any, ...], key), part


def curve(frame: pd.DataFrame, along: str) -> tuple[np.ndarray, np.ndarray]:
    """``(x, mean value)`` along a column, over whatever else varies."""
    points = [(key[0], part["value"].to_numpy().mean()) for key, part in groups(frame, along)]
    return np.array([x for x, _ in points]), np.array([y for _, y in points])


def require_distinct(part: pd.DataFrame, per: Sequence[str]) -> None:
    """Refuses rows that would count as a larger sample: several of one seed, or of what else is repeated.

    Raises:
      DataError: names one of them, and the columns in which its rows differ.
    """
    twice = part.duplicated(list(per)).to_numpy()
    if not twice.any():
        return
    one = part.loc[twice].iloc[0]
    same = part.loc[np.logical_and.reduce([(part[name] == one[name]).to_numpy() for name in per])]
    differing = [name for name in same.columns if name != "value" and same[name].nunique(dropna=False) > 1]
    place = ", ".join(f"{name} {one[name]}" for name in per)
    raise DataError(
        f"{len(same)} records of {one['metric']}, {one['method']}, have {place} in one place of a table or figure: "
        f"name the columns that tell them apart ({', '.join(differing) or 'none differs'}), or what is repeated by per="
    )
