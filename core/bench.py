"""Speed beside the best peer: both sides in one run, compilation apart, the ratio first, on a machine with no load."""

import dataclasses
import functools
import importlib
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from core import stats
from core.checks import Count, NonNegative, checked
from core.errors import ConfigError, RelicError
from core.learner import Learner
from core.loop import scan_steps


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of a call that was repeated."""

    median: float
    iqr: float = math.nan
    """Interquartile range in seconds; NaN where it was called less than three times."""
    low: float = math.nan
    """Limits of the 95 % interval of the median; NaN where it was called less than six times."""
    high: float = math.nan

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Timing":
        """From the seconds of every call, of which there is one at least."""
        if not len(seconds):
            raise ConfigError("a timing needs the seconds of one call at least")
        if len(seconds) < 3:
            return cls(statistics.median(seconds))
        low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
        found = stats.median(np.asarray(seconds, float))
        return cls(middle, high - low, *(found.interval if found.level >= 0.95 else (math.nan, math.nan)))

    @property
    def spread(self) -> float:
        """Interquartile range over median."""
        return self.iqr / self.median

    def __add__(self, other: "Timing") -> "Timing":
        """One after the other, at the worst in step."""
        return Timing(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    def __mul__(self, factor: float) -> "Timing":
        """Of another amount of work."""
        return Timing(*(factor * each for each in dataclasses.astuple(self)))


@dataclasses.dataclass(frozen=True)
class BenchResult:
    """One comparison; ``ratio`` is the peer's time over ours, above 1 where we are faster."""

    name: str
    ours_s: float
    peer: str
    peer_s: float
    compile_s: float
    device: str
    note: str = ""
    ours_spread: float = math.nan
    """Interquartile range over median, NaN where it is not known; likewise the peer's."""
    peer_spread: float = math.nan
    ratio_low: float = math.nan
    """Limits of the ratio where both medians lie at the ends of their intervals; NaN where these are not known."""
    ratio_high: float = math.nan
    busy: bool = False
    """Whether other processes took part of the machine, so that the seconds are not to be published."""

    @classmethod
    def of(cls, name: str, ours: Timing, peer: str, theirs: Timing, compile_s: float, note: str = "") -> "BenchResult":
        """From two timings on the present device."""
        sides = ours.median, peer, theirs.median
        limits = theirs.low / ours.high, theirs.high / ours.low
        return cls(name, *sides, compile_s, device_name(), note, ours.spread, theirs.spread, *limits)

    @property
    def ratio(self) -> float:
        """Peer over ours."""
        return self.peer_s / self.ours_s


def first_call(fn: Callable[[], Any]) -> float:
    """Seconds of one call, results ready: compilation and first execution of a jitted function."""
    start = time.perf_counter()
    jax.block_until_ready(fn())
    return time.perf_counter() - start


def steps_call(learner: Learner, batch: Any, steps: int) -> Callable[[], Any]:
    """A compiled call of some steps of a learner, from the same state each time; for :func:`first_call`."""
    state = jax.jit(learner.init)(jax.random.key(0), batch)
    return functools.partial(jax.jit(scan_steps(learner, steps).update).lower(state, batch).compile(), state, batch)


@checked
def interleaved(ours: Callable[[], Any], peer: Callable[[], Any], *, repeats: Count = 7) -> tuple[Timing, Timing]:
    """Seconds of each side, measured in turn so that what troubles one troubles the other."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for fn, kept in zip((ours, peer), times, strict=True):
            kept.append(first_call(fn))
    return Timing.of(times[0]), Timing.of(times[1])


@checked
def beside(
    name: str,
    ours: Callable[[], Any],
    peer: str,
    theirs: Callable[[], Any],
    *,
    steps: Count = 1,
    repeats: Count = 7,
    note: str = "",
) -> BenchResult:
    """Ours and a peer timed in turn; what our first call takes longer than later ones is compilation.

    Args:
      name: what is timed.
      ours: a jitted call that was not made before.
      peer: its name.
      theirs: a call of the peer.
      steps: of each call; seconds are per step.
      repeats: of both.
      note: for the table.
    """
    first = first_call(ours)
    own, others = interleaved(ours, theirs, repeats=repeats)
    return BenchResult.of(name, own * (1 / steps), peer, others * (1 / steps), first - own.median, note)


BUSY = 0.05
"""Share of the machine's cores that other processes may take before its timings are marked."""
IDLE_SECONDS = 2.0
"""How long other processes are watched before a comparison."""


@dataclasses.dataclass(frozen=True)
class Load:
    """Cores that other processes kept busy, on average; NaN where this system does not tell."""

    before: float
    """While this process slept."""
    during: float
    """While it measured."""
    cores: int

    @property
    def is_busy(self) -> bool:
        """Whether timings suffered."""
        return max((x for x in (self.before, self.during) if not math.isnan(x)), default=0.0) > BUSY * self.cores

    def words(self) -> str:
        """E.g. "other processes kept 1.3 of 2 cores busy before the run, 1.1 of 2 cores busy during the run"."""
        known = {"before": self.before, "during": self.during}
        parts = [f"{x:.1f} of {self.cores} cores busy {when} the run" for when, x in known.items() if not math.isnan(x)]
        return f"other processes kept {', '.join(parts)}"


class LoadMeter:
    """Watches other processes: for a moment at first, then until :meth:`load` is asked for.

    Args:
      seconds: of the moment.
    """

    @checked
    def __init__(self, seconds: NonNegative = IDLE_SECONDS):
        begun = _used()
        time.sleep(seconds)
        self._begun = _used()
        self.before = Load(_by_others(begun, self._begun), math.nan, os.cpu_count() or 1)

    def load(self) -> Load:
        """Before and from then until now."""
        return dataclasses.replace(self.before, during=_by_others(self._begun, _used()))


def _used() -> tuple[float, float, float]:
    """The time, and core seconds used since the start: by all processes (NaN where unknown), and by this one."""
    own = os.times()
    return time.monotonic(), _all_processes(), own.user + own.system + own.children_user + own.children_system


def _all_processes(path: Path = Path("/proc/stat")) -> float:
    """Core seconds of all processes of a Linux machine, with what its host took away."""
    try:
        fields = path.read_text().split("\n", 1)[0].split()[1:9]
        user, nice, system, _, _, irq, softirq, steal = map(int, fields)
    except (OSError, ValueError):
        return math.nan
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _by_others(begin: tuple[float, float, float], end: tuple[float, float, float]) -> float:
    """Cores used by other processes between two readings."""
    elapsed, everyone, own = (late - early for early, late in zip(begin, end, strict=True))
    if math.isnan(everyone):
        return max(0.0, os.getloadavg()[0] - own / elapsed) if hasattr(os, "getloadavg") else math.nan
    return max(0.0, (everyone - own) / elapsed)


@checked
def require_agreement(difference: Any, most: float, what: str) -> None:
    """Ends a comparison of things that are not the same.

    Raises:
      RelicError: where the relative difference of ``what`` exceeds ``most``.
    """
    if not difference <= most:
        raise RelicError(f"the two sides' {what} differ by {difference:.0e}: nothing to compare")


def peer_module(name: str) -> Any:
    """A library that only comparisons need, imported; untyped, since it need not be installed.

    Raises:
      RelicError: where it is missing.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise RelicError(f"this comparison needs {error.name}, which is not installed here; run: make peers") from error


def device_name() -> str:
    """The device that JAX computes on, in words."""
    device = jax.devices()[0]
    return f"{device.device_kind} ({device.platform})"
