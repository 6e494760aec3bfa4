"""Speed beside the best peer: both sides in one run, compilation apart, the ratio first."""

import dataclasses
import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

from core.errors import RelicError


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

    @property
    def ratio(self) -> float:
        """Peer over ours."""
        return self.peer_s / self.ours_s


def first_call(fn: Callable[[], Any]) -> float:
    """Seconds of one call, results ready: compilation and first execution of a jitted function."""
    start = time.perf_counter()
    jax.block_until_ready(fn())
    return time.perf_counter() - start


def interleaved(ours: Callable[[], Any], peer: Callable[[], Any], *, repeats: int = 7) -> tuple[float, float]:
    """Median seconds of each side, measured in turn so that a busy machine troubles both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for fn, kept in zip((ours, peer), times, strict=True):
            kept.append(first_call(fn))
    return statistics.median(times[0]), statistics.median(times[1])


def beside(
    name: str,
    ours: Callable[[], Any],
    peer: str,
    theirs: Callable[[], Any],
    *,
    steps: int = 1,
    repeats: int = 7,
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
    ours_s, peer_s = interleaved(ours, theirs, repeats=repeats)
    return BenchResult(name, ours_s / steps, peer, peer_s / steps, first - ours_s, device_name(), note)


def require_agreement(difference: float, most: float, what: str) -> None:
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
