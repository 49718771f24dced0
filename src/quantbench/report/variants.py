"""What tells the cells of a sweep apart: overrides that differ, and files of the user's."""

from __future__ import annotations

from collections.abc import Sequence

from quantbench.core.paths import short_names
from quantbench.store.manifest import CellEntry

OWN_COLUMNS = {"seed", "replicate", "calib.seed", "calib.draw", "quantizer.calib"}
"""Overrides that have a column of their own."""

SIZES = ("calib.n", "calib.length")
"""Overrides of what a scale says of the calibration set."""

WITH = " with "
"""Between a scale and what of it is otherwise."""

FILE_KEY = "calib.path"
"""The override that says which file of the user's is calibrated on: where it differs, it names the calibration set."""

CHECKPOINT_KEY = "quantizer.path"
"""The override that says which checkpoint is read: a variant is called by as much of it as tells checkpoints apart."""


class Variants:
    """Names for the cells of one sweep."""

    def __init__(self, cells: Sequence[CellEntry]) -> None:
        every = [_overrides(cell) for cell in cells]
        keys = {key for overrides in every for key in overrides}
        varying = {key for key in keys if len({overrides.get(key) for overrides in every}) > 1}
        self._calibs = _calib_names(cells, FILE_KEY in varying)
        self._varying = varying - {FILE_KEY}
        self._everywhere = keys - varying
        given = {own[CHECKPOINT_KEY].strip("'\"") for own in every if CHECKPOINT_KEY in own}
        self._checkpoints = short_names(sorted(given))

    def calib(self, cell: CellEntry) -> str:
        """The cell's calibration set: its distribution, or the name of the user's file where files differ."""
        return self._calibs[cell.key]

    def scale(self, cell: CellEntry) -> str:
        """The cell's scale, and what of it all cells have otherwise: "quick with scale.windows=4"."""
        changed = [
            f"{key}={value}"
            for key, value in sorted(_overrides(cell).items())
            if key in self._everywhere and (key.startswith("scale.") or key in SIZES)
        ]
        return WITH.join([cell.choice("scale"), *([", ".join(changed)] if changed else [])])

    def of_calib(self, cell: CellEntry) -> str:
        """The overrides under calib. that differ between the cells."""
        return self._named(cell, "calib.", within=True)

    def of_recipe(self, cell: CellEntry) -> str:
        """All others that differ; those of the quantizer without their prefix."""
        return self._named(cell, "quantizer.", within=False)

    def _named(self, cell: CellEntry, prefix: str, *, within: bool) -> str:
        named = {key: value for key, value in sorted(_overrides(cell).items()) if key in self._varying}
        if CHECKPOINT_KEY in named:
            named[CHECKPOINT_KEY] = self._checkpoints[named[CHECKPOINT_KEY].strip("'\"")]
        kept = {key: value for key, value in named.items() if key.startswith("calib.") == within}
        return ", ".join(f"{key.removeprefix(prefix)}={value}" for key, value in kept.items())


def _overrides(cell: CellEntry) -> dict[str, str]:
    pairs = (override.lstrip("+~").partition("=") for override in cell.overrides)
    return {
        key: value
        for key, _, value in pairs
        if key not in OWN_COLUMNS and key not in cell.choices and not key.startswith("hydra.")
    }


def _calib_names(cells: Sequence[CellEntry], by_file: bool) -> dict[str, str]:
    """What each cell's calibration set is called, by the cell's key: its distribution, or the name of the user's file.

    The option, too, where one distribution is chosen by several; a mixture, which has several distributions, is called
    as its option.
    """
    files = {cell.key: _overrides(cell)[FILE_KEY].strip("'\"") for cell in cells if FILE_KEY in _overrides(cell)}
    short = short_names(files.values())
    several = len({cell.choice("calib") for cell in cells}) > 1
    options: dict[str, set[str]] = {}
    for cell in cells:
        options.setdefault(_distribution(cell), set()).add(cell.choice("calib"))
    names = {}
    for cell in cells:
        option, name = cell.choice("calib"), _distribution(cell)
        if by_file and cell.key in files:
            names[cell.key] = " ".join([*([option] if several else []), short[files[cell.key]]])
        else:
            names[cell.key] = name if len(options[name]) == 1 else f"{name} ({option})"
    return names


def _distribution(cell: CellEntry) -> str:
    return cell.calib_origins[0].name if len(cell.calib_origins) == 1 else cell.choice("calib")
