"""Data sets for the command line: what there is, where it was found, and its preparation."""

from pathlib import Path

from rich.table import Table

from core.datasets import cache_dir, data_dir, interactions
from core.datasets.implicit import BUILDERS, ImplicitBuilder
from core.errors import DataError


def terminal(explicit: Path | None) -> Table:
    """All data sets, with licence and place."""
    table = Table(box=None, padding=(0, 2, 1, 0), header_style="dim")
    for name in ("name", "what", "where"):
        table.add_column(name, no_wrap=name == "name")
    for name, builder in BUILDERS.items():
        place = where(builder, explicit)
        found = f"[green]{place}[/green]" if place else "[dim]not here; downloaded when needed[/dim]"
        table.add_row(
            f"[bold]{name}[/bold]", f"{builder.TITLE}\n[dim]{builder.LICENCE}\n{builder.HOMEPAGE}[/dim]", found
        )
    return table


def where(builder: type[ImplicitBuilder], explicit: Path | None) -> Path | None:
    """The folder which holds the raw files of a data set, if one does; fetches nothing."""
    published = [source.name for source in builder.SOURCES]
    base = data_dir(explicit)
    for folder in (base and base / builder.name, cache_dir() / "raw" / builder.name):
        if folder and any(all((folder / n).is_file() for n in names) for names in ([builder.LOCAL], published)):
            return folder
    return None


def prepare(name: str, explicit: Path | None) -> str:
    """Reads, validates and converts a data set; returns what it holds, in words.

    Raises:
      DataError: where it is unknown, nowhere to be had, or not as it should be.
    """
    if name not in BUILDERS:
        raise DataError(f"there is no data set {name!r}; possible: {', '.join(BUILDERS)}")
    counts = interactions.load(name, data_dir=explicit).statistics()
    return f"{name}: " + ", ".join(f"{what.replace('_', ' ')} {count:,}" for what, count in counts.items())
