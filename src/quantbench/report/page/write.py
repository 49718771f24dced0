"""The report of sweeps as a file, and its figures as files."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from quantbench.core import files
from quantbench.core.hashing import code_sha256
from quantbench.report.decide import Wish
from quantbench.report.modelled.columns import Modelled
from quantbench.report.page.content import Content
from quantbench.report.page.drawing import write_figures
from quantbench.report.page.figures import sections
from quantbench.report.page.gather import content_of, gathered
from quantbench.report.page.page import html
from quantbench.report.scored import SweepScores
from quantbench.store.manifest import Manifest
from quantbench.store.store import Store

log = logging.getLogger("quantbench")

NAME = "report.html"


def write_report(
    store: Store,
    manifests: Sequence[Manifest],
    margins: Mapping[str, float],
    path: Path | None = None,
    modelled: Modelled | None = None,
    wish: Wish | None = None,
) -> tuple[Path, Content]:
    """Write the page on the sweeps; returns where, and what it is made of.

    path      None: report.html in the folder of the sweep, or reports/A+B.html beside sweeps/ for several
    modelled  what the runs would cost on a machine: figures of it, too
    wish      the recipe that is asked for: the first finding says which it is

    Raises ConfigError for a margin that is none and a wish that cannot be answered, SchemaError for a store of another
    schema.
    """
    sweeps = [SweepScores(store, manifest) for manifest in manifests]
    content = gathered(sweeps, margins, modelled)
    if wish is not None:
        content = replace(content, sentences=[*wish.sentences(sweeps, content), *content.sentences])
    chosen = default_path(store, [manifest.name for manifest in manifests]) if path is None else path
    files.make_folder(chosen.parent)
    _write(chosen, content)
    return chosen, content


def default_path(store: Store, names: Sequence[str]) -> Path:
    """Where the report on sweeps of these names lies unless another place is given."""
    return store.sweep_dir(names[0]) / NAME if len(names) == 1 else store.root / "reports" / f"{'+'.join(names)}.html"


def try_report(
    scores: SweepScores, results: pd.DataFrame, comparisons: pd.DataFrame, variances: pd.DataFrame
) -> Path | None:
    """The page at the end of a sweep; where it lies. What goes wrong with it is logged: the results are there.

    A page that was made of the same, by the same code, stays: drawing it takes a second.
    """
    path = default_path(scores.store, [scores.manifest.name])
    try:
        content = content_of([scores], results, comparisons, variances)
        if not _ends_with(path, _mark(content).encode()):
            _write(path, content)
    except Exception:
        log.warning("no %s was made; `quantbench report %s` tries it again", path, scores.manifest.name, exc_info=True)
        return None
    return path


def _write(path: Path, content: Content) -> None:
    files.write_text(path, html(content, sections(content)) + _mark(content))


def _mark(content: Content) -> str:
    """What a page ends with: which content it was made of, and which code made it."""
    libraries = [version(name) for name in ("altair", "vl-convert-python", "jinja2", "pandas")]
    made_of = hashlib.sha256(f"{code_sha256(Path(__file__).parents[2])} {libraries}".encode())
    for part in fields(content):
        value = getattr(content, part.name)
        made_of.update((value.to_csv() if isinstance(value, pd.DataFrame) else repr(value)).encode())
    return f"\n<!-- made of {made_of.hexdigest()} -->\n"


def _ends_with(path: Path, end: bytes) -> bool:
    """Whether there is a file that ends so."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - len(end)))
            return file.read() == end
    except FileNotFoundError:
        return False


def write_all_figures(content: Content, folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Every figure of the page as files, for a paper; returns them."""
    return write_figures(folder, [figure for section in sections(content) for figure in section.figures], suffixes)
