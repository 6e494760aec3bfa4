"""Progress of a command, shown at least every ten seconds: lines in a log, a live bar on a terminal."""

import contextlib
import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from core.documents import plain

SECONDS_BETWEEN_LINES = 6
"""Without output, after which a status line is printed: well under ten, as library calls may hold the interpreter."""


@dataclasses.dataclass
class Tally:
    """Cells of a run: those announced, those that an earlier run had finished, those finished since."""

    begun: float
    """When the run began, in seconds of some clock; likewise all other times."""
    announced: set[Hashable] = dataclasses.field(default_factory=set)
    before: set[Hashable] = dataclasses.field(default_factory=set)
    finished: set[Hashable] = dataclasses.field(default_factory=set)
    latest: float | None = None
    """When the latest cell was finished."""

    @property
    def total(self) -> int:
        """Number of cells, 0 where none were announced."""
        return len(self.announced | self.finished) if self.announced else 0

    @property
    def done(self) -> int:
        """Number of cells that need nothing more."""
        return len(self.before | self.finished)

    def seconds_left(self, now: float) -> float | None:
        """An estimate that every cell takes as long as those of this run did on average; None before the first is
        finished, and when the last one takes longer than the average.
        """
        if self.latest is None or self.done >= self.total:
            return None
        each, running = (self.latest - self.begun) / len(self.finished), now - self.latest
        return each * (self.total - self.done - 1) + max(0.0, each - running) or None

    def words(self, now: float) -> str:
        """E.g. "cell 3 of 30, about 12 min left"."""
        if not self.total:
            return ""
        left = self.seconds_left(now)
        estimate = "" if left is None else f", about {duration(left)} left"
        return f"cell {min(self.done + 1, self.total)} of {self.total}{estimate}"


_UNHEARD = contextlib.suppress(OSError)
"""A terminal that was closed takes no more, which is no reason to end the work."""

_speaking: list["Progress"] = []
"""Open displays; only the innermost prints: that of a run within a command, else that of the command."""


class Progress:
    """Shows the status from a thread, so that it appears during compilations and long library calls too.

    Args:
      title: the status until the first message.
      speaks: whether this process prints at all.
      bar: whether to draw on a terminal, instead of writing lines.
      clock: seconds, increasing.
    """

    def __init__(
        self, title: str, *, speaks: bool = True, bar: bool = False, clock: Callable[[], float] = time.monotonic
    ):
        self._clock, self._speaks, self._with_bar = clock, speaks, bar
        self._bar: Any = None
        self._told = self._clock()
        self.tally = Tally(self._told)
        self._doing, self._step = title, ""
        self._ended = threading.Event()
        self._turn = threading.RLock()

    def __enter__(self) -> "Progress":
        _speaking.append(self)
        if self._speaks:
            threading.Thread(target=self._watch, name="progress", daemon=True).start()
            if self._with_bar and sys.stderr.isatty():
                self._bar = _Bar()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        _speaking.remove(self)
        with self._turn, _UNHEARD:
            if self._bar:
                self._bar.stop()

    def announce(self, cells: Iterable[Hashable], is_done: Callable[[Any], bool]) -> None:
        """Adds to the cells of which the run consists.

        Args:
          cells: their keys.
          is_done: whether an earlier run finished a cell.
        """
        cells = set(cells)
        self.tally.announced |= cells
        self.tally.before |= {cell for cell in cells if is_done(cell)}

    def finished(self, cell: Hashable) -> None:
        """Counts a cell as finished now."""
        self.tally.finished.add(cell)
        self.tally.latest = self._clock()
        self._step = ""

    def say(self, message: str) -> None:
        """Prints a message; its first line is the status from now on."""
        self._doing, self._step = message.partition("\n")[0], ""
        if self._speaks:
            self._print(message)

    def track(self, description: str) -> Callable[[int, int], None]:
        """A function to be called with (steps done, steps in all) of the present work."""

        def note(done: int, total: int) -> None:
            self._step = f"{description}: {done:,} of {total:,}" if done < total else ""
            self.beat()

        return note

    def beat(self) -> None:
        """Prints the status if nothing was printed for a while; called every second and at every step reported."""
        if not self._speaks or self._ended.is_set() or _speaking[-1:] != [self]:
            return
        with self._turn, _UNHEARD:
            if self._bar:
                self._bar.show(self.status(), self.tally)
            elif self._clock() - self._told >= SECONDS_BETWEEN_LINES:
                self._print(f"[{duration(self._clock() - self.tally.begun)}] {self.status()}")

    def status(self) -> str:
        """E.g. "cell 3 of 30, about 12 min left; adam, seed 1: 340 of 2,000"."""
        return "; ".join(filter(None, (self.tally.words(self._clock()), self._step or self._doing)))

    def _print(self, message: str) -> None:
        with self._turn, _UNHEARD:
            self._told = self._clock()
            if self._bar:
                self._bar.print(message)
            else:
                tell(message)

    def _watch(self) -> None:
        while not self._ended.wait(1):
            self.beat()


class _Bar:
    """A line at the foot of a terminal, which disappears in the end."""

    def __init__(self):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        text = TextColumn("{task.description}", markup=False)
        self._rows = Progress(TimeElapsedColumn(), BarColumn(20), text, console=Console(stderr=True), transient=True)
        self._row = self._rows.add_task("", total=None)
        self._rows.start()

    def show(self, status: str, tally: Tally) -> None:
        self._rows.update(self._row, description=status, completed=tally.done, total=tally.total or None)

    def print(self, message: str) -> None:
        self._rows.console.print(message, highlight=False, markup=False)

    def stop(self) -> None:
        self._rows.stop()


def tell(message: str) -> None:
    """Prints lines on standard error, without characters that would steer a terminal; nothing where that is full."""
    with contextlib.suppress(OSError):
        print("\n".join(map(plain, message.split("\n"))), file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds in words: "40 s", "12 min", "3 h 20 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
