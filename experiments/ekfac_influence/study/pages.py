"""A query and the training sequences that influence it most, token by token: as an HTML page or in the terminal."""

import dataclasses
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from core.errors import DataError
from experiments.lab import pages
from experiments.lab.pages import number, separator, visible
from interp.planted_facts import Corpus, PlantedFacts, token_names

UP, DOWN = (0, 114, 178), (213, 94, 0)
"""Blue and vermilion, which all common kinds of colour vision tell apart (Okabe and Ito)."""
FAINT = 0.04
"""Tokens with less than this share of the strongest attribution are left without colour."""
KEY = "Colour is relative to the strongest token of the same sequence; tokens that lower are underlined."
_HEADINGS = ("Raise the probability of the query", "Lower the probability of the query")


@dataclasses.dataclass(frozen=True)
class Query:
    """What was asked, and which of its tokens were measured."""

    tokens: Sequence[str]
    measured: Sequence[bool]
    """Tokens whose log-probability is the measurement."""

    def __post_init__(self):
        _require(len(self.tokens) > 0, "the query has no tokens; give the strings of its prompt and answer")
        _require_equal("the query", len(self.tokens), "flags of measured tokens", len(self.measured))


@dataclasses.dataclass(frozen=True)
class Attribution:
    """A training sequence with its influence on the query, in total, by token and by layer."""

    id: str
    tokens: Sequence[str]
    token_scores: Sequence[float]
    score: float
    label: str = ""
    """What is known about it, e.g. the fact it states."""
    layer_scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """In the order of the network; may be left out."""

    def __post_init__(self):
        _require(len(self.tokens) > 0, f"training sequence {self.id} has no tokens; give their strings")
        _require_equal(f"training sequence {self.id}", len(self.tokens), "token scores", len(self.token_scores))
        numbers = [self.score, *self.token_scores, *self.layer_scores.values()]
        _require(all(map(math.isfinite, numbers)), f"training sequence {self.id} has scores that are not finite")

    @property
    def heat(self) -> list[float]:
        """Token scores relative to the strongest, between -1 and 1."""
        return _relative(self.token_scores)

    @property
    def bars(self) -> list[tuple[str, float, float]]:
        """Name, score and score relative to the strongest of each layer."""
        scores = list(self.layer_scores.values())
        return list(zip(self.layer_scores, scores, _relative(scores), strict=True))

    @property
    def strongest(self) -> float:
        """The largest attribution to a token, by amount."""
        return max(map(float, self.token_scores), key=abs)


@dataclasses.dataclass(frozen=True)
class Page:
    """A query and its most influential training sequences, strongest first."""

    title: str
    query: Query
    positive: Sequence[Attribution]
    negative: Sequence[Attribution]
    note: str = ""
    """Model, data and method behind the scores."""

    def __post_init__(self):
        found = len(self.positive) + len(self.negative)
        _require(found > 0, "there are no training sequences to show; give the most influential ones of the query")

    @property
    def sections(self) -> list[tuple[str, Sequence[Attribution]]]:
        """Heading and sequences of either sign, where there are any."""
        return [(h, found) for h, found in zip(_HEADINGS, (self.positive, self.negative), strict=True) if len(found)]

    @property
    def largest(self) -> float:
        """The largest total score, by amount."""
        return max(abs(a.score) for _, found in self.sections for a in found)


TokenScores = Callable[[np.ndarray, int], np.ndarray]
"""``(sequences, query) -> [sequence, T - 1]``: attributions to predicted tokens."""


def influential(
    corpus: Corpus, settings: PlantedFacts, scores: np.ndarray, layers: Mapping[str, np.ndarray],
    token_scores: TokenScores, query: int = 0, shown: int = 5,
) -> Page:  # fmt: skip
    """A planted query's most influential sequences, so many of either sign; scores are [query, sequence]."""
    names, s, q = np.array(token_names(corpus.translation, settings)), corpus.sequences, corpus.queries

    def attribution(row: int, tokens: np.ndarray) -> Attribution:
        real, fact = np.asarray(s.mask[row]), int(s.fact[row])
        label = "filler" if fact < 0 else f"fact {fact}, {('A before B', 'B before A')[int(s.order[row])]}"
        felt = np.concatenate([[0.0], tokens])[real]
        by_block = {name: float(score[query, row]) for name, score in layers.items()}
        text = list(names[np.asarray(s.tokens[row])[real]])
        return Attribution(str(row), text, list(map(float, felt)), float(scores[query, row]), label, by_block)

    def chosen(order: np.ndarray) -> list[Attribution]:
        return [attribution(int(row), tokens) for row, tokens in zip(order, token_scores(order, query), strict=True)]

    tokens, order = np.asarray(q.tokens[query]), np.argsort(-scores[query], kind="stable")
    asked = Query(list(names[tokens[tokens != 0]]), list(np.asarray(q.mask[query])[tokens != 0]))
    note = "A decoder of the planted corpus; colours are attributions of EK-FAC influence to predicted tokens."
    best, worst = chosen(order[:shown]), chosen(order[::-1][:shown])
    return Page(f"What taught the decoder fact {query}", asked, best, worst, note)


def write_page(page: Page, path: Path) -> Path:
    """Writes one HTML file that needs no other, for screens of any size, dark rooms and paper.

    Raises:
      ConfigError: where it cannot be written.
    """
    return pages.write_page(path, html(page))


def write_terminal(page: Page, path: Path, width: int = 100) -> Path:
    """Writes the page for a terminal, in colour: to be seen with ``cat`` or ``less -R``.

    Raises:
      ConfigError: where it cannot be written.
    """
    shown = io.StringIO()
    Console(file=shown, force_terminal=True, color_system="truecolor", width=width).print(terminal(page))
    return pages.write_page(path, shown.getvalue())


def html(page: Page) -> str:
    """The page as HTML text."""
    template = pages.template(Path(__file__).with_name("influence.html"))
    return template.render(page=page, faint=FAINT, key=KEY, up=UP, down=DOWN)


def terminal(page: Page) -> RenderableType:
    """The page's content for ``rich``: blue raises, underlined vermilion lowers the probability."""
    parts: list[RenderableType] = [Text(visible(page.title), style="bold")]
    parts += [Text(visible(page.note), style="dim")] if page.note else []
    parts.append(_joined(page.query.tokens, ["bold reverse" if measured else "" for measured in page.query.measured]))
    parts.append(Text.assemble("\n", ("lowers ", _colour(-1)), ("raises", _colour(1)), (f"  {KEY}", "dim")))
    for heading, found in page.sections:
        parts.append(Text(f"\n{heading}", style="bold"))
        parts += [_terminal_sequence(rank, sequence) for rank, sequence in enumerate(found, 1)]
    return Group(*parts)


def _relative(scores: Sequence[float]) -> list[float]:
    largest = max((abs(float(score)) for score in scores), default=0.0)
    return [float(score) / largest if largest else 0.0 for score in scores]


def _require(met: bool, message: str) -> None:
    if not met:
        raise DataError(message)


def _require_equal(what: str, tokens: int, name: str, count: int) -> None:
    _require(tokens == count, f"{what} has {tokens} tokens but {count} {name}; give one per token")


def _joined(tokens: Sequence[str], styles: Sequence[str]) -> Text:
    pairs = zip(map(visible, tokens), styles, strict=True)
    return Text(separator(tokens)).join(Text(token, style=style) for token, style in pairs)


def _terminal_sequence(rank: int, sequence: Attribution) -> RenderableType:
    label = (visible(sequence.label) if sequence.label else "", "italic")
    head = Text.assemble(f"{rank}. ", (number(sequence.score), "bold"), f"  {visible(sequence.id)}  ", label)
    head.append(f"  strongest token {number(sequence.strongest)}")
    width = max((len(visible(name)) for name in sequence.layer_scores), default=0)
    layers = [
        Text.assemble(f"{visible(name):{width}} ", ("█" * max(1, round(12 * abs(share))), _colour(share)),
                      f" {number(score)}")
        for name, score, share in sequence.bars
    ]  # fmt: skip
    body = Group(_joined(sequence.tokens, [_background(share) for share in sequence.heat]), *layers)
    return Group(head, Padding(body, (0, 0, 0, 3)))


def _colour(share: float) -> str:
    return "rgb({},{},{})".format(*(UP if share >= 0 else DOWN))


def _background(share: float) -> str:
    """Black on a tint of the sign's colour, so that it can be read on any background."""
    if abs(share) < FAINT:
        return ""
    tint = (round(255 + 0.62 * abs(share) * (channel - 255)) for channel in (UP if share > 0 else DOWN))
    return f"{'underline ' if share < 0 else ''}black on rgb({','.join(map(str, tint))})"
