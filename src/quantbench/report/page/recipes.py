"""Runs by recipe: what a recipe's settings are is said once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quantbench.report.page.content import RunEntry


@dataclass(frozen=True)
class Recipe:
    """Runs of one recipe."""

    name: str
    settings: str
    runs: list[RunEntry]


def grouped(runs: Iterable[RunEntry]) -> list[Recipe]:
    """The runs by recipe and settings, in the order in which the recipes are met."""
    found: dict[tuple[str, str], list[RunEntry]] = {}
    for run in runs:
        found.setdefault((run.recipe, run.settings), []).append(run)
    return [Recipe(name, settings, own) for (name, settings), own in found.items()]
