"""Plain text from wiki markup: the prose of an article, without tables, formulas, footnotes and page furniture.

The markup is parsed by mwparserfromhell, then rendered node by node. Its own `strip_code()` keeps captions, category
names and the insides of references in the text; here a node is either prose or it is left out whole.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, Heading, HTMLEntity, Node, Tag, Template, Text, Wikilink
from mwparserfromhell.wikicode import Wikicode

DROPPED_TAGS = frozenset(
    {"gallery", "graph", "hiero", "imagemap", "math", "pre", "ref", "references", "score", "source"}
    | {"syntaxhighlight", "table", "timeline"}
)
BLOCK_TAGS = frozenset({"blockquote", "br", "center", "div", "poem"})
DROPPED_NAMESPACES = frozenset({"category", "file", "image", "media", "special", "talk", "template"})
# Sections that list titles instead of saying something; everything below such a heading goes with it.
DROPPED_SECTIONS = frozenset(
    {"bibliography", "citations", "external links", "filmography", "footnotes", "further reading", "gallery"}
    | {"notes", "notes and references", "primary sources", "references", "see also", "sources", "works cited"}
)
# Templates that stand inside a sentence, and which of their arguments is the text a reader sees.
INLINE_TEMPLATES = {"lang": 2, "transl": 2, "nowrap": 1, "nihongo": 1, "quote": 1, "bquote": 1, "small": 1}

_HEADING = "\0"  # marks a rendered heading, followed by its level
_LANGUAGE = re.compile(r"[a-z]{1,12}(-[a-z]+)*")
_LOST_TAG = re.compile(r"<ref\b[^>]*>.*?(</ref>|$)|</?(blockquote|br|center|div|poem|ref|small|span|su[bp])\b[^>]*>")
_LOST_MARKUP = re.compile(r"\{\||\|\}|\{\{|\}\}|\[\[|\]\]|\|\||^[|!]")
# What dropped nodes leave behind, closed in this order.
_GAPS = (
    (re.compile(r"\s*\([\s,;:.–—]*\)|\s*\[[\s,;:]*\]"), ""),
    (re.compile(r"\(\s*[,;:]\s*"), "("),
    (re.compile(r",(\s*,)+"), ","),
    (re.compile(r"[ \t]+([,.;:)])"), r"\1"),
    (re.compile(r"[ \t\u00a0]+"), " "),
)


def plain_text(markup: str) -> str:
    """The prose of one article: headings and paragraphs, one a line, with blank lines where the markup had them."""
    rendered = _render(mwparserfromhell.parse(markup.replace(_HEADING, "")))
    lines = (_tidy(line) for line in _without_dropped_sections(rendered.splitlines()))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line for line in lines if line is not None)).strip()


def _without_dropped_sections(lines: Iterable[str]) -> Iterator[str]:
    """The lines outside of DROPPED_SECTIONS, headings without their mark.

    A section ends at the next heading of its own level or above.
    """
    dropped_level = 0
    for line in lines:
        if not line.startswith(_HEADING):
            if not dropped_level:
                yield line
            continue
        level, title = int(line[1]), line[2:].strip()
        if not dropped_level or level <= dropped_level:
            dropped_level = level if title.lower() in DROPPED_SECTIONS else 0
        if not dropped_level:
            yield title


def _render(code: Wikicode | None) -> str:
    return "" if code is None else "".join(_render_node(node) for node in code.nodes)


def _render_node(node: Node) -> str:
    """The text a reader sees of one node; empty for everything that is not prose (comments, arguments, ...)."""
    if isinstance(node, Text):
        return str(node.value)
    if isinstance(node, HTMLEntity):
        return str(node.normalize())
    if isinstance(node, Wikilink):
        return _render_link(node)
    if isinstance(node, ExternalLink):
        return _render(node.title)
    if isinstance(node, Heading):
        return f"\n{_HEADING}{node.level}{_render(node.title).strip()}\n"
    if isinstance(node, Template):
        return _render_template(node)
    if isinstance(node, Tag):
        name = str(node.tag).strip().lower()
        border = "\n" if name in BLOCK_TAGS else ""
        return "" if name in DROPPED_TAGS else f"{border}{_render(node.contents)}{border}"
    return ""


def _render_link(node: Wikilink) -> str:
    title = str(node.title).strip()
    namespace, colon, _ = title.partition(":")
    if colon and namespace.strip().lower() in DROPPED_NAMESPACES:
        return ""
    if node.text is not None:
        return _render(node.text)
    if colon and _LANGUAGE.fullmatch(namespace):  # [[fr:Anarchisme]]: the same page in another wiki
        return ""
    return title.removeprefix(":")


def _render_template(node: Template) -> str:
    name = str(node.name).strip().lower()
    if name in {"convert", "cvt"} and node.has(1) and node.has(2):
        return f"{str(node.get(1).value).strip()} {str(node.get(2).value).strip()}"
    position = INLINE_TEMPLATES.get(name)
    return _render(node.get(position).value) if position and node.has(position) else ""


def _tidy(line: str) -> str | None:
    """One line of prose with the gaps of dropped nodes closed; None for a line of markup that was never closed."""
    line = _LOST_TAG.sub("", line)
    if _LOST_MARKUP.search(line):
        return None
    line = html.unescape(line.replace("''", ""))
    for gap, filler in _GAPS:
        line = gap.sub(filler, line)
    return line.lstrip(" *#:;,").rstrip()
