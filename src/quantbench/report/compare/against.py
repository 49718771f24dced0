"""`compare SWEEP ... --against X`: every arm of the sweeps against what X means for it, in every column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from quantbench.core.errors import StoreError
from quantbench.report.arms import Arm, arms
from quantbench.report.compare.rows import Line, lines
from quantbench.report.compare.selector import Choice, Selector, name_of, parse
from quantbench.report.comparison_columns import GAP, RECIPE
from quantbench.report.comparisons import Compared
from quantbench.report.margins import check_margins
from quantbench.report.pairs import Columns, Pair, columns_of, hindrance
from quantbench.report.scored import SweepScores
from quantbench.report.sweep_runs import SweepRun
from quantbench.store.manifest import Manifest
from quantbench.store.records import Score
from quantbench.store.store import Store


@dataclass(frozen=True)
class Against:
    """All comparisons with X, the arms in them, and why some runs have none."""

    chosen: Selector
    lines: list[Line]
    arms: list[Arm]
    scores: list[Score]
    reasons: list[str]


def compare_against(
    store: Store,
    manifests: Sequence[Manifest],
    text: str,
    metrics: Sequence[str] | None = None,
    margins: Mapping[str, float] | None = None,
) -> Against:
    """Each arm against what `text` means for it (quantbench.report.compare.selector), metric by metric.

    metrics  None: those that have a table
    margins  differences that do not matter, by metric, in the unit of its test
    Raises StoreError where nothing has run, no score has a metric, X means nothing, or nothing can be compared, and
    ConfigError for a margin that is none.
    """
    scores = [SweepScores(store, manifest) for manifest in manifests]
    runs = _runs(scores)
    known = arms(runs)
    if not known:
        raise StoreError("nothing is finished yet in " + ", ".join(manifest.name for manifest in manifests))
    chosen = parse(text, known)
    known = known if chosen.run is None else _alone(known, chosen.run)
    columns = {id(arm): columns_of(scores[0], arm) for arm in known}
    choice = Choice(known, chosen)
    reasons = dict.fromkeys(_unfinished(runs))
    pairs: list[Pair] = []
    for arm in known:
        references, why = choice.of(arm)
        reasons |= {why: None} if why else {}
        for reference in references:
            found = list(pairs_of(arm, columns[id(arm)], reference, columns[id(reference)]))
            pairs += found
            if not found:
                reasons[f"{name_of(arm)}: no difference, it has no score that {name_of(reference)} has"] = None
    if not pairs:
        told = "; ".join(reasons) or "it is all there is in these sweeps"
        raise StoreError(f"against {text!r}: nothing to compare: {told}")
    compared = Compared(pairs)
    check_margins(margins or {}, set(compared.names))
    sides = {id(arm): arm for pair in pairs for arm in (pair.candidate.arm, pair.reference.arm)}
    measured = [pair.candidate.draws[0].scored.score for pair in pairs]
    return Against(chosen, lines(compared, metrics, margins or {}), list(sides.values()), measured, list(reasons))


def pairs_of(arm: Arm, own: Columns, reference: Arm, theirs: Columns) -> Iterator[Pair]:
    """The comparisons of two arms, on each text that both are scored on under one protocol."""
    free = arm.first.data_free or reference.first.data_free
    kind = RECIPE if free or arm.calib_id == reference.calib_id else GAP  # draws of two sets are other texts
    for task, sides in own.items():
        for protocol, side in sides.items():
            other = theirs.get(task, {}).get(protocol)
            if other is not None:
                yield Pair(kind, task, protocol, side, other, hindrance(side, other))


def _runs(scores: Sequence[SweepScores]) -> list[SweepRun]:
    """The runs of all sweeps; one that is in several of them once."""
    found: dict[tuple[str | None, str], SweepRun] = {}
    for one in scores:
        for index, run in enumerate(one.runs):
            found.setdefault((run.run_id or f"{run.sweep} {index}", run.scale), run)
    return list(found.values())


def _unfinished(runs: Sequence[SweepRun]) -> Iterator[str]:
    for run in runs:
        if run.status != "done" and not run.full_precision:
            name = " ".join(part for part in (run.quantizer, run.variant, run.calib, run.calib_variant) if part)
            yield f"{name}: {run.status}, no scores to compare"


def _alone(known: Sequence[Arm], run_id: str) -> list[Arm]:
    """The arms, with one run in an arm of its own."""
    found: list[Arm] = []
    for arm in known:
        pairs = list(zip(arm.runs, arm.keys, strict=True))
        own = [pair for pair in pairs if pair[0].run_id == run_id]
        others = [pair for pair in pairs if pair[0].run_id != run_id]
        if own and others:
            found.append(_part(arm, own, f"{arm.calib} [{run_id}]"))
            found.append(_part(arm, others, arm.calib))
        else:
            found.append(arm)
    return found


def _part(arm: Arm, pairs: Sequence[tuple[SweepRun, tuple[str, int]]], calib: str) -> Arm:
    return replace(arm, runs=tuple(run for run, _ in pairs), keys=tuple(key for _, key in pairs), calib=calib)
