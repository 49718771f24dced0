"""What the study says, as Markdown: transfer gaps, how often a text's own set is best, what was not decided.

    python benchmarks/study_tables.py SWEEP [--margin 0.01] [--metric kl]

SWEEP is the study's name in the output folder; docs/study.md has the commands that put it there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import pandas as pd
from tabulate import tabulate

from quantbench.core.errors import StoreError
from quantbench.core.origin import CONTROL
from quantbench.core.paths import outputs_folder
from quantbench.metrics.errors import Source
from quantbench.metrics.planning import MOST, Observed
from quantbench.metrics.verdict import Verdict
from quantbench.report.arms import arms
from quantbench.report.columns import DATA_FREE
from quantbench.report.comparison_columns import GAP, RECIPE
from quantbench.report.comparisons import compared
from quantbench.report.effects import effects
from quantbench.report.matched import matched_is_best
from quantbench.report.pairs import pairs
from quantbench.report.scored import SweepScores
from quantbench.store.store import Store

SHOWN = ("kl", "perplexity", "top1_agreement")
"""Metrics of the table of how often a text's own set is best."""

Key = tuple[str, str, str]
"""Recipe, calibration set, test text."""


def sources(scores: SweepScores, metric: str) -> dict[Key, Observed]:
    """What the errors of the transfer gaps are made of."""
    found = {}
    for pair in pairs(scores, arms(scores.runs), [GAP]):
        effect = effects(pair)
        if metric not in effect.names or effect.one_draw:
            continue
        row = effect.names.index(metric)
        draws, clusters = (
            Source(float(s), float(df))
            for s, df in zip(effect.errors.stderrs[row], effect.errors.dfs[row], strict=True)
        )
        fewest = min(len(effect.candidates), len(effect.references))
        n_clusters = effect.candidates[0].scored.score.n_clusters
        arm = pair.candidate.arm
        found[arm.recipe, arm.calib, pair.task] = Observed(draws, clusters, fewest, n_clusters)
    return found


def interval(row: pd.Series) -> str:
    """A difference with its 95 % interval."""
    return f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"


def gap_table(gaps: pd.DataFrame) -> str:
    """One row per recipe and calibration set, one column per test text."""
    if gaps.empty:
        return "None."
    texts = list(dict.fromkeys(gaps["task"]))
    lines = []
    for (recipe, calib), own in gaps.groupby(["recipe", "calib"], sort=False):
        cells = own.set_index("task")
        lines.append(
            [recipe, calib, *(_gap_cell(cells.loc[text]) if text in cells.index else "(own)" for text in texts)]
        )
    return tabulate(lines, ["recipe", "calibrated on", *(f"lost on {text}" for text in texts)], tablefmt="github")


def _gap_cell(row: pd.Series) -> str:
    return f"{interval(row)} {row['verdict']}"


def matched_table(comparisons: pd.DataFrame) -> str:
    """How often a text's own set is best, beside chance."""
    frame = matched_is_best(comparisons)
    chosen = frame[frame["metric"].isin(SHOWN)][
        ["metric", "recipe", "n_texts", "n_best", "chance", "n_shown", "n_draws"]
    ]
    names = ["metric", "recipe", "texts", "own set best", "by chance", "shown", "draws"]
    return tabulate(chosen.to_numpy().tolist(), names, tablefmt="github", floatfmt=".2g")


def undecided_table(gaps: pd.DataFrame, known: dict[Key, Observed], margin: float) -> str:
    """What is not decided, what would have been found, and how much data would find the gap, or the margin."""
    lines = []
    for row in _rows(gaps[gaps["verdict"] == Verdict.UNDECIDED.value]):
        observed = known.get((row["recipe"], row["calib"], row["task"]))
        if observed is not None:
            alone = [observed.draws_needed(size) for size in (row["difference"], margin)]
            alone.append(observed.clusters_needed(margin))
            told = [f"{n:,}" if n is not None else "no number" for n in alone]
            times = observed.times_needed(margin)
            told.append(f"{times:,} times" if times is not None else f"more than {MOST:,} times")
            lines.append([row["recipe"], row["calib"], row["task"], interval(row), f"{row['detectable']:.4f}", *told])
    names = ["recipe", "calibrated on", "test", "gap", "detectable", "draws, for the gap as measured"]
    names += [f"draws, for {margin}", "or clusters", "or both"]
    return tabulate(lines, names, tablefmt="github") if lines else "Every gap is decided."


def no_data_table(comparisons: pd.DataFrame) -> str:
    """Recipes that read data against those that read none: on their own text, on another's, on the controls."""
    chosen = comparisons[(comparisons["kind"] == RECIPE) & (comparisons["reference_calib"] == DATA_FREE)]
    chosen = chosen[chosen["calib"] != DATA_FREE]
    lines = []
    for (reference, recipe), own in chosen.groupby(["reference_recipe", "recipe"], sort=False):
        for name, rows in _by_relation(own):
            counts = rows["verdict"].value_counts()
            words = [int(counts.get(word.value, 0)) for word in (Verdict.BETTER, Verdict.UNDECIDED, Verdict.WORSE)]
            spread = f"{rows['difference'].min():+.3f} to {rows['difference'].max():+.3f}"
            lines.append([recipe, reference, name, len(rows), spread, *words])
    names = ["recipe", "against", "calibrated on", "comparisons", "differences", "better", "undecided", "worse"]
    return tabulate(lines, names, tablefmt="github")


def _by_relation(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    control = frame["relation"] == CONTROL
    own = frame["calib"] == frame["task"]
    for name, chosen in (("the test's text", own), ("another text", ~own & ~control), ("a control", control)):
        if chosen.any():
            yield name, frame[chosen]


def spread_table(known: dict[Key, Observed]) -> str:
    """The error of a gap by source, medians over a recipe's gaps."""
    lines = []
    for recipe in dict.fromkeys(key[0] for key in known):
        own = [observed for key, observed in known.items() if key[0] == recipe]
        medians = np.median([(one.draws.stderr, one.clusters.stderr) for one in own], axis=0).tolist()
        lines.append([recipe, *medians])
    return tabulate(lines, ["recipe", "from draws", "from test clusters"], tablefmt="github", floatfmt=".4f")


def _rows(frame: pd.DataFrame) -> Iterator[pd.Series]:
    return (row for _, row in frame.iterrows())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep")
    parser.add_argument("--metric", default="kl")
    parser.add_argument("--margin", type=float, default=0.01, help="what difference matters, in the metric's unit")
    given = parser.parse_args()
    store = Store(outputs_folder())
    manifest = store.load_manifest(given.sweep)
    if manifest is None:
        raise StoreError(f"no sweep {given.sweep} in {store.root}. Sweeps: {', '.join(store.sweep_names())}")
    scores = SweepScores(store, manifest)
    comparisons = compared([scores], {given.metric: given.margin})
    mine = comparisons[comparisons["metric"] == given.metric]
    gaps = mine[mine["kind"] == GAP]
    known = sources(scores, given.metric)
    controls = gaps["relation"] == CONTROL
    parts = {
        f"Transfer gaps: {given.metric}": gap_table(gaps[~controls]),
        f"Transfer gaps of controls: {given.metric}": gap_table(gaps[controls]),
        "Is a text's own set best?": matched_table(comparisons),
        f"Not decided, and what would find {given.margin}": undecided_table(gaps, known, given.margin),
        "The error of a gap, by source": spread_table(known),
        "Against recipes without data": no_data_table(mine),
    }
    for title, table in parts.items():
        print(f"## {title}\n\n{table}\n")


if __name__ == "__main__":
    main()
