"""Which comparisons a sweep holds: pairs of arms on one test text, and why some cannot be made."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from quantbench.core.origin import MIXED
from quantbench.report.alike import differing, flat
from quantbench.report.arms import Arm, DrawKey
from quantbench.report.columns import DATA_FREE
from quantbench.report.comparison_columns import FULL_PRECISION, GAP, RECIPE
from quantbench.report.order import natural
from quantbench.report.scored import Scored, SweepScores
from quantbench.report.sweep_runs import SweepRun

NO_BASELINE = "no score of full precision"


@dataclass(frozen=True, eq=False)
class Draw:
    """A run of an arm, with its score on a test text."""

    key: DrawKey
    run: SweepRun
    scored: Scored


@dataclass(frozen=True, eq=False)
class Side:
    """An arm on a test text: its draws that have a score there."""

    arm: Arm
    draws: tuple[Draw, ...]


@dataclass(frozen=True, eq=False)
class Pair:
    """A comparison: candidate minus reference. hindrance: why there is none, "" if nothing stands against it."""

    kind: str
    task: str
    protocol: str
    candidate: Side
    reference: Side
    hindrance: str = ""


Columns = dict[str, dict[str, Side]]
"""Task -> protocol -> an arm's side."""


def pairs(scores: SweepScores, arms: Sequence[Arm], kinds: Sequence[str]) -> Iterator[Pair]:
    """The comparisons of these kinds (quantbench.report.comparison_columns.KINDS), in the order of the arms."""
    ordered = sorted(arms, key=_order)
    columns = [columns_of(scores, arm) for arm in ordered]
    known = list(zip(ordered, columns, strict=True))
    quantized = [one for one in known if not one[0].first.full_precision]
    if FULL_PRECISION in kinds:
        full = {(arm.first.run_id, arm.first.scale): (arm, own) for arm, own in known if arm.first.full_precision}
        for arm, own in quantized:
            reference, theirs = full.get((arm.first.baseline, arm.first.scale), (_unfinished(scores, arm), {}))
            for pair in _on_each_text(FULL_PRECISION, own, reference, theirs, missing=NO_BASELINE):
                told = scores.elsewhere(arm.first.baseline, pair.task) if pair.hindrance == NO_BASELINE else ""
                yield replace(pair, hindrance=f"{NO_BASELINE}{told}") if told else pair
    studies: dict[tuple[str, str], list[tuple[Arm, Columns]]] = {}
    for arm, own in quantized:
        studies.setdefault((arm.first.model, arm.first.scale), []).append((arm, own))
    for study in studies.values():
        if RECIPE in kinds:
            for (reference, theirs), (candidate, own) in itertools.combinations(study, 2):
                if _same_set(candidate, reference):
                    yield from _on_each_text(RECIPE, own, reference, theirs)
        if GAP in kinds:
            yield from _gaps(study)


def _unfinished(scores: SweepScores, arm: Arm) -> Arm:
    """The full-precision run of an arm where it failed, or is not known."""
    found = [run for run in scores.runs if run.full_precision and run.run_id == arm.first.baseline]
    name = found[0].quantizer if found else "full precision"
    return Arm(tuple(found) or arm.runs, name, DATA_FREE, (), arm.model_id, "")


def _order(arm: Arm) -> list[Any]:
    run = arm.first
    return [not run.full_precision, not run.data_free, *map(natural, (arm.recipe, arm.calib, run.run_id))]


def columns_of(scores: SweepScores, arm: Arm) -> Columns:
    """The texts on which an arm has scores, with the draws that have them."""
    found: dict[str, dict[str, list[Draw]]] = {}
    for key, run in zip(arm.keys, arm.runs, strict=True):
        for task, protocol in run.tasks:
            scored = scores.of(run, task, protocol)
            if scored is not None and protocol is not None:
                found.setdefault(task, {}).setdefault(protocol, []).append(Draw(key, run, scored))
    return {
        task: {protocol: Side(arm, tuple(draws)) for protocol, draws in sorted(own.items())}
        for task, own in sorted(found.items())
    }


def _same_set(one: Arm, other: Arm) -> bool:
    """Whether two recipes are compared: on the same calibration set, or one of them reads none."""
    return one.calib_id == other.calib_id or one.first.data_free or other.first.data_free


def _on_each_text(kind: str, own: Columns, reference: Arm, theirs: Columns, missing: str = "") -> Iterator[Pair]:
    """A pair for each text on which the candidate has a score.

    missing  why there is no comparison where the reference has none; "": then there is no pair
    """
    for task, sides in own.items():
        others = theirs.get(task, {})
        for protocol, side in sides.items():
            other = others.get(protocol)
            if other is not None:
                yield Pair(kind, task, protocol, side, other, hindrance(side, other))
            elif others or missing:
                told = f"scored under another protocol: {', '.join(sorted(others))}" if others else missing
                yield Pair(kind, task, protocol, side, Side(reference, ()), told)


def _gaps(study: Sequence[tuple[Arm, Columns]]) -> Iterator[Pair]:
    """Each arm on texts it is not calibrated on, against the same recipe calibrated on the text's own distribution."""
    recipes: dict[tuple[str, str], list[tuple[Arm, Columns]]] = {}
    for arm, own in study:
        if not arm.first.data_free:
            recipes.setdefault((arm.recipe, arm.model_id), []).append((arm, own))
    for several in recipes.values():
        for arm, own in several:
            for task, sides in own.items():
                if not (arm.first.in_distribution(task) is False or arm.first.relation(task) == MIXED):
                    continue
                matched = [
                    theirs.get(task, {})
                    for other, theirs in several
                    if other.first.in_distribution(task) and other.first.calib_variant == arm.first.calib_variant
                ]
                for protocol, side in sides.items():
                    for others in matched:
                        reference = others.get(protocol)
                        if reference is not None:
                            yield Pair(GAP, task, protocol, side, reference, hindrance(side, reference))


def hindrance(one: Side, other: Side) -> str:
    """Why the scores of two sides cannot be compared: another model, other items, or computed elsewhere."""
    if one.arm.model_id != other.arm.model_id:
        models = [_model(side.arm) for side in (one, other)]
        told = [f"{key}={' / '.join(str(model.get(key)) for model in models)}" for key in differing(models)]
        return f"other models: {', '.join(told)}"
    return apart([(draw.run, draw.scored) for draw in (*one.draws, *other.draws)])


def apart(scores: Sequence[tuple[SweepRun, Scored]]) -> str:
    """Why scores of one protocol cannot be compared; "" if they can."""
    if len({scored.score.clusters for _, scored in scores}) > 1:
        return "other items, or the same in other clusters"
    places = [computed_on(scored, run) for run, scored in scores]
    if keys := differing(places):
        told = [f"{key}: {', '.join(sorted({str(place.get(key)) for place in places}))}" for key in keys]
        return f"computed differently: {'; '.join(told)}"
    return ""


def computed_on(scored: Scored, run: SweepRun) -> dict[str, Any]:
    """Device, dtype and, where it is a CPU, threads: their rounding differs, and may not pass for another effect."""
    environment = scored.score.environment
    device = str(environment.get("device", "")).partition(":")[0]  # the number of a GPU is no matter, its kind is
    found = {"device": environment.get("gpu") or device or None, "dtype": model_dtype(run, scored)}
    return found if device == "cuda" else found | {"threads": environment.get("threads")}


def model_dtype(run: SweepRun, scored: Scored | None) -> str | None:
    """The dtype the model was loaded in."""
    told = None if scored is None else scored.score.environment.get("dtype")
    model = {} if run.record is None else run.record.config.get("model") or {}
    found = told or model.get("dtype")
    return None if found is None else str(found)


def _model(arm: Arm) -> dict[str, Any]:
    record = arm.first.record
    config = {} if record is None else record.config
    return flat({key: config[key] for key in ("numerics_version", "model") if key in config})
