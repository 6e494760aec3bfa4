"""What ``relic data`` does: the data sets there are, where they were found, and preparing them."""

from pathlib import Path
from typing import Any

from core.datasets import cache_dir, data_dir, interactions
from core.datasets.implicit import BUILDERS
from core.datasets.raw import digest
from core.errors import DataError


def list_datasets(explicit: Path | None = None) -> list[dict[str, Any]]:
    """Name, title, origin, licence and whereabouts of every data set."""
    return [
        {
            "name": name,
            "title": builder.TITLE,
            "homepage": builder.HOMEPAGE,
            "licence": builder.LICENCE,
            "found": _whereabouts(name, explicit),
        }
        for name, builder in BUILDERS.items()
    ]


def _whereabouts(name: str, explicit: Path | None) -> str:
    builder, folder = BUILDERS[name], data_dir(explicit)
    places = (folder / name if folder else None), cache_dir() / "raw" / name
    wanted = [builder.LOCAL], [source.name for source in builder.SOURCES]
    for place in places:
        if place and any(all((place / file).is_file() for file in files) for files in wanted):
            return str(place)
    return "to be downloaded"


def prepare(name: str, explicit: Path | None = None) -> dict[str, Any]:
    """Reads, validates and prepares a data set; returns its counts and the checksum of its raw files."""
    if name not in BUILDERS:
        raise DataError(f"there is no data set {name!r}; known are {', '.join(BUILDERS)}")
    files = BUILDERS[name].locate(explicit)
    counts = interactions.load(name, explicit).statistics()
    return {"name": name, **counts, "files": [str(path) for path in files], "sha256": digest(*files)}
