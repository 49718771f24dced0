"""Runs by their resolved settings: what sets two of them apart, and which of them are fair to compare.

Names of sweeps, options and overrides do not enter: two sweeps may call different recipes alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantbench.report.columns import ResultRow

DRAW = ("calib", "seed", "replicate")
"""Keys of a run's identity that say what it is calibrated on."""


@dataclass(frozen=True)
class Run:
    """One run: its rows in the tidy frame, one per task, protocol and metric; its identity, {} where it has no record.

    Keys of `recipe` and `calibration` are dotted: weight.bits, sampler.kind.
    """

    id: str
    rows: list[ResultRow]
    identity: Mapping[str, Any]

    @property
    def first(self) -> ResultRow:
        """What all rows say of the run."""
        return self.rows[0]

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe's resolved settings."""
        return flat(self.identity.get("quantizer", {}))

    @property
    def calibration(self) -> dict[str, Any]:
        """The calibration set's resolved settings, seed and replicate among them; {} for a recipe that reads none."""
        inside = self.identity.get("calib") or {}
        outside = {key: self.identity[key] for key in DRAW[1:] if key in self.identity}
        return {**outside, **flat(inside)} if inside else {}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted keys."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def differing(several: Iterable[Mapping[str, Any]]) -> list[str]:
    """The keys whose values are not the same in all of them, those that some lack included."""
    known = list(several)
    keys = dict.fromkeys(key for one in known for key in one)
    return [
        key for key in keys if any((key in one, one.get(key)) != (key in known[0], known[0].get(key)) for one in known)
    ]


def labels(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Names of each run's recipe and calibration set; no two runs have the same pair.

    A name that stands for different settings is followed by those that differ, and by the run's id if no setting can
    tell.
    """
    several_models = len({run.first["model"] for run in runs}) > 1
    recipes = [
        " ".join(
            p for p in (run.first["model"] if several_models else "", run.first["quantizer"], run.first["variant"]) if p
        )
        for run in runs
    ]
    recipes = told_apart(recipes, recipes, [run.recipe for run in runs])
    calibs = [" ".join(p for p in (run.first["calib"], run.first["calib_variant"]) if p) for run in runs]
    calibs = told_apart(calibs, list(zip(recipes, calibs, strict=True)), [run.calibration for run in runs])
    pairs = list(zip(recipes, calibs, strict=True))
    return [
        (recipe, calib if pairs.count((recipe, calib)) == 1 else f"{calib} [{run.id}]")
        for run, (recipe, calib) in zip(runs, pairs, strict=True)
    ]


def told_apart(names: Sequence[str], groups: Sequence[object], settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names, within each group followed by the settings that differ; hashes of source files are left out."""
    apart = {group: differing(s for g, s in zip(groups, settings, strict=True) if g == group and s) for group in groups}
    found = []
    for name, group, own in zip(names, groups, settings, strict=True):
        told = {
            key.removesuffix("._target_"): str(own[key]).rpartition(".")[2] if key.endswith("_target_") else own[key]
            for key in apart[group]
            if key in own and not key.endswith("_source_")
        }
        words = [f"{key}={value}" for key, value in told.items() if f"{key}={value}" not in name]
        found.append(" ".join([name, *words]))
    return found
