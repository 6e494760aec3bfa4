"""Tables of who chose what, as people have them: CSV, TSV, RecBole's ``.inter``, MovieLens' ``.dat``.

Columns are found by the names that they usually have, whatever their case, underscores and RecBole types
(``user_id:token``); ids are text, so that 7 and 007 are two.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from core.checks import checked, require_one_of
from core.datasets.raw import reading
from core.errors import DataError

Role = Literal["user", "item", "rating", "timestamp"]
Repeats = Literal["first", "last", "refuse"]
ROLES: dict[Role, tuple[str, ...]] = {
    "user": ("user", "userid", "uid", "reviewerid", "customer", "customerid"),
    "item": ("item", "itemid", "iid", "movieid", "productid", "bookid", "trackid", "artistid", "asin"),
    "rating": ("rating", "score", "stars", "overall"),
    "timestamp": ("timestamp", "time", "date", "datetime", "unixreviewtime"),
}
"""Names of columns, in small letters without underscores, by what they hold."""
MEANINGS: dict[Role, str] = {"user": "who", "item": "what", "rating": "how much", "timestamp": "when"}
SEPARATORS = ("::", "\t", ";", "|", ",")
HEADLESS = ("user", "item", "rating", "timestamp")
"""Columns of MovieLens' files, which are separated by ``::`` and do not name them."""
UNITS = {
    "seconds": (1e8, 1e10),
    "milliseconds": (1e11, 1e13),
    "microseconds": (1e14, 1e16),
    "nanoseconds": (1e17, 1e19),
}
"""Numbers from ... to below ... which stand for the moments from 1973 to 2286, counted from 1970."""
_TYPE = re.compile(r":(token|float)(_seq)?$")
_UNIT_SEPARATOR = "\x1f"


@checked
def read_ratings(
    path: Path | str,
    *,
    columns: Mapping[Role, str] | None = None,
    header: Sequence[str] | None = None,
    separator: str | None = None,
    at_least: float | None = None,
    repeats: Repeats = "first",
) -> pd.DataFrame:
    """A row per user and item, in the order of the file.

    Args:
      path: a table in UTF-8, or in UTF-16 with its mark.
      columns: names of columns by what they hold, where those are not the usual ones: ``{"user": "Kunde"}``.
      header: names of all columns of a file whose first line holds data.
      separator: between columns; found from the first line if None.
      at_least: rows of a lower rating are left out; ratings are not looked at if None.
      repeats: which of several rows with the same user and item counts, with its time and its rating: that of the
        first or of the last moment (line, where there are no times or equal ones). Or they are refused.

    Returns:
      Columns ``user`` and ``item`` as text and, where the table has it, ``timestamp`` as numbers or dates.

    Raises:
      DataError: naming file, column, row (line 1 holds the names of the columns) and remedy.
    """
    named, path = columns or {}, Path(path)
    for role in named:
        require_one_of("read_ratings: a key of columns", role, ROLES)
    table, names, first_row = _read(path, named, header, separator)
    if not len(table):
        raise DataError(f"{path}: the table has no rows; nothing can be learned")
    rows = _Rows(path, _places(names, named, at_least is not None, path), names, first_row, table)
    for role in ("user", "item"):
        rows.refuse(rows[role] == "", role, "is empty; fill it or remove the row")
    kept = _once(rows, repeats)
    if at_least is not None:
        kept = kept & _liked(rows, at_least, kept)
    return rows.of("user", "item", "timestamp").loc[kept].reset_index(drop=True)


class _Rows:
    """The columns that are needed, by what they hold."""

    def __init__(self, path: Path, places: Mapping[Role, int], names: Sequence[str], first_row: int, table: Any):
        self.path, self._names, self._first_row = path, {role: names[at] for role, at in places.items()}, first_row
        self._columns = {role: table.iloc[:, at].str.strip() for role, at in places.items()}
        if "timestamp" in places:
            self._columns["timestamp"] = self._times(np.asarray(self["timestamp"]))

    def __contains__(self, role: Role) -> bool:
        return role in self._columns

    def __getitem__(self, role: Role) -> pd.Series:
        return self._columns[role]

    def of(self, *roles: Role) -> pd.DataFrame:
        """A table of those of some columns that there are."""
        return pd.DataFrame({role: self[role] for role in roles if role in self})

    def refuse(self, bad: Any, role: Role, what: str) -> None:
        """Raises a DataError that names column and row of the first that is bad."""
        found = np.flatnonzero(np.asarray(bad))
        if found.size:
            where = f"column {self._names[role]!r} in row {found[0] + self._first_row}"
            raise DataError(f"{self.path}: {where} {what}")

    def _times(self, column: np.ndarray) -> pd.Series:
        times = np.asarray(pd.to_numeric(column, errors="coerce"), np.float64)
        wrong = ~np.isfinite(times)
        if np.isnan(times).all():
            dates = pd.to_datetime(column, errors="coerce", format="ISO8601", utc=True)
            times, wrong = np.asarray(dates.tz_localize(None)), np.asarray(dates.isna())
        remedy = "is neither a number nor a date like the others; correct it or remove the row"
        self.refuse(wrong, "timestamp", remedy)
        if times.dtype == np.float64:
            units = {name: (times >= least) & (times < below) for name, (least, below) in UNITS.items()}
            first, *others = sorted((int(np.argmax(of)), name) for name, of in units.items() if of.any()) or [(0, "")]
            for row, unit in others:
                what = f"is in {unit}, as it seems, others are in {first[1]}; give all in one unit"
                self.refuse(np.arange(len(times)) == row, "timestamp", what)
        return pd.Series(times)


def _read(
    path: Path, columns: Mapping[Role, str], header: Sequence[str] | None, separator: str | None
) -> tuple[pd.DataFrame, list[str], int]:
    """All columns as text, for NA may be somebody's name; their names; the number of the first row."""
    with reading(path, "a table of columns", "save it as text with one separator, and name that by separator="):
        content = path.read_bytes()
        is_utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig").rstrip("\r\n")
        if "\0" in text:
            raise ValueError(f"line {text[: text.index(chr(0))].count(chr(10)) + 1} holds a NUL character")
        first = text.partition("\n")[0].rstrip("\r")
        by_mark = {mark: _names(first, mark) for mark in ([separator] if separator else SEPARATORS)}
        mark = max(by_mark, key=lambda mark: (len(_known(by_mark[mark], columns)), len(by_mark[mark])))
        names = by_mark[mark]
        if header is None and mark == "::" and not _known(names, columns):
            header = HEADLESS[: len(names)]
        if header is not None and len(header) != len(names):
            raise DataError(f"{path}: header names {len(header)} columns, but the first line has {len(names)}")
        if len(mark) > 1:  # pandas would take it for a pattern
            text, mark = text.replace(mark, _UNIT_SEPARATOR), _UNIT_SEPARATOR
        table = pd.read_csv(
            io.StringIO(text), sep=mark, header=None if header else 0, dtype=str, keep_default_na=False,
            skip_blank_lines=False,
        ).fillna("")  # fmt: skip
        if not isinstance(table.index, pd.RangeIndex):
            raise ValueError("its rows have more columns than its first line")
    return table, list(header or names), 1 if header else 2


def _names(line: str, separator: str) -> list[str]:
    """The cells of a header without white space and types."""
    mark = separator if len(separator) == 1 else _UNIT_SEPARATOR
    cells = next(csv.reader([line.replace(separator, mark)], delimiter=mark), [])
    return [_TYPE.sub("", cell.strip()) for cell in cells]


def _called(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.lower())


def _candidates(names: Sequence[str], role: Role, columns: Mapping[Role, str]) -> list[int]:
    """Where the names are that a column of this kind may have."""
    if role in columns:
        return [at for at, name in enumerate(names) if name == columns[role]]
    return [at for at, name in enumerate(names) if _called(name) in ROLES[role] and name not in columns.values()]


def _known(names: Sequence[str], columns: Mapping[Role, str]) -> list[Role]:
    return [role for role in ROLES if _candidates(names, role, columns)]


def _places(names: Sequence[str], columns: Mapping[Role, str], rated: bool, path: Path) -> dict[Role, int]:
    """Where the columns are that are needed."""
    places: dict[Role, int] = {}
    for role in ROLES:
        found = _candidates(names, role, columns)
        if role == "rating" and not rated:
            continue
        if not found and (role != "timestamp" or role in columns):
            raise DataError(
                f"{path}: column {columns.get(role, role)!r} ({MEANINGS[role]}) is missing; it has {', '.join(names)}; "
                f"name it by columns={{{role!r}: ...}}, or all columns by header= if the first line holds data"
            )
        called = [names[at] for at in found]
        if len(called) > len(set(called)):
            raise DataError(f"{path}: it has the column {called[0]!r} twice; rename or remove one")
        if len(called) > 1:
            raise DataError(
                f"{path}: columns {called[0]!r} and {called[1]!r} may both say {MEANINGS[role]}; name the one that is "
                f"meant by columns={{{role!r}: {called[0]!r}}}"
            )
        if found:
            places[role] = found[0]
    return places


def _once(rows: _Rows, repeats: Repeats) -> np.ndarray:
    """Which rows count where a user and an item meet several times."""
    pairs = rows.of("user", "item", "timestamp")
    if repeats == "refuse":
        remedy = "remove the row, or let one count: repeats='first' or 'last'"
        rows.refuse(pairs.duplicated(["user", "item"]), "item", f"repeats a pair of user and item; {remedy}")
    if "timestamp" in rows:
        pairs = pairs.sort_values("timestamp", kind="stable")
    kept = ~pairs.duplicated(["user", "item"], keep="last" if repeats == "last" else "first")
    return np.asarray(kept.sort_index())


def _liked(rows: _Rows, at_least: float, kept: np.ndarray) -> np.ndarray:
    ratings = np.asarray(pd.to_numeric(rows["rating"], errors="coerce"), np.float64)
    rows.refuse(~np.isfinite(ratings), "rating", "is no number, such as 4.5; correct it or remove the row")
    if not (ratings[kept] >= at_least).any():
        raise DataError(f"{rows.path}: no rating reaches {at_least:g}, the highest is {ratings[kept].max():g}")
    return ratings >= at_least
