"""A browser of latents: one HTML page with what each latent is active on, its concept, and what ablating it does."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.errors import DataError
from experiments.lab.pages import template, write_page
from experiments.recsae.config import MAIN_K, Config
from experiments.recsae.study.latents import Probed
from experiments.recsae.study.steering import Effects
from interp import recsae
from rec.sequential import PAD

SHOWN_ITEMS, SHOWN_SEQUENCES, BINS = 4, 5, 16


@dataclasses.dataclass(frozen=True)
class History:
    """A history that activates a latent."""

    activation: float
    items: Sequence[str]
    """Texts, oldest first; the last one decides."""
    fits: bool
    """Whether the concept says so."""


@dataclasses.dataclass(frozen=True)
class Latent:
    """A latent as it is shown."""

    index: int
    concept: str
    q: float
    density: float
    precision: float
    recall: float
    f1: float
    low: float
    interpretable: bool
    histogram: Sequence[int]
    """Counts of activations between 0 and the largest."""
    largest: float
    share: float | None
    """Of the concept's items among recommendations where it is active; None where it was not steered."""
    change: float | None
    """Of that share by ablation."""
    sequences: Sequence[History]

    @property
    def bars(self) -> list[float]:
        """Heights between 0 and 1, on a scale of square roots."""
        most = max(self.histogram, default=0)
        return [float(np.sqrt(count / most)) if most else 0.0 for count in self.histogram]


@dataclasses.dataclass(frozen=True)
class Browser:
    """The page."""

    title: str
    note: str
    latents: Sequence[Latent]

    def __post_init__(self):
        if not self.latents:
            raise DataError("there are no latents to show; train for longer or lower the number of checked instances")


def browser(config: Config, about: Probed, effects: Effects, seed: int) -> Browser:
    """The most confident latents of a dictionary; those that were steered with what ablation did."""
    corpus, d = about.corpus, about.dictionaries[MAIN_K]
    found = about.read(config, about.latents(MAIN_K), seed)
    new = found.new
    first = found.confidence[0]
    order = np.argsort(-np.nan_to_num(first.low), kind="stable")
    shown = [place for place in order if first.checked[place] > 0][: config.page_latents]
    good = first.interpretable(config.threshold)
    note = (
        f"{corpus.name}, SASRec, k = {d.k} of {len(d.params['b_e'])} latents. Concepts from metadata of the "
        f"{config.top} strongest training places; precision, recall and F1 on the histories of new sequences, half of "
        "them active; effect of ablation on the concept's items among the first ten."
    )
    latents = [
        Latent(
            index=(j := int(found.units[place])),
            concept=found.concepts.names[place],
            q=float(found.concepts.q[place]),
            density=float(np.diff(new.indptr)[j] / new.shape[0]),
            precision=float(np.nan_to_num(first.precision[place])),
            recall=float(first.recall[place]),
            f1=float(np.nan_to_num(first.f1[place])),
            low=float(np.nan_to_num(first.low[place])),
            interpretable=bool(good[place]),
            histogram=np.histogram(_column(new, j), BINS, (0, max(_column(new, j).max(initial=0), 1e-9)))[0].tolist(),
            largest=float(_column(new, j).max(initial=0)),
            share=effects[j][0] if j in effects else None,
            change=effects[j][1] if j in effects else None,
            sequences=_sequences(about, found, int(place), j),
        )
        for place in shown
    ]
    return Browser(f"Latents of a recommender: {corpus.name}", note, latents)


def _column(activity: recsae.Activity, j: int) -> np.ndarray:
    return activity.data[activity.indptr[j] : activity.indptr[j + 1]]


def _sequences(about: Probed, found: recsae.Read, place: int, j: int) -> list[History]:
    new = found.new
    values, rows = _column(new, j), new.indices[new.indptr[j] : new.indptr[j + 1]]
    best = np.argsort(-values, kind="stable")[:SHOWN_SEQUENCES]
    fits = about.interpreter.predict(found.concepts, np.array([place]), about.last_items[rows[best]][None])[0]
    histories, texts = np.asarray(about.subject.examples.histories)[rows[best]], about.corpus.texts
    return [
        History(float(values[at]), [texts[item] for item in history[history != PAD][-SHOWN_ITEMS:]], bool(says))
        for at, history, says in zip(best, histories, fits, strict=True)
    ]


def write_browser(config: Config, about: Probed, effects: Effects, seed: int, folder: Path) -> Path:
    """Writes one HTML file that needs no other into a folder.

    Raises:
      ConfigError: where it cannot be written.
    """
    path = folder / f"latents-{about.corpus.name.replace(' ', '-')}-{seed}.html"
    return write_page(path, html(browser(config, about, effects, seed)))


def html(page: Browser) -> str:
    """The page as HTML text."""
    return template(Path(__file__).with_name("latents.html")).render(page=page)
