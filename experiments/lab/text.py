"""Figures as text: numbers with a sensible number of digits, p-values, intervals."""

import math

from core.stats import Summary

MISSING = "–"
UNEVEN = 0.01
"""From which difference of the distances to both limits on, relative to their mean, no ± stands for both."""


def number(value: float, like: float | None = None) -> str:
    """A figure with four digits, or with as many decimals as one of the size ``like`` has."""
    scale = abs(value if like is None else like)
    if math.isnan(value):
        return MISSING
    if not 1e-3 <= scale < 1e5 and scale:
        return f"{value:.3g}"
    return f"{value:.{min(4, max(0, 3 - math.floor(math.log10(scale or 1))))}f}"


def p_value(p: float) -> str:
    """A p-value with two digits."""
    return MISSING if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.2g}"


def interval_text(interval: tuple[float, float] | None) -> str:
    """The interval as [low, high]; nothing where there is none."""
    return f"[{number(interval[0])}, {number(interval[1])}]" if interval and interval[1] >= interval[0] else ""


def with_interval(found: Summary) -> str:
    """A number ± half of its interval; [the limits] where ± would say something else, nothing where there are none."""
    value, low, high, half = found.value, found.low, found.high, found.half_width
    if math.isnan(half):
        return number(value)
    beyond = value - half < 0 <= low or value + half > 1 >= high
    if beyond or abs(low + high - 2 * value) > UNEVEN * half:
        return f"{number(value)} [{number(low, value)}, {number(high, value)}]"
    return f"{number(value)} ± {number(half, value)}"
