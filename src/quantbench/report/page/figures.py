"""Which figures a report has: for each model and scale, those whose data are there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pandas as pd

from quantbench.metrics import metrics
from quantbench.report.axes import AXES
from quantbench.report.comparison_columns import GAP, RECIPE
from quantbench.report.page.bits import cost_chart_of
from quantbench.report.page.content import Content
from quantbench.report.page.cost import cost_chart
from quantbench.report.page.curves import draw_chart, size_chart
from quantbench.report.page.figure import Figure, slug
from quantbench.report.page.forest import forest
from quantbench.report.page.layers import layer_chart
from quantbench.report.page.losses import gap_map, loss_map
from quantbench.report.page.tasks import FLIPS, flip_chart
from quantbench.report.page.values import arm_values
from quantbench.report.page.variance import variance_chart
from quantbench.report.shown import default_metrics

FIRST = ("kl", "perplexity")
"""Metrics that come first: KL divergence sees every change, perplexity is what readers know."""


@dataclass(frozen=True)
class Section:
    """Figures under one heading: of one metric, or what there is beside metrics."""

    slug: str
    title: str
    figures: list[Figure]


def sections(content: Content) -> list[Section]:
    """The figures of each model and scale of each sweep, those without data left out.

    Raises ValueError if two figures would have one name.
    """
    keys = content.results[["sweep", "model", "scale"]].drop_duplicates()
    groups: list[tuple[str, str, str]] = list(keys.itertuples(index=False, name=None))
    found = []
    for sweep, model, scale in groups:
        several = len(groups) > 1
        head = " · ".join(str(part) for part in (sweep, model, scale) if part and not pd.isna(part)) if several else ""
        for title, made in _figures(_part(content, sweep, model, scale)):
            figures = [replace(figure, slug=slug(head, figure.slug)) for figure in made if figure is not None]
            whole = f"{title} · {head}" if head else title
            if figures:
                found.append(Section(slug("section", whole), whole, figures))
    names = [figure.slug for section in found for figure in section.figures]
    if len(names) != len(set(names)):
        raise ValueError(f"figures of one name: {sorted({name for name in names if names.count(name) > 1})}")
    return found


def shown_metrics(results: pd.DataFrame) -> list[str]:
    """The metrics that have figures, in order."""
    return sorted(default_metrics(results), key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))


def _part(content: Content, sweep: str, model: str, scale: str) -> Content:
    """The rows of one model and scale of one sweep; costs and layers are those of its runs."""
    results = content.results
    own = results[(results["sweep"] == sweep) & (results["model"] == model) & (results["scale"] == scale)]
    runs = set(own["run_id"].dropna())
    compared, variances = content.comparisons, content.variances
    if len(variances):
        variances = variances[(variances["model"] == model) & (variances["scale"] == scale)]
        variances = variances[variances["sweep"] == sweep]
    compared = compared[(compared["sweep"] == sweep) & (compared["model"] == model) & (compared["scale"] == scale)]
    return Content(
        sweeps=content.sweeps,
        results=own,
        comparisons=compared,
        layers=content.layers[content.layers["run_id"].isin(runs)],
        costs=content.costs[content.costs["run_id"].isin(runs)],
        sentences=[],
        runs=[],
        means=content.means,
        variances=variances,
    )


def _figures(part: Content) -> Iterator[tuple[str, list[Figure | None]]]:
    names = shown_metrics(part.results)
    wanted = part.results["metric"].isin([*names, *FLIPS])
    values = arm_values(part.results[wanted], part.means)
    for metric in names:
        made = [
            loss_map(values, part.comparisons, metric),
            gap_map(part.comparisons, metric),
            forest(part.comparisons, GAP, metric),
            forest(part.comparisons, RECIPE, metric),
            *(cost_chart_of(values, part.comparisons, metric, axis) for axis in AXES.values()),
            size_chart(values, metric),
            draw_chart(part.results, values, metric),
            variance_chart(part.variances, metric),
        ]
        direction = "higher" if metrics.higher_is_better(metric) else "lower"
        yield f"{metric} ({metrics.unit(metric)}; {direction} is better)", made
    yield "Layers, answers and cost", [flip_chart(values), layer_chart(part.layers), cost_chart(part.costs)]
