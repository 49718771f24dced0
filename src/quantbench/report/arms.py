"""Arms: the runs that differ only in what is drawn at random, and are compared as one.

An arm is a model, a recipe with its settings, a calibration set and a scale; its draws are runs with other calibration
sequences, seeds or replicates. Names of sweeps and options tell arms apart as much as resolved settings do, so that two
recipes under one name stay apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantbench.core.hashing import digest
from quantbench.report.alike import flat, told_apart
from quantbench.report.sweep_runs import SweepRun

DRAWN = {"seed", "draw", "replicate", "rotation_seed"}
"""Settings whose values are drawn: of calibration sequences, of random bases, of learned roundings."""

_SEED = re.compile(r"(^|, )[\w.]*(?<![\w])(?:seed|rotation_seed)=[^,]*")

DrawKey = tuple[str, int]
"""What was calibrated on, as a digest of its draw, seed and replicate; which of several runs that read the same."""


@dataclass(frozen=True, eq=False)
class Arm:
    """Runs that differ only in draws, in their order.

    recipe       name of the recipe: option and variant, and settings where these do not tell it from another
    calib        name of the calibration set, likewise
    keys         of each run what it has in common with one of another arm
    model_id     digest of the model's settings and of the numerics; calib_id: of the calibration set's
    """

    runs: tuple[SweepRun, ...]
    recipe: str
    calib: str
    keys: tuple[DrawKey, ...]
    model_id: str
    calib_id: str

    @property
    def first(self) -> SweepRun:
        """For what all runs have in common."""
        return self.runs[0]

    @property
    def fixed(self) -> bool:
        """Whether nothing in it is drawn: one run that reads no calibration data."""
        return self.first.data_free and len(self.runs) == 1


def arms(runs: Sequence[SweepRun]) -> list[Arm]:
    """The arms of a sweep, in the order of their first runs; runs that are not finished are left out."""
    groups: dict[tuple[object, ...], dict[str, SweepRun]] = {}
    for run in runs:
        if run.status == "done" and run.run_id is not None:
            groups.setdefault(_arm_key(run), {}).setdefault(run.run_id, run)
    ordered = [sorted(group.values(), key=_draw_order) for group in groups.values()]
    firsts = [group[0] for group in ordered]
    studies = [(run.model, run.scale) for run in firsts]
    recipes = [" ".join(part for part in (run.quantizer, without_seeds(run.variant)) if part) for run in firsts]
    recipes = told_apart(recipes, list(zip(studies, recipes, strict=True)), [_recipe(run) for run in firsts])
    calibs = [" ".join(part for part in (run.calib, run.calib_variant) if part) for run in firsts]
    calibs = told_apart(calibs, list(zip(studies, recipes, calibs, strict=True)), [_calibration(run) for run in firsts])
    return [
        Arm(
            runs=tuple(group),
            recipe=recipe,
            calib=calib,
            keys=_keys(group),
            model_id=digest([_config(group[0]).get(key) for key in ("numerics_version", "model")]),
            calib_id=digest([group[0].calib, group[0].calib_variant, _calibration(group[0])]),
        )
        for group, recipe, calib in zip(ordered, recipes, calibs, strict=True)
    ]


def undrawn(settings: Any) -> Any:
    """Settings without what is drawn, at every depth."""
    if isinstance(settings, Mapping):
        return {key: undrawn(value) for key, value in settings.items() if key not in DRAWN}
    return [undrawn(value) for value in settings] if isinstance(settings, list) else settings


def without_seeds(variant: str) -> str:
    """A variant's text without the overrides of seeds: "weight.bits=3, rounding.seed=1" is "weight.bits=3"."""
    return _SEED.sub("", variant).removeprefix(", ")


def _arm_key(run: SweepRun) -> tuple[object, ...]:
    names = (run.model, run.scale, run.quantizer, without_seeds(run.variant), run.calib, run.calib_variant)
    return (*names, run.full_precision, run.data_free, digest(undrawn(_config(run))))


def _draw_order(run: SweepRun) -> tuple[list[int], str]:
    return [run.identity(name) or 0 for name in ("draw", "seed", "replicate")], run.run_id or ""


def _keys(runs: Sequence[SweepRun]) -> tuple[DrawKey, ...]:
    """Several runs of an arm that read the same, as other seeds of a recipe do, are numbered."""
    read = [digest([run.identity(name) for name in ("draw", "seed", "replicate")] + [_seeds(run)]) for run in runs]
    return tuple((own, read[:index].count(own)) for index, own in enumerate(read))


def _seeds(run: SweepRun) -> list[Any]:
    """Seeds of the calibration set beside that of the record."""
    calib = _config(run).get("calib")
    return sorted((key, value) for key, value in flat(calib or {}).items() if key.rpartition(".")[2] in DRAWN)


def _recipe(run: SweepRun) -> dict[str, Any]:
    return flat(undrawn(_config(run).get("quantizer") or {}))


def _calibration(run: SweepRun) -> dict[str, Any]:
    return flat(undrawn(_config(run).get("calib") or {}))


def _config(run: SweepRun) -> Mapping[str, Any]:
    return {} if run.record is None else run.record.config
