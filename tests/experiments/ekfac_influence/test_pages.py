"""Influence pages are one safe file that needs nothing else, and the terminal shows the same."""

import io
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from core.errors import ConfigError, DataError
from experiments.ekfac_influence.study.pages import (
    Attribution,
    Page,
    Query,
    html,
    number,
    separator,
    terminal,
    visible,
    write_page,
    write_terminal,
)

VOID = {"meta", "img", "br", "hr", "link", "input", "wbr"}
QUERY = Query(("the", "capital", "of", "A", "is", "B"), (False,) * 5 + (True,))
HOSTILE = Attribution(
    "<b>id</b>",
    ("<script>alert(1)</script>", "a&b", '"quoted"', "\x1b[31m", "[red]"),
    (0.5, -1.0, 0.01, 0.0, 0.25),
    -0.24,
    label="'><img src=x onerror=alert(2)>",
    layer_scores={"block_0 & <mlp>": 0.12, "block_1": -0.36},
)
PLAIN = Attribution("17", ("B", "is", "the", "capital"), (2.0, 0.0, 0.5, -0.5), 2.0, "fact 3")
PAGE = Page("Who knows <what>?", QUERY, (PLAIN,), (HOSTILE,), note="a decoder & a corpus")


class Outline(HTMLParser):
    """Checks nesting and keeps tags, attributes and text."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def outline(page):
    found = Outline()
    found.feed(html(page))
    found.close()
    assert not found.open
    return found


def printed(page, width=200):
    console = Console(width=width, record=True, force_terminal=True, color_system="truecolor", file=io.StringIO())
    console.print(terminal(page))
    return console.export_text(clear=False), console.export_text(styles=True)


def test_tokens_labels_and_names_are_escaped():
    found = outline(PAGE)
    assert not {"script", "img", "b onerror"} & {tag for tag, _ in found.tags}
    assert [tag for tag, _ in found.tags].count("b") == 2  # the two totals
    assert not [name for _, attrs in found.tags for name in attrs if name.startswith("on")]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html(PAGE)
    for token in (*HOSTILE.tokens[:3], HOSTILE.id, HOSTILE.label, *HOSTILE.layer_scores, PAGE.title, PAGE.note):
        assert token in found.text


def test_the_page_needs_no_other_file_and_no_script():
    found = outline(PAGE)
    assert not {"script", "link", "iframe", "object", "img"} & {tag for tag, _ in found.tags}
    assert not [value for _, attrs in found.tags for name, value in attrs.items() if name in ("src", "href")]
    assert "url(" not in html(PAGE)
    assert "@import" not in html(PAGE)


def test_the_page_suits_phones_dark_rooms_and_paper():
    for part in ('name="viewport"', "light-dark(", "@media print", 'lang="en"', "<!doctype html>"):
        assert part in html(PAGE)


def test_colour_is_the_share_of_the_strongest_token_and_its_sign():
    spans = [attrs for tag, attrs in outline(PAGE).tags if tag == "span" and "title" in attrs]
    found = [(attrs.get("class"), attrs.get("style"), attrs["title"]) for attrs in spans]
    assert found[:4] == [
        ("up", "--h: 1.000", "+2"),
        (None, None, "+0"),
        ("up", "--h: 0.250", "+0.5"),
        ("down", "--h: 0.250", "−0.5"),
    ]
    assert [kind for kind, *_ in found[4:]] == ["up", "down", None, None, "up"]


def test_measured_tokens_are_framed():
    assert re.findall(r'class="measured">([^<]*)<', html(PAGE)) == ["B"]


def test_layers_are_bars_whose_heights_are_their_shares():
    bars = [attrs for tag, attrs in outline(PAGE).tags if tag == "rect"]
    assert [(bar["class"], bar["y"], bar["height"]) for bar in bars] == [
        ("up", "13.67", "6.33"),
        ("down", "20.00", "19.00"),
    ]
    assert "<svg" not in html(Page("t", QUERY, (PLAIN,), ()))


def test_the_terminal_has_the_content_of_the_page():
    plain, styled = printed(PAGE)
    text = " ".join(outline(PAGE).text.split())
    shown = [PAGE.title, PAGE.note, "Raise the probability", "Lower the probability"]
    for s in (PLAIN, HOSTILE):
        shown += [s.id, s.label, number(s.score), number(s.strongest), *map(visible, s.tokens)]
        shown += [*s.layer_scores, *map(number, s.layer_scores.values())]
    for part in (*QUERY.tokens, *shown):
        assert part in plain
        assert part in text
    assert "\x1b[31m" not in styled
    assert "\x1b[30;48;2;97;168;207m" in styled  # the strongest token, black on a tint of blue


def test_a_page_may_have_one_sign_only():
    found = outline(Page("t", QUERY, (PLAIN,), ()))
    assert "Raise" in found.text
    assert "Lower the" not in found.text


def test_tokens_that_bring_their_spaces_are_set_closely():
    assert separator(["The", " cat"]) == ""
    assert separator(["the", "cat"]) == " "
    page = Page("t", QUERY, (Attribution("1", ("The", " cat", "\n"), (1.0, 0.5, 0.0), 1.0),), ())
    assert "The cat↵" in outline(page).text
    assert "The cat↵" in printed(page)[0]


def test_scores_of_zero_have_no_colour():
    page = Page("t", QUERY, (Attribution("1", ("a", "b"), (0.0, 0.0), 0.0, layer_scores={"x": 0.0}),), ())
    assert "--h:" not in html(page)
    assert "+0" in printed(page)[0]


@settings(max_examples=40, deadline=None)
@given(tokens=st.lists(st.text(max_size=8), min_size=1, max_size=6), label=st.text(max_size=12))
def test_any_text_gives_a_well_formed_page_with_that_text(tokens, label):
    scores = [(-1) ** i / (i + 1) for i in range(len(tokens))]
    page = Page(label, QUERY, (Attribution(label, tokens, scores, 1.0, label, {label: 1.0}),), ())
    found = outline(page)
    assert separator(tokens).join(map(visible, tokens)) in found.text
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in outline(_with_letters(page)).tags]
    html(page).encode()
    printed(page)


def _with_letters(page):
    (shown,) = page.positive
    letters = Attribution("x", ["x"] * len(shown.tokens), shown.token_scores, 1.0, "x" * bool(shown.label), {"x": 1.0})
    return Page("x", QUERY, (letters,), ())


def test_the_file_is_written_whole_and_folders_are_made(tmp_path):
    path = write_page(PAGE, tmp_path / "new" / "page.html")
    assert path.read_text(encoding="utf-8") == html(PAGE)
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]


def test_the_terminal_page_is_kept_in_colour(tmp_path):
    text = write_terminal(PAGE, tmp_path / "page.ansi").read_text(encoding="utf-8")
    assert "\x1b[" in text
    assert "fact 3" in text
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in text.splitlines()) <= 100


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write .*page\.html: .*; name another place"):
        write_page(PAGE, tmp_path / "file" / "page.html")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Page("t", QUERY, (), ()), "no training sequences to show"),
        (lambda: Query((), ()), "the query has no tokens"),
        (lambda: Query(("a",), ()), "the query has 1 tokens but 0 flags"),
        (lambda: Attribution("7", (), (), 1.0), "training sequence 7 has no tokens"),
        (lambda: Attribution("7", ("a",), (1.0, 2.0), 1.0), "training sequence 7 has 1 tokens but 2 token scores"),
        (lambda: Attribution("7", ("a",), (float("nan"),), 1.0), "training sequence 7 has scores that are not finite"),
    ],
)
def test_empty_and_inconsistent_pages_are_refused(make, message):
    with pytest.raises(DataError, match=message):
        make()
