"""How figures look: the colours, one look per method, a caption under every figure."""

import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from core.stats import Summary

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Told apart with any colour vision (Okabe and Ito), and seen on white as on black."""
_LINES, _MARKERS = ("-", "--", ":", "-."), "osD^"
"""Of the first six names, the next six, and so on."""


class Palette(Mapping[Any, str]):
    """Colours by name: a system has one for its methods, and all of its figures and tables use that one.

    The seventh name gets the first colour again, with another line and marker. A name that was not foreseen gets a
    colour which depends on the name alone.
    """

    def __init__(self, *names: Any):
        """Names in the order in which they get their colours."""
        self._places = {name: place for place, name in enumerate(dict.fromkeys(names))}

    def __getitem__(self, name: Any) -> str:
        return _COLOURS[self._place(name) % len(_COLOURS)]

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[Any]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def is_repeated(self, name: Any) -> bool:
        """Whether an earlier name has the same colour, so that line and marker tell the two apart."""
        return self._place(name) >= len(_COLOURS)

    def line(self, name: Any) -> dict[str, Any]:
        """Colour and line style, as keyword arguments of ``plot``."""
        return {"color": self[name], "linestyle": _LINES[self._place(name) // len(_COLOURS) % len(_LINES)]}

    def marker(self, name: Any) -> str:
        """The marker of points."""
        return _MARKERS[self._place(name) // len(_COLOURS) % len(_MARKERS)]

    def _place(self, name: Any) -> int:
        known = self._places.get(name)
        return zlib.crc32(str(name).encode()) if known is None else known


def plain_log(axis: Axis) -> None:
    """Labels a logarithmic axis 1, 2, 5, 10, ... in plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:,.12g}"))
    axis.set_minor_formatter(NullFormatter())


def whiskers(*found: Summary | None) -> np.ndarray:
    """Error bars [2, n] of summaries, down and up, as ``xerr`` and ``yerr`` take them; 0 without an interval."""
    return np.transpose([(0.0, 0.0) if each is None else each.whiskers for each in found])
