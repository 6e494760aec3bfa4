"""The framework: a paper imports from here what it needs, ``from experiments.lab import System, Claim, numbers``.

It knows no paper. Names are loaded when they are asked for, so that a command that lists systems need not import JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.lab.frames import *  # noqa: F403
    from experiments.lab.judges import *  # noqa: F403
    from experiments.lab.pivots import *  # noqa: F403
    from experiments.lab.plots import *  # noqa: F403
    from experiments.lab.settings import *  # noqa: F403
    from experiments.lab.statistics import *  # noqa: F403
    from experiments.lab.style import *  # noqa: F403
    from experiments.lab.system import *  # noqa: F403

_FROM = {
    "frames": ("groups", "select"),
    "judges": (
        "Every", "Judge", "Numbers", "count", "every", "every_seed", "geometric", "larger", "mean", "median", "numbers",
        "ordered", "rank_correlations", "share", "slopes", "smaller", "statistic",
    ),
    "pivots": ("pivot",),
    "plots": ("along", "compared", "drawing", "finish", "line", "lines", "panels"),
    "settings": ("Many", "ManyOrNone", "Rate", "Scale", "Share", "Weight", "require_known"),
    "statistics": ("Statistic",),
    "style": ("Palette", "plain_log", "whiskers"),
    "system": (
        "Claim", "Context", "Drawing", "NotShown", "Part", "Place", "Published", "System", "Verdict", "benched",
        "cell_folder", "part", "parts", "tested",
    ),
}  # fmt: skip
_MODULES = {name: module for module, names in _FROM.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"experiments.lab has no {name}; it has {', '.join(sorted(_MODULES))}")
    return getattr(importlib.import_module(f"experiments.lab.{_MODULES[name]}"), name)
