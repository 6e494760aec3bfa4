"""A query and the training sequences that influence it most, token by token: as an HTML page or in the terminal."""

import dataclasses
import functools
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from core.errors import DataError
from experiments.lab import files
from interp.planted_facts import Corpus, PlantedFacts, token_names

UP, DOWN = (0, 114, 178), (213, 94, 0)
"""Blue and vermilion, which all common kinds of colour vision tell apart (Okabe and Ito)."""
FAINT = 0.04
"""Tokens with less than this share of the strongest attribution are left without colour."""
KEY = "Colour is relative to the strongest token of the same sequence; tokens that lower are underlined."
_HEADINGS = ("Raise the probability of the query", "Lower the probability of the query")
_CONTROL = {"\n": "↵\n", "\t": "⇥\t"}


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


def influential(
    corpus: Corpus,
    settings: PlantedFacts,
    scores: np.ndarray,
    layers: Mapping[str, np.ndarray],
    token_scores: Callable[[np.ndarray, int], np.ndarray],
    query: int = 0,
    shown: int = 5,
) -> Page:
    """A planted query's most influential sequences, token by token.

    Args:
      corpus: sequences and queries.
      settings: of the corpus.
      scores: influences [query, sequence].
      layers: the same by layer.
      token_scores: ``(sequences, query) -> [sequence, T - 1]``, by predicted token.
      query: which is shown.
      shown: sequences of either sign.
    """
    names, s = np.array(token_names(corpus.translation, settings)), corpus.sequences

    def attribution(row: int, tokens: np.ndarray) -> Attribution:
        real = np.asarray(s.mask[row])
        fact, order = int(s.fact[row]), int(s.order[row])
        label = "filler" if fact < 0 else f"fact {fact}, {('A before B', 'B before A')[order]}"
        felt = np.concatenate([[0.0], tokens])[real]
        text = list(names[np.asarray(s.tokens[row])[real]])
        by_block = {name: float(score[query, row]) for name, score in layers.items()}
        return Attribution(str(row), text, list(map(float, felt)), float(scores[query, row]), label, by_block)

    def chosen(order: np.ndarray) -> list[Attribution]:
        return [attribution(int(row), tokens) for row, tokens in zip(order, token_scores(order, query), strict=True)]

    asked, order = np.asarray(corpus.queries.tokens[query]) != 0, np.argsort(-scores[query], kind="stable")
    return Page(
        f"What taught the decoder fact {query}",
        Query(
            list(names[np.asarray(corpus.queries.tokens[query])[asked]]),
            list(np.asarray(corpus.queries.mask[query])[asked]),
        ),
        chosen(order[:shown]),
        chosen(order[::-1][:shown]),
        note="A decoder of the planted corpus; colours are attributions of EK-FAC influence to predicted tokens.",
    )


def write_page(page: Page, path: Path) -> Path:
    """Writes one HTML file that needs no other, for screens of any size, dark rooms and paper.

    Raises:
      ConfigError: where it cannot be written.
    """
    return files.write_page(path, html(page))


def write_terminal(page: Page, path: Path, width: int = 100) -> Path:
    """Writes the page for a terminal, in colour: to be seen with ``cat`` or ``less -R``.

    Raises:
      ConfigError: where it cannot be written.
    """
    shown = io.StringIO()
    Console(file=shown, force_terminal=True, color_system="truecolor", width=width).print(terminal(page))
    return files.write_page(path, shown.getvalue())


def html(page: Page) -> str:
    """The page as HTML text."""
    return _template().render(page=page, faint=FAINT, key=KEY, up=UP, down=DOWN)


def terminal(page: Page) -> RenderableType:
    """The page's content for ``rich``: blue raises, underlined vermilion lowers the probability."""
    query = _joined(page.query.tokens, ["bold reverse" if measured else "" for measured in page.query.measured])
    notes = [Text(visible(page.note), style="dim")] if page.note else []
    parts: list[RenderableType] = [Text(visible(page.title), style="bold"), *notes, query]
    parts.append(Text.assemble("\n", ("lowers ", _colour(-1)), ("raises", _colour(1)), (f"  {KEY}", "dim")))
    for heading, found in page.sections:
        parts.append(Text(f"\n{heading}", style="bold"))
        parts += [_terminal_sequence(rank, sequence) for rank, sequence in enumerate(found, 1)]
    return Group(*parts)


def visible(token: str) -> str:
    """A token's text with its line ends, tabs and unprintable characters made visible; an empty one is ∅."""
    return "".join(_CONTROL.get(c) or (c if c.isprintable() else _escaped(c)) for c in str(token)) or "∅"


def number(score: float) -> str:
    """A score with its sign and three digits."""
    return f"{score:+.3g}".replace("-", "−")


def separator(tokens: Sequence[str]) -> str:
    """What stands between shown tokens: a space, unless the tokens bring their own."""
    return "" if any(c.isspace() for token in tokens for c in token) else " "


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"visible": visible, "number": number, "separator": separator}
    return environment.get_template("influence.html")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


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
    head = Text.assemble(
        f"{rank}. ",
        (number(sequence.score), "bold"),
        f"  {visible(sequence.id)}  ",
        (visible(sequence.label) if sequence.label else "", "italic"),
        f"  strongest token {number(sequence.strongest)}",
    )
    width = max((len(visible(name)) for name in sequence.layer_scores), default=0)
    layers = [
        Text.assemble(
            f"{visible(name):{width}} ", ("█" * max(1, round(12 * abs(share))), _colour(share)), f" {number(score)}"
        )
        for name, score, share in sequence.bars
    ]
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
