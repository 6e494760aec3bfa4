"""What a reproduced paper is made of: its configuration, published numbers, runs, tables, figures and claims."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import jax
import pandas as pd
from matplotlib.figure import Figure

from core.errors import ConfigError
from core.records import Scalar
from experiments.lab.statistics import Statistic
from experiments.lab.style import Palette

Table = Callable[[pd.DataFrame], pd.DataFrame]
"""A table from the tidy frame of the records; without rows where nothing of it was measured."""
Drawing = Callable[[pd.DataFrame], Figure | None]
"""A figure from the tidy frame; None where nothing of it was measured."""
Family = Literal["rec", "latent", "causal", "interp"]
Mark = Literal["paper", "code", "log", "recalled"]
"""How sure a published figure is: read in the paper, in its code, in a published training log, or remembered."""


@dataclasses.dataclass(frozen=True)
class Published:
    """One number that others published, and where."""

    dataset: str
    method: str
    metric: str
    value: float
    source: str
    mark: Mark


@dataclasses.dataclass(frozen=True)
class ShownByTest:
    """Evidence of a claim: a test, by its pytest node id without parameters (``tests/x.py::test_y``).

    The test fails when the claim does not hold. It reports what it measured through ``record_property("value", x)``
    and ``record_property("interval", (low, high))``, which the ledger prints.
    """

    nodeid: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the records say of a claim; ``met`` is None where they do not suffice to tell."""

    met: bool | None
    value: str = ""
    """The measured quantity in words and figures, e.g. "steps to R@20 = 0.20: 246 against 2,000"."""
    interval: tuple[float, float] | None = None
    misses: bool = False
    """Whether what was measured lies beyond the limits, though its interval decides nothing."""


@dataclasses.dataclass(frozen=True)
class ShownByBench:
    """Evidence of a claim about speed: a comparison of ``relic bench``, on an idle machine, which is named."""

    bench: str
    """Its name."""
    result: str
    """How the name of the result begins."""
    least: float
    """The peer's time over ours; the interval of the ratio has to lie above it."""


@dataclasses.dataclass(frozen=True)
class NotShown:
    """An openly missing piece of evidence, and why."""

    reason: str


class ShownByRecords(Protocol):
    """Evidence of a claim: a judgement computed from this system's records, see :mod:`experiments.lab.judges`."""

    @property
    def words(self) -> str:
        """Which numbers are judged and how, in words."""
        ...

    def __call__(self, frame: pd.DataFrame) -> Verdict:
        """The verdict on the tidy table of :func:`core.records.to_frame`, of one preset."""
        ...


@dataclasses.dataclass(frozen=True)
class Claim:
    """A numbered item of the system's list of what a reproduction must show."""

    number: str
    """Its number in the list; parts of an item are "8a", "8b", ..."""
    statement: str
    evidence: ShownByTest | ShownByRecords | ShownByBench | NotShown
    note: str = ""
    """In what the item differs from the list and why, or that it was added, and after which look."""


def benched(bench: str, result: str, least: float = 1.0) -> ShownByBench:
    """Evidence by a comparison of speed, see :class:`ShownByBench`."""
    return ShownByBench(bench, result, least)


def tested(nodeid: str) -> ShownByTest:
    """Evidence by a test, see :class:`ShownByTest`."""
    return ShownByTest(nodeid)


class Context(Protocol):
    """What the runner gives an experiment: where to work, which seeds, and how to report."""

    @property
    def preset(self) -> str:
        """Name of the preset in use."""
        ...

    @property
    def seeds(self) -> Sequence[int]:
        """Seeds to run, e.g. (0, 1, 2)."""
        ...

    @property
    def workdir(self) -> Path:
        """A folder of this run's own: checkpoints go to ``workdir / <cell>``.

        No other code and no other data were at work in it; ask for it after raw files were looked for.
        """
        ...

    @property
    def data_dir(self) -> Path | None:
        """Where raw data files lie, if anywhere."""
        ...

    @property
    def missing(self) -> Sequence["Cell"]:
        """The cells of the present part that are not done."""
        ...

    @property
    def missing_seeds(self) -> Sequence[int]:
        """The seeds of these cells, each once, in the order in which they were asked for."""
        ...

    def cells(self, cells: Iterable[Mapping[str, Scalar]]) -> None:
        """Announces the cells that the run consists of, done or not, for the display to count; call it first."""
        ...

    def done(self, **cell: Scalar) -> bool:
        """Whether a former run finished this cell, by this code and from the same raw files.

        Pass ``dataset=``, ``method=``, ``seed=`` or what you finish by. A cell depends on all raw files that were
        looked for or read since the run began (:mod:`core.datasets.raw`), so look for those of a cell before you
        finish it.
        """
        ...

    def record(self, *, dataset: str, method: str, metric: str, seed: int, value: float, **coords: Scalar) -> None:
        """Notes one measured number; kept in memory until :meth:`finish` writes the cell's numbers at once."""
        ...

    def at(self, **place: Scalar) -> "Place":
        """The place of numbers to come: data set, method, seed and further coordinates, as far as they are known."""
        ...

    def finish(self, **cell: Scalar) -> None:
        """Writes the noted numbers and marks the cell done, atomically: a rerun skips it."""
        ...

    def say(self, message: str) -> None:
        """A line for the person watching, on standard error."""
        ...

    def progress(self, description: str) -> Callable[[int, int], None]:
        """Tells of long work within a cell: call the result with (steps done, steps in all)."""
        ...


@dataclasses.dataclass(frozen=True)
class Place:
    """Where numbers belong; ``context.at(dataset="toy", seed=0).record("loss", 0.1)``."""

    context: Context
    place: Mapping[str, Scalar]

    def at(self, **more: Scalar) -> "Place":
        """A place within this one."""
        return Place(self.context, {**self.place, **more})

    def record(self, metric: str, value: Any, **more: Scalar) -> None:
        """Notes one number."""
        place: dict[str, Any] = {**self.place, **more}
        self.context.record(metric=metric, value=float(value), **place)

    def record_all(self, values: Mapping[str, Any], **more: Scalar) -> None:
        """Notes a number of each of several metrics."""
        for metric, value in values.items():
            self.record(metric, value, **more)


Cell = Mapping[str, Scalar]
"""What tells a finished piece of work from others: its data set, method and seed, or the name of a part."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A piece of a run: a function that measures, and the cells which its numbers fill.

    The lab passes over what is done, says what is at work, calls ``measure(config, context)`` and writes the numbers.
    """

    measure: Callable[[Any, Context], None]
    cells: Sequence[Cell]
    """One, or several where one program trains them together: ``context.missing`` are those not done yet."""


def part(measure: Callable[[Any, Context], None], **cell: Scalar) -> Part:
    """A part of one cell."""
    return Part(measure, [cell])


def parts(measures: Mapping[str, Callable[[Any, Context], None]]) -> list[Part]:
    """Parts by name, each of which holds all seeds."""
    return [part(measure, part=name) for name, measure in measures.items()]


@dataclasses.dataclass(frozen=True)
class System:
    """A paper, reproduced."""

    slug: str
    """Slug, title, line and family are literals: the list of systems reads them without importing the module."""
    title: str
    family: Family
    paper: str
    """Authors, venue, year, arXiv number."""
    presets: Mapping[str, Any]
    """Name (smoke, small, paper) to a frozen dataclass of settings; all of one type."""
    plan: Callable[[Any, Context], Iterable[Part]]
    """``plan(config, context)``: the parts of a run, in their order."""
    published: Sequence[Published] = ()
    claims: Sequence[Claim] = ()
    metrics: Sequence[str] = ()
    """Metrics of the main table, in order; their names match records and ``published``."""
    statistics: Sequence[Statistic] = ()
    """What the repetitions of its numbers are, where they are not means over seeds; the first rule that names a number
    counts."""
    baseline: str | None = None
    """Method that the others are tested against in the main table."""
    tables: Mapping[str, Table] | Callable[[pd.DataFrame], Mapping[str, pd.DataFrame]] = dataclasses.field(
        default_factory=dict
    )
    """Further tables, by title: pivots (:func:`experiments.lab.pivots.pivot`) or functions of the tidy frame."""
    figures: Mapping[str, Drawing] | Callable[[pd.DataFrame], Mapping[str, Figure]] = dataclasses.field(
        default_factory=dict
    )
    """Figures by file stem, see :mod:`experiments.lab.plots`; draw with ``matplotlib.figure.Figure`` (no pyplot)."""
    summary: Callable[[pd.DataFrame], str] | None = None
    """What a reader may conclude, in a sentence computed from the tidy frame; empty where it does not suffice. Without
    it the report compares the first of ``metrics`` with the baseline's, or counts claims."""
    line: str = ""
    """What it does, in one line."""
    is_layer: bool = False
    """Whether it is no paper of its own but what several systems share."""
    colours: Palette = dataclasses.field(default_factory=Palette)
    """The look of each method in figures and tables."""
    data: Sequence[str] = ()
    """Names of the datasets that it can use (see ``relic data list``)."""

    @property
    def config_type(self) -> type:
        """The class of its settings."""
        return type(next(iter(self.presets.values())))

    def require_preset(self, name: str) -> None:
        """Refuses what is none of the presets.

        Raises:
          ConfigError: names those that there are.
        """
        if name not in self.presets:
            raise ConfigError(f"{self.slug} has no preset {name!r}; possible: {', '.join(self.presets)}")


@dataclasses.dataclass(frozen=True)
class Example:
    """A learner at small size with what it is fed: what the tests of every learner run on."""

    learner: Any
    batch: Any
    key: jax.Array = dataclasses.field(default_factory=lambda: jax.random.key(0))

    @property
    def batch_axes(self) -> Any:
        """The prefix of ``batch`` which marks the leaves that hold examples along axis 0, as the learner states it."""
        return self.learner.layout.examples


def cell_folder(context: Context, **cell: Scalar) -> Path:
    """Where the training of a cell, or of one network of it, keeps its checkpoints."""
    name = "-".join(f"{key}={value}" for key, value in cell.items())
    return context.workdir / "training" / "".join(c if c.isalnum() or c in "-=." else "_" for c in name)
