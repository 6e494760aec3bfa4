"""Data sets for the command line: what there is, where it was found, and its preparation."""

import functools
from collections.abc import Callable
from pathlib import Path

from rich.table import Table

from core.datasets import (
    cache_dir,
    data_dir,
    erp,
    growth,
    ihdp,
    interactions,
    mnist,
    monkey_reach,
    morphomnist,
    sachs,
    shakespeare,
    tables,
    uci,
    uganda,
)
from core.datasets.implicit import BUILDERS, ImplicitBuilder
from core.errors import DataError

Locate = Callable[[Path | None], Path | None]


def _of_table(origin: tables.Origin, file: Locate) -> tuple[str, str, Locate]:
    """A line of the list for what has builders of tables."""
    return (
        origin.title,
        f"{origin.licence}\n{origin.homepage}",
        lambda explicit: path.parent if (path := file(explicit)) else None,
    )


OTHERS: dict[str, tuple[str, str, Locate]] = {
    "mnist": (
        "MNIST: 70,000 handwritten digits of 28 x 28 pixels; downloaded when needed",
        "CC BY-SA 3.0 (Y. LeCun, C. Cortes)\nhttps://www.tensorflow.org/datasets/catalog/mnist",
        lambda explicit: _mnist(explicit),
    ),
    "monkey_reach_dad": (
        "Motor-cortex spike counts and hand velocity of two monkeys reaching for targets",
        "no licence stated; cite Dyer et al., Nature Biomedical Engineering 2017\nhttps://github.com/KordingLab/DAD",
        lambda explicit: path.parent if (path := monkey_reach.locate("chewie", explicit)) else None,
    ),
    "tinyshakespeare": (
        "Tiny Shakespeare: 40,000 lines of the plays",
        "public domain\nhttps://www.tensorflow.org/datasets/catalog/tiny_shakespeare",
        lambda explicit: path.parent if (path := shakespeare.locate(explicit)) else None,
    ),
    "morphomnist_ti": (
        "MorphoMNIST with thickness and intensity: 10,000 digits with the attributes they were made with",
        "MIT (biomedia-mira/deepscm), built on MNIST: CC BY-SA 3.0\nhttps://github.com/biomedia-mira/deepscm",
        lambda explicit: paths[0].parent if (paths := morphomnist.locate(explicit)) else None,
    ),
    "uci_regression": (
        "Concrete Compressive Strength and Energy Efficiency: small tables",
        "CC BY 4.0 (UCI Machine Learning Repository)\nhttps://archive.ics.uci.edu",
        lambda explicit: path.parent if (path := uci.locate("concrete", explicit)) else None,
    ),
    "growth_mixture": (
        "Growth curves: synthetic examples of Liu & Perera, and 500 children of ECLS-K:2011 from the R package nlpsem",
        "MIT (Extension_projects), GPL >= 3 (nlpsem); public-use data of NCES\nhttps://github.com/Veronica0206/nlpsem",
        lambda explicit: path.parent if (path := growth.locate(explicit=explicit)) else None,
    ),
    "erp_uci_subject_means": (
        "Averaged ERPs of 61 people of the UCI EEG database: 64 channels, alcoholic or control",
        "GPL-3 (R package TRES)\nhttps://cran.r-project.org/package=TRES",
        lambda explicit: path.parent if (path := erp.locate("erp_uci_subject_means", explicit)) else None,
    ),
    "erp_smni_train": (
        "600 single trials of 20 people of the UCI EEG database: 8 channels, 3 conditions",
        "CC BY 4.0 as recalled (UCI Machine Learning Repository)\nhttps://archive.ics.uci.edu",
        lambda explicit: path.parent if (path := erp.locate("erp_smni_train", explicit)) else None,
    ),
    "erp_impulsivity": (
        "Stop-signal ERPs of 24 people of high and low impulsivity: 2 conditions, 3 channels",
        "GPL-2 or later (R package ERP)\nhttps://cran.r-project.org/package=ERP",
        lambda explicit: path.parent if (path := erp.locate("erp_impulsivity", explicit)) else None,
    ),
    "uganda_yop_images": _of_table(tables.UGANDA, uganda.locate),
    "ihdp10": _of_table(tables.IHDP, ihdp.locate),
    "sachs_interventions": _of_table(tables.SACHS, sachs.locate),
}
"""What is read without a builder of interactions: title, licence and page, and where it was found."""


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
    for name, (title, origin, locate) in OTHERS.items():
        place = locate(explicit)
        found = f"[green]{place}[/green]" if place else "[dim]not here[/dim]"
        table.add_row(f"[bold]{name}[/bold]", f"{title}\n[dim]{origin}[/dim]", found)
    return table


def _mnist(explicit: Path | None) -> Path | None:
    base = data_dir(explicit)
    folders = [base / name for name in ("mnist", *mnist.FOLDERS)] if base else []
    for folder in (*folders, cache_dir() / "raw" / "mnist"):
        if any(folder.glob("t10k-images*")):
            return folder
    return None


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
    chosen = [table for table in tables.TABLES.values() if name in (table.folder, table.name)]
    if chosen:
        return "\n".join(map(functools.partial(_prepared, explicit=explicit), chosen))
    if name not in BUILDERS:
        possible = [*BUILDERS, *dict.fromkeys(table.folder for table in tables.TABLES.values())]
        raise DataError(f"there is no data set {name!r} to prepare; possible: {', '.join(possible)}")
    counts = interactions.load(name, data_dir=explicit).statistics()
    return f"{name}: " + ", ".join(f"{what.replace('_', ' ')} {count:,}" for what, count in counts.items())


def _prepared(table: tables.Table, explicit: Path | None) -> str:
    splits = tables.builder(table, explicit).info.splits
    return f"{table.name}: " + ", ".join(f"{split} {info.num_examples:,}" for split, info in splits.items())
