"""Experiments put methods on data and compare them with what was published; the command line."""

import sys
from pathlib import Path


def _leave_the_current_folder() -> None:
    """Takes the current folder off the path when Python put it there for ``python -m experiments.lab.cli``.

    Otherwise any import would look there first, and a file named as an optional dependency of some library would be
    executed. It stays where it is the folder that this package was imported from.
    """
    started_as_module = sys.argv[:1] == ["-m"] and not sys.flags.safe_path
    if started_as_module and Path(sys.path[0] or ".").resolve() != Path(__file__).resolve().parents[1]:
        del sys.path[0]


_leave_the_current_folder()
