"""A corpus with planted facts, so that the training sequences behind a model's answer are known.

A fact is a relation r of a subject A to an object B; names are two or three tokens. It is stated in n paraphrases, each
with A before B ("the r of A is B", ...) or B before A ("B is the r of A", ...), among filler sequences from a Markov
source. A query is "the r of A is" and its measurement the log-probability of B. Some facts are stated a second time in
another language: the same words under a permuted alphabet that shares no token with the first.

Fillers: w_t ~ p(. | c(w_{t-2}), w_{t-1}) with few successors of geometrically falling probability, where c is a class
of words; the older word enters by its class only, so that a small model can learn the source.
"""

import dataclasses
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from core.checks import Fraction, NonEmpty, Size, checked
from core.errors import ConfigError
from core.kinds import Range

PAD, START = 0, 1
_SHARED = 2
_THE, _OF, _IS, _FUNCTION_WORDS = 0, 1, 2, 3
_RELATION = -1
"""Where a template has the fact's relation."""
_SLOT = 4
"""Template words at most before, between and after the names."""


@checked
@dataclasses.dataclass(frozen=True)
class PlantedFacts:
    """Sizes of the corpus; words are counted per language."""

    facts: Annotated[int, Range(2, 1_000_000)] = 64
    paraphrases: NonEmpty[Annotated[int, Range(1, 10_000)]] = (1, 4, 16)
    """Statements of a fact per order and language; equal shares of the facts have each."""
    orders: Literal["one", "both"] = "one"
    """Whether a fact is stated in one order of its names (every other fact B before A) or in both."""
    translated: Fraction = 0.25
    """Share of facts also stated in the second language, and of fillers written in it instead."""
    fillers: Annotated[int, Range(0, 100_000_000)] = 8192
    length: Size = 32
    vocabulary: Annotated[int, Range(8, 10_000_000)] = 512
    relations: Size = 8
    template_words: Size = 32
    name_pieces: Size = 96
    name_lengths: tuple[Annotated[int, Range(1, 64)], Annotated[int, Range(1, 64)]] = (2, 3)
    """Fewest and most tokens of a name."""
    classes: Size = 4
    """Classes of the older of the two words that the filler source remembers."""
    branching: Size = 4
    """Successors of a context in the filler source, each half as likely as the one before."""

    def __post_init__(self):
        shortest, longest = self.name_lengths
        fixed = _FUNCTION_WORDS + self.relations + self.template_words + self.name_pieces
        needed = 1 + 3 * _SLOT + 2 * longest
        _require(self.facts % 2 == 0, f"facts must be even, not {self.facts}")
        _require(shortest <= longest, f"name_lengths must be (fewest, most), not {self.name_lengths}")
        _require(self.length >= needed, f"length must be at least {needed} to hold any statement, not {self.length}")
        _require(
            self.words >= fixed,
            f"vocabulary {self.vocabulary} has {self.words} words per language, but {fixed} have a role; enlarge it",
        )
        _require(
            self.name_pieces**shortest >= 2 * self.facts,
            f"{self.name_pieces} name_pieces make fewer than {2 * self.facts} names of {shortest} tokens; raise them",
        )
        _require(self.branching <= self.words, f"branching must be between 1 and {self.words}")

    @property
    def words(self) -> int:
        """Words per language."""
        return (self.vocabulary - _SHARED) // 2


class Facts(NamedTuple):
    """What is planted; the tokens are those of the first language."""

    relation: Int[Array, " F"]
    subject: Int[Array, "F L"]
    """Tokens of A, padded at the end."""
    object: Int[Array, "F L"]
    """Tokens of B, padded at the end."""


class Sequences(NamedTuple):
    """Training sequences and what is known about each; those of facts come first."""

    tokens: Int[Array, "N T"]
    """Start with START, are filled up with PAD."""
    mask: Bool[Array, "N T"]
    """Where tokens are real; the training loss is that of ``tokens[:, 1:]`` where ``mask[:, 1:]``."""
    object_mask: Bool[Array, "N T"]
    """Where the tokens of B are; nowhere in fillers."""
    fact: Int[Array, " N"]
    """-1 for fillers."""
    order: Int[Array, " N"]
    """0 for A before B, 1 for B before A, -1 for fillers."""
    language: Int[Array, " N"]


class Queries(NamedTuple):
    """One query per fact, in the first language: "the r of A is B"."""

    tokens: Int[Array, "Q T"]
    mask: Bool[Array, "Q T"]
    """Tokens of B: the measurement is the sum of their log-probabilities, each given all tokens before it."""
    fact: Int[Array, " Q"]
    order: Int[Array, " Q"]
    """Order of the fact's training sequences; -1 where there are both."""
    paraphrases: Int[Array, " Q"]
    """Training sequences of the fact per order and language."""
    translated: Bool[Array, " Q"]
    """Whether the fact is stated in the second language too."""


class Corpus(NamedTuple):
    """Training sequences, queries and what is behind them."""

    sequences: Sequences
    queries: Queries
    facts: Facts
    translation: Int[Array, " W"]
    """Number, among the words of the second language, of each word of the first."""
    content: Bool[Array, " V"]
    """Which tokens carry content: all but padding, start, function words and template words."""

    def stated(self, order: int, language: int = 0) -> Bool[np.ndarray, "Q N"]:
        """Which sequences state each query's fact with the names in this order and language."""
        s = self.sequences
        own = np.asarray(s.fact) == np.asarray(self.queries.fact)[:, None]
        return own & (np.asarray(s.order) == order) & (np.asarray(s.language) == language)


class _Statements(NamedTuple):
    """Which statements there are: a function of the settings alone, so that shapes are static."""

    fact: np.ndarray
    paraphrase: np.ndarray
    order: np.ndarray
    language: np.ndarray


def planted_facts(key: Key[Array, ""], settings: PlantedFacts) -> Corpus:
    """Draws a corpus: a pure function of the key, with labels and shapes that depend on the settings only."""
    facts_key, template_key, translation_key, filler_key = jax.random.split(key, 4)
    facts, templates = _facts(facts_key, settings), _templates(template_key, settings)
    translation = jax.random.permutation(translation_key, settings.words)
    which = _statements(settings)
    stated, objects = _state(facts, templates, which, settings.length)
    tokens = jnp.concatenate([stated, _fillers(filler_key, settings)])
    language = np.concatenate([which.language, _spread(settings.fillers, settings.translated)]).astype(np.int32)
    tokens = jnp.where(language[:, None] == 1, _translate(tokens, translation), tokens)
    sequences = Sequences(
        tokens,
        tokens != PAD,
        jnp.pad(objects, ((0, settings.fillers), (0, 0))),
        jnp.pad(which.fact, (0, settings.fillers), constant_values=-1),
        jnp.pad(which.order, (0, settings.fillers), constant_values=-1),
        jnp.asarray(language),
    )
    queries = _queries(facts, templates, settings)
    return Corpus(sequences, queries, facts, translation, _content(translation, settings))


def token_names(translation: Int[Array, " W"], settings: PlantedFacts) -> tuple[str, ...]:
    """A readable name per token; those of the second language have an apostrophe after their translation's name."""
    pieces = [f"n{i}" for i in range(settings.name_pieces)]
    relations = [f"r{i}" for i in range(settings.relations)]
    templates = [f"t{i}" for i in range(settings.template_words)]
    named = ["the", "of", "is", *relations, *templates, *pieces]
    first = named + [f"w{i}" for i in range(settings.words - len(named))]
    second = [""] * settings.words
    for word, number in enumerate(np.asarray(translation)):
        second[number] = first[word] + "'"
    unused = [f"u{i}" for i in range(settings.vocabulary - _SHARED - 2 * settings.words)]
    return ("<pad>", "<start>", *first, *second, *unused)


def _require(met: bool, message: str) -> None:
    if not met:
        raise ConfigError(f"planted facts: {message}")


def _spread(count: int, share: float) -> np.ndarray:
    """A boolean per item, true for the share, as evenly spaced as can be."""
    steps = np.floor(np.arange(count + 1) * share + 1e-9)
    return np.diff(steps) > 0


def _plan(settings: PlantedFacts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paraphrases, order (0 or 1) and whether translated, per fact: balanced against each other."""
    pairs = settings.facts // 2
    pair, order = np.divmod(np.arange(settings.facts), 2)
    counts = np.asarray(settings.paraphrases)[pair * len(settings.paraphrases) // pairs]
    return counts, order, _spread(pairs, settings.translated)[pair]


def _statements(settings: PlantedFacts) -> _Statements:
    counts, order, translated = _plan(settings)
    both = settings.orders == "both"
    rows = [
        (fact, paraphrase, o, language)
        for fact in range(settings.facts)
        for language in range(1 + int(translated[fact]))
        for o in ((0, 1) if both else (order[fact],))
        for paraphrase in range(counts[fact])
    ]
    return _Statements(*np.asarray(rows, np.int32).T)


def _facts(key: Key[Array, ""], settings: PlantedFacts) -> Facts:
    """Random relations, and names whose first tokens differ, so that no name is the start of another."""
    relation_key, start_key, rest_key, length_key = jax.random.split(key, 4)
    (shortest, longest), names = settings.name_lengths, 2 * settings.facts
    codes = jax.random.choice(start_key, settings.name_pieces**shortest, (names,), replace=False)
    start = codes[:, None] // settings.name_pieces ** jnp.arange(shortest) % settings.name_pieces
    rest = jax.random.randint(rest_key, (names, longest - shortest), 0, settings.name_pieces)
    length = jax.random.randint(length_key, (names, 1), shortest, longest + 1)
    pieces = _SHARED + _first_piece(settings) + jnp.concatenate([start, rest], axis=1)
    tokens = jnp.where(jnp.arange(longest) < length, pieces, PAD)
    relation = jax.random.randint(relation_key, (settings.facts,), 0, settings.relations)
    return Facts(_SHARED + _FUNCTION_WORDS + relation, *jnp.split(tokens, 2))


def _first_template(settings: PlantedFacts) -> int:
    return _FUNCTION_WORDS + settings.relations


def _first_piece(settings: PlantedFacts) -> int:
    return _first_template(settings) + settings.template_words


def _templates(key: Key[Array, ""], settings: PlantedFacts) -> Int[Array, "2 P 3 S"]:
    """Tokens before, between and after the names, per order and paraphrase; the first paraphrase is the plain one.

    Of the others each slot has random words in random number, and one of the first two starts with the relation.
    """
    word_key, length_key, place_key = jax.random.split(key, 3)
    shape = (2, max(settings.paraphrases), 3)
    words = jax.random.randint(word_key, (*shape, _SLOT), 0, settings.template_words)
    fewest = jnp.array([1, 1, 0])
    lengths = jax.random.randint(length_key, shape, fewest, _SLOT + 1)
    tokens = jnp.where(jnp.arange(_SLOT) < lengths[..., None], _SHARED + _first_template(settings) + words, PAD)
    place = jax.random.randint(place_key, shape[:2], 0, 2)
    leads = (jnp.arange(3) == place[..., None])[..., None] & (jnp.arange(_SLOT) == 0)
    return jnp.where(leads, _RELATION, tokens).at[:, 0].set(_plain())


def _plain() -> np.ndarray:
    """The statements "the r of A is B" and "B is the r of A"."""
    the, of, is_ = _SHARED + _THE, _SHARED + _OF, _SHARED + _IS
    slots = [[[the, _RELATION, of], [is_], []], [[], [is_, the, _RELATION, of], []]]
    return np.array([[slot + [PAD] * (_SLOT - len(slot)) for slot in order] for order in slots], np.int32)


def _state(
    facts: Facts, templates: Int[Array, "2 P 3 S"], which: _Statements, length: int
) -> tuple[Int[Array, "R T"], Bool[Array, "R T"]]:
    """The tokens of each statement and where those of B are."""
    template = templates[which.order, which.paraphrase]
    before, between, after = jnp.moveaxis(
        jnp.where(template == _RELATION, facts.relation[which.fact][:, None, None], template), 1, 0
    )
    subject, object_ = facts.subject[which.fact], facts.object[which.fact]
    flipped = (which.order == 1)[:, None]
    first, second = jnp.where(flipped, object_, subject), jnp.where(flipped, subject, object_)
    start = jnp.full((which.fact.size, 1), START)
    tokens = jnp.concatenate([start, before, first, between, second, after], axis=1)
    part = np.repeat(np.arange(6), [1, _SLOT, first.shape[1], _SLOT, second.shape[1], _SLOT])
    objects = (part == np.where(flipped, 2, 4)) & (tokens != PAD)
    left = jnp.argsort(tokens == PAD, axis=1, stable=True)
    fill = ((0, 0), (0, length - tokens.shape[1]))
    tokens, objects = (jnp.pad(jnp.take_along_axis(x, left, axis=1), fill) for x in (tokens, objects))
    return tokens, objects


def _queries(facts: Facts, templates: Int[Array, "2 P 3 S"], settings: PlantedFacts) -> Queries:
    counts, order, translated = _plan(settings)
    number, zero = np.arange(settings.facts, dtype=np.int32), np.zeros(settings.facts, np.int32)
    tokens, objects = _state(facts, templates, _Statements(number, zero, zero, zero), settings.length)
    order = order if settings.orders == "one" else np.full_like(order, -1)
    return Queries(tokens, objects, *(jnp.asarray(x) for x in (number, order, counts, translated)))


def _translate(tokens: Int[Array, "N T"], translation: Int[Array, " W"]) -> Int[Array, "N T"]:
    words = translation[jnp.maximum(tokens - _SHARED, 0)]
    return jnp.where(tokens < _SHARED, tokens, _SHARED + translation.size + words)


def _content(translation: Int[Array, " W"], settings: PlantedFacts) -> Bool[Array, " V"]:
    word = jnp.arange(settings.words)
    template = (word >= _first_template(settings)) & (word < _first_piece(settings))
    content = (word >= _FUNCTION_WORDS) & ~template
    both = jnp.concatenate([jnp.zeros(_SHARED, bool), content, jnp.zeros_like(content).at[translation].set(content)])
    return jnp.pad(both, (0, settings.vocabulary - both.size))


def _fillers(key: Key[Array, ""], settings: PlantedFacts) -> Int[Array, "N T"]:
    """Sequences of the Markov source, in the first language."""
    source_key, class_key, start_key, path_key = jax.random.split(key, 4)
    noise = jax.random.uniform(source_key, (settings.classes, settings.words, settings.words))
    successors = jax.lax.top_k(noise, settings.branching)[1]
    class_of = jax.random.randint(class_key, (settings.words,), 0, settings.classes)
    preference = -jnp.log(2.0) * jnp.arange(settings.branching)

    def step(context, key):
        older, newer = context
        choice = jax.random.categorical(key, preference, shape=newer.shape)
        word = successors[class_of[older], newer, choice]
        return (newer, word), word

    older, newer = jax.random.randint(start_key, (2, settings.fillers), 0, settings.words)
    keys = jax.random.split(path_key, settings.length - 3)
    _, words = jax.lax.scan(step, (older, newer), keys)
    words = jnp.concatenate([older[:, None], newer[:, None], words.T], axis=1)
    return jnp.pad(_SHARED + words, ((0, 0), (1, 0)), constant_values=START)
