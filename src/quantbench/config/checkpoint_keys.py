"""Grids of checkpoints and recipes: `-m quantizer=checkpoint,rtn quantizer.path=FOLDER quantizer.weight.bits=4,3`.

A checkpoint has no key of a recipe, and a recipe none of a checkpoint: each takes its own, where a grid has both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

CHECKPOINT = "checkpoint"
"""The option of `quantizer` that reads one."""

KEYS = frozenset(f"quantizer.{key}" for key in ("path", "file", "revision", "calib"))
"""What a command line says of a checkpoint."""


def each_its_own(cells: Iterable[Sequence[str]]) -> list[list[str]]:
    """Cells without the overrides that are of the other kind; as they are if all are of one kind."""
    given = [list(cell) for cell in cells]
    kinds = [_is_checkpoint(cell) for cell in given]
    if len(set(kinds)) < 2:
        return given
    return [[o for o in cell if _fits(o, kind)] for cell, kind in zip(given, kinds, strict=True)]


def _is_checkpoint(cell: Sequence[str]) -> bool:
    chosen = [override.partition("=")[2] for override in cell if override.partition("=")[0].lstrip("+") == "quantizer"]
    return bool(chosen) and chosen[-1].strip("'\"") == CHECKPOINT


def _fits(override: str, checkpoint: bool) -> bool:
    place = override.partition("=")[0].lstrip("+~").rpartition("@")[2]
    return not place.startswith("quantizer.") or (place in KEYS) == checkpoint
