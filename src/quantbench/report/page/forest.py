"""Forest plots: differences with their intervals, one below the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from quantbench.core.lazy import lazy_module
from quantbench.report.columns import DATA_FREE
from quantbench.report.comparison_columns import GAP, RECIPE
from quantbench.report.page.figure import Figure, in_order, named, rows_of, slug, tooltip
from quantbench.report.page.losses import arm_name, task_names
from quantbench.report.page.style import OPEN, VERDICTS, finished

if TYPE_CHECKING:
    import altair as alt
else:
    alt = lazy_module("altair")

MOST = 150
"""Marks that are drawn: more cannot be read."""

KINDS = {
    GAP: (
        "Transfer gaps with their intervals",
        "Each mark is the score on the test text when calibrated on the text behind the arrow, minus the score of the "
        "same recipe calibrated on the test's own text, with its 95 % interval.",
    ),
    RECIPE: (
        "Recipes against each other",
        "Each mark is the score of the first recipe minus that of the second, calibrated on the same text, with its "
        "95 % interval.",
    ),
}
"""Title and first words of each kind of comparison that has a plot."""


def forest(comparisons: pd.DataFrame, kind: str, metric: str) -> Figure | None:
    """The comparisons of one kind and metric, a panel for each test; None where there is none with an interval."""
    own = comparisons[(comparisons["kind"] == kind) & (comparisons["metric"] == metric)]
    own = own[own["low"].notna() & own["high"].notna()]
    if own.empty:
        return None
    title, first = KINDS[kind]
    higher = bool(own["higher_is_better"].iloc[0])
    words = [
        first,
        f"{'Left' if higher else 'Right'} of 0 is a loss. Shape and colour are the verdict after Holm's correction.",
    ]
    shown, left_out = most_certain(own, MOST)
    if left_out:
        words.append(f"Of {len(own):,d} comparisons the {MOST} with the largest difference in errors are drawn.")
    names = task_names(own)
    frame = pd.DataFrame(
        {
            "row": [_name(kind, row) for row in rows_of(shown)],
            "test": [names[str(task)] for task in shown["task"]],
            **{name: shown[name].to_numpy() for name in _KEPT},
            "runs": (shown["run_ids"].fillna("") + " " + shown["reference_run_ids"].fillna("")).to_numpy(),
        }
    )
    return Figure(
        slug(metric, kind, "intervals"),
        title,
        words,
        frame,
        finished(_chart(frame, metric), words[0], frame),
    )


_KEPT = [
    "difference",
    "low",
    "high",
    "verdict",
    "p_holm",
    "detectable",
    "n_draws",
    "n_clusters",
    "reliable",
    "unit",
    "note",
]


def most_certain(own: pd.DataFrame, most: int) -> tuple[pd.DataFrame, int]:
    """At most so many rows, those of the largest difference in standard errors, in order; and how many are left out."""
    if len(own) <= most:
        return own, 0
    ratio = (own["difference"].abs() / (own["high"] - own["low"])).to_numpy(np.float64, na_value=np.nan)
    kept = np.sort(np.argsort(-np.nan_to_num(ratio, nan=-1.0), kind="stable")[:most])
    return own.iloc[kept], len(own) - most


def _name(kind: str, row: dict[str, object]) -> str:
    if kind == GAP:
        return arm_name(row["recipe"], row["calib"])
    calibrations = [str(one) for one in dict.fromkeys([row["calib"], row["reference_calib"]]) if one != DATA_FREE]
    sets = f" ({' / '.join(calibrations)})" if calibrations else ""
    return f"{row['recipe']} − {row['reference_recipe']}{sets}"


def _chart(frame: pd.DataFrame, metric: str) -> alt.FacetChart:
    rows = in_order(frame["row"])
    domain = list(VERDICTS)
    colour = alt.Color("verdict:N", scale=alt.Scale(domain=domain, range=[c for c, _ in VERDICTS.values()]), title=None)
    shape = alt.Shape("verdict:N", scale=alt.Scale(domain=domain, range=[s for _, s in VERDICTS.values()]), title=None)
    base = alt.Chart().encode(
        y=alt.Y("row:N", sort=rows, title=None),
        tooltip=tooltip(["row", "test", *_KEPT, "runs"], frame),
        href=alt.Href("href:N"),
    )
    title = f"difference in {metric} ({frame['unit'].iloc[0]})"
    interval = base.mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q", title=title), x2="high:Q", color=colour)
    point = base.mark_point(filled=True, size=70, opacity=1).encode(x="difference:Q", color=colour, shape=shape)
    zero = alt.Chart().mark_rule(color=OPEN, strokeDash=[4, 3]).encode(x=alt.datum(0))
    layered = alt.layer(zero, interval, point, data=named()).properties(width=260, height=alt.Step(20))
    return layered.facet(facet=alt.Facet("test:N", title=None, sort=sorted(set(frame["test"]))), columns=3)
