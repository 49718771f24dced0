"""Runs of sweeps by what they have in common: an arm is all runs that differ in the calibration draw alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantbench.core.hashing import digest
from quantbench.report.alike import Run, labels

DRAWN = ("seed", "draw", "replicate")
"""Settings of a calibration set that say which draw of it was taken."""

Draw = tuple[Any, ...]


@dataclass(frozen=True)
class Arm:
    """Runs that differ in nothing but seed, draw and replicate, under a name that no other arm has."""

    recipe: str
    calib: str
    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        """A run that speaks for all of them."""
        return self.runs[0]

    @property
    def calibrated(self) -> bool:
        """Whether it reads calibration data, so that there are draws to vary."""
        return bool(self.first.calibration)

    @property
    def bits(self) -> float | None:
        """Effective bits of a quantized weight, the mean over runs; those of its dtype for full precision."""
        known = [bits for run in self.runs if (bits := run.first["effective_bits"]) is not None]
        return sum(known) / len(known) if known else None


def arms(runs: Sequence[Run]) -> list[Arm]:
    """The arms of these runs, in the order of their first runs. A run whose identity is not known is one by itself."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_key(run), []).append(run)
    names = labels([_without_draw(own[0]) for own in groups.values()])
    return [Arm(recipe, calib, tuple(own)) for (recipe, calib), own in zip(names, groups.values(), strict=True)]


def draw_of(run: Run) -> Draw:
    """Which draw it is calibrated on; runs of two recipes with equal draws of one set read the same sequences."""
    calibration = run.calibration
    return tuple(calibration.get(key) for key in DRAWN) if calibration else ()


def text_of(run: Run) -> dict[str, Any]:
    """The settings of what it is calibrated on, whichever draw of it; {} for none."""
    return {key: value for key, value in run.calibration.items() if key not in DRAWN}


def _key(run: Run) -> str:
    if not run.identity:
        return f"run {run.id}"
    kept = {key: value for key, value in run.identity.items() if key not in ("calib", *DRAWN)}
    return digest([kept, text_of(run), run.first["scale"]])


def _without_draw(run: Run) -> Run:
    """The run as if its draw were not known: what labels are made from."""
    kept = {key: value for key, value in run.identity.items() if key not in DRAWN}
    if isinstance(calib := kept.get("calib"), Mapping):
        kept["calib"] = {key: value for key, value in calib.items() if key not in DRAWN}
    return Run(run.id, run.rows, kept)
