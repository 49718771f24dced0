"""From the store to what a report is made of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from quantbench.metrics.draws import crossed_error
from quantbench.report.arms import Arm, arms
from quantbench.report.collate import collated
from quantbench.report.comparisons import compared
from quantbench.report.costs import costs
from quantbench.report.layers import layers
from quantbench.report.matched import matched_is_best, sentence
from quantbench.report.modelled.columns import Modelled, with_modelled
from quantbench.report.page.content import Content
from quantbench.report.page.facts import facts
from quantbench.report.page.figure import rows_of
from quantbench.report.page.runs import run_entries
from quantbench.report.page.values import MeanKey
from quantbench.report.scored import SweepScores
from quantbench.report.sentences import summary
from quantbench.report.shown import default_metrics
from quantbench.report.variance import variance


def gathered(
    sweeps: Sequence[SweepScores], margins: Mapping[str, float] | None = None, modelled: Modelled | None = None
) -> Content:
    """All that a report on sweeps shows, of their scores, which are read once for several purposes.

    margins   as for `quantbench.report.comparisons.comparisons`
    modelled  time and memory on a machine, too: columns of the results, and figures
    """
    results = collated(sweeps)
    if modelled is not None:
        results = with_modelled(results, modelled.rows([run for scores in sweeps for run in scores.runs]))
    return content_of(sweeps, results, compared(sweeps, margins), variance(sweeps))


def content_of(
    sweeps: Sequence[SweepScores], results: pd.DataFrame, comparisons: pd.DataFrame, variances: pd.DataFrame
) -> Content:
    """As `gathered`, of frames that are made already."""
    store, manifests = sweeps[0].store, [scores.manifest for scores in sweeps]
    groups = [(scores, arm) for scores in sweeps for arm in arms(scores.runs)]
    names = {run.run_id: (arm.recipe, arm.calib) for _, arm in groups for run in arm.runs}
    results = _named(results, names)
    shown = {*default_metrics(results), "flips_wrong", "flips_right"}
    return Content(
        sweeps=[manifest.name for manifest in manifests],
        results=results,
        comparisons=comparisons,
        layers=layers(store, manifests),
        costs=costs(store, manifests),
        sentences=[*summary(comparisons), *_matched(comparisons)],
        runs=run_entries(store, manifests),
        means={key: mean for scores, arm in groups for key, mean in _means(scores, arm, shown)},
        facts=facts(results),
        variances=variances,
    )


def _matched(comparisons: pd.DataFrame) -> list[str]:
    """How often a text's own calibration set is best, of the metrics that have figures, beside what chance gives."""
    counted = matched_is_best(comparisons)
    return [sentence(row) for row in rows_of(counted[counted["metric"].isin(default_metrics(comparisons))])]


def _named(results: pd.DataFrame, names: Mapping[str | None, tuple[str, str]]) -> pd.DataFrame:
    """With the columns `recipe` and `calibration`: as comparisons call them, where a run is in any."""
    recipes, calibrations = [], []
    columns = ["run_id", "quantizer", "variant", "calib", "calib_variant", "full_precision"]
    rows: list[tuple[Any, ...]] = list(results[columns].astype(object).itertuples(index=False, name=None))
    for run_id, quantizer, variant, calib, calib_variant, full_precision in rows:
        own = [" ".join(part for part in pair if part) for pair in ((quantizer, variant), (calib, calib_variant))]
        recipe, calibration = names.get(run_id, (own[0], own[1]))
        recipes.append("full precision" if full_precision else recipe)
        calibrations.append(calibration)
    return results.assign(recipe=recipes, calibration=calibrations)


def _means(scores: SweepScores, arm: Arm, metrics: set[str]) -> Iterator[tuple[MeanKey, tuple[float, float, float]]]:
    """The mean over the draws of an arm on each test, with its 95 % interval over draws and clusters of items.

    Perplexities are averaged on their logarithm, as they are compared. There is no interval where draws are not scored
    on the same items, or a metric has no influences.
    """
    for task, protocol in arm.first.tasks:
        found = [(run.run_id or "", scores.of(run, task, protocol)) for run in arm.runs]
        known = [(run_id, one) for run_id, one in found if one is not None]
        if len(known) < 2 or protocol is None:
            continue
        runs = frozenset(run_id for run_id, _ in known)
        same_items = len({one.score.clusters for _, one in known}) == 1
        for metric in sorted(metrics.intersection(*(one.totals for _, one in known))):
            totals = [one.totals[metric] for _, one in known]
            y = np.stack([one.pseudo_values() for one in totals]) if same_items else np.zeros((len(totals), 0))
            mean = math.fsum(one.scale_value for one in totals) / len(totals)
            low = high = math.nan
            if y.shape[1] > 1 and np.isfinite(y).all():
                low, high = crossed_error(y).interval(mean)
            if totals[0].log_scale:
                mean, low, high = math.exp(mean), math.exp(low), math.exp(high)
            yield (runs, task, protocol, metric), (mean, low, high)
