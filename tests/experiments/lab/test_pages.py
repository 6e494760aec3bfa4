"""Pages show any text safely: escaped, with what cannot be seen made visible."""

import jinja2
import pytest

from experiments.lab import pages


def test_unprintable_characters_are_visible():
    shown = [pages.visible(text) for text in ("", "a\n", "\t", "\x00", "\u202e", "\ud800", "é ")]
    assert shown == ["∅", "a↵\n", "⇥\t", "\\x00", "\\u202e", "\\ud800", "é "]


def test_numbers_have_a_sign_and_three_digits():
    assert [pages.number(x) for x in (0.0, 1234.5, -0.012345)] == ["+0", "+1.23e+03", "−0.0123"]


def test_templates_escape_what_is_put_in_and_refuse_what_is_missing(tmp_path):
    (tmp_path / "page.html").write_text("{{ text|visible }} {{ share|percent }} {{ x|number }}")
    template = pages.template(tmp_path / "page.html")
    assert template.render(text="<b>\n", share=0.124, x=-2) == "&lt;b&gt;↵\n 12% −2"
    with pytest.raises(jinja2.UndefinedError):
        template.render(share=0.1, x=1)
