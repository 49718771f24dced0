"""Comparisons of arms, as a frame: which there are, what each shows, and what that means beside the others.

Pairs come from quantbench.report.pairs, differences from quantbench.report.effects, words from
quantbench.report.significance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from quantbench.metrics import metrics
from quantbench.metrics.clusters import RELIABLE
from quantbench.report.arms import arms
from quantbench.report.columns import series
from quantbench.report.comparison_columns import COMPARISON_COLUMNS, KINDS, ComparisonRow
from quantbench.report.effects import Effects, effects
from quantbench.report.margins import check_margins
from quantbench.report.order import natural
from quantbench.report.pairs import Draw, Pair, pairs
from quantbench.report.scored import SweepScores
from quantbench.report.significance import significance
from quantbench.store.manifest import Manifest
from quantbench.store.store import Store

SAME_BITS = 0.01
"""Effective bits by which two recipes may differ and are called equally large."""


def comparisons(
    store: Store, manifests: Sequence[Manifest], margins: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """The comparisons of arms in sweeps, as a frame of COMPARISON_COLUMNS, sorted; empty if there are none.

    margins  metric -> what difference does not matter, in the metric's unit, of perplexities in nats: those below it
             are called equivalent. ConfigError for a metric that no score has, and for what is no margin

    Raises SchemaError for a store of another schema.
    """
    return compared([SweepScores(store, manifest) for manifest in manifests], margins)


def compared(
    sweeps: Sequence[SweepScores], margins: Mapping[str, float] | None = None, kinds: Sequence[str] = KINDS
) -> pd.DataFrame:
    """As `comparisons`, of scores that are read once for several purposes, and of some kinds."""
    ordered = sorted(sweeps, key=lambda one: natural(one.manifest.name))
    found = [Compared(sorted(pairs(scores, arms(scores.runs), kinds), key=_order)) for scores in ordered]
    check_margins(margins or {}, {name for one in found for name in one.names})
    frames = [one.frame(margins or {}) for one in found if one.names]
    if not frames:
        return pd.DataFrame({name: series(name, kind, []) for name, kind in COMPARISON_COLUMNS.items()})
    return pd.concat(frames, ignore_index=True)


class Compared:
    """Pairs of arms and their effects, and of these a row for each metric.

    owner  [rows] the pair of each row; names: its metric
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs
        self.effects = [effects(pair) for pair in pairs]
        lengths = [len(one.names) for one in self.effects]
        self.owner = np.repeat(np.arange(len(lengths)), lengths)
        self.names = [name for one in self.effects for name in one.names]

    def frame(self, margins: Mapping[str, float]) -> pd.DataFrame:
        """All rows, as a frame of COMPARISON_COLUMNS; there is at least one."""
        constant = [_constants(pair, effect) for pair, effect in zip(self.pairs, self.effects, strict=True)]
        of_pair = {
            name: series(name, kind, [row.get(name) for row in constant])
            for name, kind in COMPARISON_COLUMNS.items()
            if name in constant[0]
        }
        studies = [(row["kind"], row["model"], row["scale"]) for row in constant]
        told = significance(self.effects, [studies[index] for index in self.owner], margins)
        told["metric"] = self.names
        told["unit"] = [metrics.unit(name) for name in self.names]
        told["higher_is_better"] = [metrics.higher_is_better(name) for name in self.names]
        return pd.DataFrame(
            {
                name: of_pair[name].take(self.owner).reset_index(drop=True)
                if name in of_pair
                else series(name, kind, told[name])
                for name, kind in COMPARISON_COLUMNS.items()
            }
        )


def _order(pair: Pair) -> list[Any]:
    run = pair.candidate.arm.first
    names = [part for side in (pair.candidate, pair.reference) for part in (side.arm.recipe, side.arm.calib)]
    study = map(natural, (run.model, run.scale))
    return [*study, KINDS.index(pair.kind), *map(natural, [*names, pair.task, pair.protocol])]


def _constants(pair: Pair, effect: Effects) -> ComparisonRow:
    """What all metrics of a pair have in common."""
    run, score = pair.candidate.arm.first, pair.candidate.draws[0].scored.score
    bits, reference_bits = (_bits(draws) for draws in (effect.candidates, effect.references))
    return {
        "sweep": run.sweep,
        "model": run.model,
        "scale": run.scale,
        "kind": pair.kind,
        "task": pair.task,
        "protocol": pair.protocol,
        "distribution": run.task_origins[pair.task].name,
        "relation": run.relation(pair.task),
        "recipe": pair.candidate.arm.recipe,
        "calib": pair.candidate.arm.calib,
        "reference_recipe": pair.reference.arm.recipe,
        "reference_calib": pair.reference.arm.calib,
        "run_ids": _ids(effect.candidates),
        "reference_run_ids": _ids(effect.references),
        "bits": bits,
        "reference_bits": reference_bits,
        "same_bits": None if bits is None or reference_bits is None else abs(bits - reference_bits) <= SAME_BITS,
        "n_items": score.n_items,
        "n_clusters": score.n_clusters,
        "n_draws": len(effect.candidates),
        "n_reference_draws": len(effect.references),
        "reliable": score.n_clusters >= RELIABLE,
    }


def _ids(draws: Sequence[Draw]) -> str:
    return " ".join(draw.run.run_id or "" for draw in draws)


def _bits(draws: Sequence[Draw]) -> float | None:
    known = [bits for draw in draws if (bits := draw.run.bits) is not None]
    return fmean(known) if known else None
