"""Whether the libraries that comparisons need can be used together: ``python -m experiments.lab.peers``.

An installer checks versions, and torchvision of the right version still fails beside a torch that was built for another
device: only an import tells.
"""

import importlib
import importlib.metadata
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from packaging.requirements import Requirement

PARTS = {"torchvision": "ops", "transformers": "LlamaForCausalLM"}
"""What is asked of a package beyond its import: transformers imports its models, and torchvision with them, late."""


def names() -> list[str]:
    """The packages of the extra ``peers``, each also the name of its module."""
    asked = map(Requirement, importlib.metadata.requires("relic") or ())
    return sorted(each.name for each in asked if each.marker and each.marker.evaluate({"extra": "peers"}))


def faults(packages: Iterable[str], say: Callable[[str], None]) -> list[str]:
    """Imports packages in turn, says what it found, and returns a sentence on each that cannot be used.

    Args:
      packages: names of modules.
      say: gets a line on every package.
    """
    found = []
    for package in packages:
        try:
            getattr(importlib.import_module(package), PARTS.get(package, "__name__"))
        except Exception as error:  # whatever an import of foreign code may raise
            found.append(_sentence(package, error))
            say(found[-1])
        else:
            say(f"{package} {_version(package)}")
    return found


def _sentence(package: str, error: Exception) -> str:
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"{package} {_version(package)} cannot be imported ({reason})"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def main() -> int:
    """Checks all packages of the extra; 1 where one cannot be used."""
    warnings.simplefilter("ignore")  # of optional parts that a peer misses

    def say(line: Any) -> None:
        print(line, flush=True)

    failed = faults(names(), say)
    if not failed:
        return 0
    pair = f"torch {_version('torch')} and torchvision {_version('torchvision')}"
    print(
        f"peers: {len(failed)} of the libraries above cannot be used here. A frequent cause: {pair} do not belong"
        " together. Remove both (pip uninstall torch torchvision) and install them from one index, with the versions"
        " of requirements-peers.lock.",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
