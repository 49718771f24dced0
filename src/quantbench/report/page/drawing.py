"""Specifications as SVG, PNG and PDF, and the JavaScript that draws them on a page: vl-convert, without a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantbench.core import files
from quantbench.core.cache import cache_dir, only_one
from quantbench.core.errors import ConfigError
from quantbench.core.lazy import lazy_module
from quantbench.report.page.figure import Figure, Spec

if TYPE_CHECKING:
    import vl_convert
else:
    vl_convert = lazy_module("vl_convert")

_ID = re.compile(r"\b(gradient_|clip)\d+\b")

PNG_SCALE = 3
"""Pixels for each of the specification's: about 290 a printed inch."""

WRITERS: dict[str, Callable[[Spec], bytes]] = {
    "svg": lambda spec: svg(spec).encode(),
    "png": lambda spec: bytes(vl_convert.vegalite_to_png(spec | {"background": "white"}, scale=PNG_SCALE)),
    "pdf": lambda spec: bytes(vl_convert.vegalite_to_pdf(spec)),
}
"""File formats of figures, by suffix."""


def svg(spec: Spec) -> str:
    """The chart as SVG. `currentColor` is left in it: black, unless the page says otherwise.

    Its ids, which are numbered through all drawings of a process, begin anew: equal charts are equal files.
    """
    drawn: str = vl_convert.vegalite_to_svg(spec)
    numbers: dict[str, int] = {}
    return _ID.sub(lambda found: f"{found[1]}{numbers.setdefault(found[0], len(numbers))}", drawn)


def formats(text: str) -> list[str]:
    """The suffixes in "svg,png". Raises ConfigError for one that there is not."""
    chosen = [one.strip() for one in text.split(",") if one.strip()]
    unknown = [one for one in chosen if one not in WRITERS]
    if unknown or not chosen:
        raise ConfigError(f"--format {text}: must be some of {','.join(WRITERS)}, separated by commas")
    return list(dict.fromkeys(chosen))


def write_figures(folder: Path, figures: Sequence[Figure], suffixes: Sequence[str]) -> list[Path]:
    """Write each figure in each format: <slug>.<suffix>, and its data as <slug>.csv. Returns the files."""
    files.make_folder(folder)
    written = []
    for figure in figures:
        for suffix in suffixes:
            path = folder / f"{figure.slug}.{suffix}"
            with files.replacing(path) as temporary:
                temporary.write_bytes(WRITERS[suffix](figure.spec))
            written.append(path)
        path = folder / f"{figure.slug}.csv"
        files.write_text(path, figure.data.to_csv(index=False, lineterminator="\n"))
        written.append(path)
    return written


def javascript() -> str:
    """`vegaEmbed`, with Vega and Vega-Lite, as one script of about 0.9 MB: made once for each version, and cached."""
    path = cache_dir() / "javascript" / f"vega-{version('vl-convert-python')}.js"
    with only_one(path):
        if not path.exists():
            files.write_text(path, vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    return files.read_text(path, f"Delete {path}: it is made again")


def script_json(value: Any) -> str:
    """JSON that may stand inside a <script>: nothing in it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
