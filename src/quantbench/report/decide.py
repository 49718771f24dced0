"""Cost against loss on the tests that a user names: tables, figures, and a sentence that names a recipe or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from quantbench.core.build import unknown_choice
from quantbench.core.errors import ConfigError, StoreError
from quantbench.metrics import metrics
from quantbench.report.axes import Axis
from quantbench.report.cheapest import Bound, cheapest
from quantbench.report.draw_means import draw_means, totals_of
from quantbench.report.evidence import Evidence
from quantbench.report.measured import with_measured
from quantbench.report.page.bits import cost_chart_of
from quantbench.report.page.content import Content
from quantbench.report.page.figure import Figure, slug
from quantbench.report.page.figures import shown_metrics
from quantbench.report.page.losses import task_names
from quantbench.report.page.values import arm_values
from quantbench.report.pareto import pareto_tables
from quantbench.report.scored import SweepScores
from quantbench.report.table import Table


@dataclass(frozen=True)
class Wish:
    """The cheapest recipe, by an axis, whose metric is below (or `above`) a bound on tests; see `decided`."""

    axis: Axis
    bound: float
    metric: str | None = None
    on: Sequence[str] = ()
    above: bool = False

    def sentences(self, sweeps: Sequence[SweepScores], content: Content) -> list[str]:
        """That recipe, or that there is none, of each model and scale."""
        found = decided(sweeps, content, self.axis, self.metric, self.on, self.bound, above=self.above)
        return [*found.sentences, *found.notes]


@dataclass(frozen=True, eq=False)
class Decision:
    """Tables and figures, one a model and scale; sentences, one each where a bound is given.

    notes  how the cost was measured, where it was
    """

    tables: list[Table]
    figures: list[Figure]
    sentences: list[str]
    notes: list[str]

    def figures_named(self, stem: str) -> list[Figure]:
        """The figures under the name of a file: itself where there is one, else followed by model and scale."""
        if len(self.figures) == 1:
            return [replace(self.figures[0], slug=stem)]
        return [replace(figure, slug=f"{stem}-{figure.slug}") for figure in self.figures]


def decided(
    sweeps: Sequence[SweepScores],
    content: Content,
    axis: Axis,
    metric: str | None = None,
    on: Sequence[str] = (),
    bound: float | None = None,
    *,
    above: bool = False,
) -> Decision:
    """Cost against loss.

    content what `gathered` makes of the sweeps
    metric  None: kl, or else the first that has figures
    on      tests by task or distribution; none: all
    bound   that the metric must be below, or `above`, on all of them; None: no recipe is chosen

    Raises ConfigError for a metric or test that is not there, and for a bound on the wrong side; StoreError where
    nothing is scored, or nothing measured of an axis that is.
    """
    results = content.results
    if not results["value"].notna().any():
        raise StoreError("pareto: nothing is scored yet in " + ", ".join(content.sweeps))
    chosen = _metric(results, metric)
    limit = None if bound is None else _bound(chosen, bound, above=above)
    results, notes = _on(results[results["metric"] == chosen], on), []
    if axis.measured is not None:
        results, note = with_measured(results, content.costs, axis)
        notes.append(note)
    means = {
        key: mean
        for one in sweeps
        for key, mean in draw_means(results[results["sweep"] == one.manifest.name], [chosen], totals_of(one)).items()
    }
    evidence = Evidence(content.comparisons, means)
    tables = pareto_tables(results, [chosen], evidence, axis, asked=True)
    figures, sentences = [], []
    groups = list(results[["sweep", "model", "scale"]].drop_duplicates().itertuples(index=False, name=None))
    for sweep, model, scale in groups:
        own, compared = (
            frame[(frame["sweep"] == sweep) & (frame["model"] == model) & (frame["scale"] == scale)]
            for frame in (results, content.comparisons)
        )
        values = arm_values(own, content.means)
        figure = cost_chart_of(values, compared, chosen, axis, asked=True)
        head = ", ".join(str(part) for part in (sweep, model, scale) if part) if len(groups) > 1 else ""
        if figure is not None:
            figures.append(replace(figure, slug=slug(head, figure.slug)))
        if limit is not None:
            sentences.append((f"{head}: " if head else "") + cheapest(values, task_names(own), limit, axis))
    if not tables:
        raise StoreError(f"pareto: no quantized recipe has {chosen} in {', '.join(content.sweeps)}")
    return Decision(tables, figures, sentences, notes)


def _metric(results: pd.DataFrame, metric: str | None) -> str:
    known = sorted(results["metric"].dropna().unique())
    if metric is None:
        return "kl" if "kl" in known else shown_metrics(results)[0]
    if metric not in known:
        raise ConfigError(f"--y {unknown_choice('metric', metric, known)}")
    return metric


def _bound(metric: str, value: float, *, above: bool) -> Bound:
    higher = metrics.higher_is_better(metric)
    if above != higher:
        right, wrong = ("--above", "--below") if higher else ("--below", "--above")
        better = "higher" if higher else "lower"
        raise ConfigError(f"{wrong} {value:g}: of {metric}, {better} is better; give {right} {value:g}")
    return Bound(metric, value, higher)


def _on(results: pd.DataFrame, on: Sequence[str]) -> pd.DataFrame:
    """The rows of the tests that are named."""
    if not on:
        return results
    known = sorted({*results["task"].dropna(), *results["distribution"].dropna()})
    for name in on:
        if name not in known:
            raise ConfigError(f"--on {unknown_choice('test', name, known)}")
    return results[results["task"].isin(list(on)) | results["distribution"].isin(list(on)).fillna(False)]
