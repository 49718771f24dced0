from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantbench.datasets.wikitext_markup import plain_text


@pytest.mark.parametrize(
    ("markup", "prose"),
    [
        ("'''Anarchism''' is a [[political philosophy|philosophy]].", "Anarchism is a philosophy."),
        ("[[File:a.jpg|thumb|A [[caption]].]]Text[[Category:Things]]", "Text"),
        ("[[Image:a.jpg]]A [[wikt:word|word]] of [[Star Trek: Voyager]]", "A word of Star Trek: Voyager"),
        ("Last line.\n\n[[fr:Anarchisme]]\n[[zh-min-nan:X]]", "Last line."),
        ("[[:Category:Things]] exist", "Category:Things exist"),
        ("A claim.<ref name=x>{{cite web|title=Junk}}</ref> Next.<ref name=x />", "A claim. Next."),
        ('Said so."<ref>\'\'Unclosed. Verso, 2007. p. 3</ref> Yes.', 'Said so." Yes.'),
        ("Before\n{|class=x\n! head\n|-\n| cell\n|}\nafter", "Before\n\nafter"),
        ("Area <math>\\pi r^2</math>, that is it", "Area, that is it"),
        ("Anna ({{lang-grc|Ἄννα}}; {{IPA|x}}) was born", "Anna was born"),
        ("Anna ({{IPA|x}}, ''Greek'') was born", "Anna (Greek) was born"),
        ("{{convert|120|ft|m}} high, called {{lang|fr|la tour}}", "120 ft high, called la tour"),
        ("{{Infobox|a=[[b]]\n|c={{d}}}}\n<!-- note -->\nText &ndash; dash", "Text – dash"),
        ("== Life ==\nA\n== See also ==\n* [[Junk]]\n=== More ===\njunk\n== Death ==\nB", "Life\nA\nDeath\nB"),
        ("He said:<blockquote>Quoted.</blockquote>Then left.", "He said:\nQuoted.\nThen left."),
        ("* one\n* two\n# three\n:indented", "one\ntwo\nthree\nindented"),
        ("See [http://example.org the site] or http://example.org", "See the site or"),
        ("\0one\n\0\0two", "one\ntwo"),
        ("A line.\n{{Unclosed|template\nB line.", "A line.\n\nB line."),
    ],
)  # fmt: skip
def test_prose_is_kept_and_everything_else_is_not(markup: str, prose: str) -> None:
    lines = [line for line in plain_text(markup).split("\n") if line]
    assert lines == [line for line in prose.split("\n") if line]


@given(st.text(alphabet="[]{}|'=*#<>/ref:; \nabc\0\r", max_size=80))
def test_broken_markup_never_fails_and_leaves_no_blank_runs(markup: str) -> None:
    text = plain_text(markup)
    assert "\n\n\n" not in text
    assert text == text.strip()
