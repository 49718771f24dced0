"""Is it best to calibrate on the text that a model is used on? How often, beside what chance alone would give.

(The question of Williams & Aletras 2024, arXiv 2311.09755, and of Liu et al. 2024, arXiv 2406.12928.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

import pandas as pd

from quantbench.core.origin import CONTROL, MIXED
from quantbench.metrics.verdict import Verdict
from quantbench.report.columns import columns_of, series
from quantbench.report.comparison_columns import GAP


class MatchedRow(TypedDict, total=False):
    """One row: a recipe and a metric."""

    sweep: Annotated[str, "name of the sweep"]
    model: Annotated[str, "chosen model option"]
    scale: Annotated[str, "chosen scale option"]
    metric: Annotated[str, "metric"]
    recipe: Annotated[str, "the recipe's name"]
    n_texts: Annotated[int, "test texts whose own calibration set is one of two or more"]
    n_best: Annotated[int, "of these, texts on which their own set is best: mean over draws"]
    chance: Annotated[float, "n_best if sets are ranked at random: the sum over the texts of 1 / number of sets"]
    n_shown: Annotated[int, "of n_best, texts on which the verdict on every other set is worse (p values are Holm's)"]
    n_draws: Annotated[int, "draws of the set that has fewest"]


MATCHED_COLUMNS = columns_of(MatchedRow)


def matched_is_best(comparisons: pd.DataFrame) -> pd.DataFrame:
    """The transfer gaps of a frame of `comparisons`, counted by recipe and metric, as a frame of MATCHED_COLUMNS.

    A text's own set competes with every other set of one distribution: mixtures, which may hold the text's
    distribution, and controls, which are drawn from none, are left out, and so are sets that cannot be compared.
    """
    gaps = comparisons[
        (comparisons["kind"] == GAP)
        & comparisons["difference"].notna()
        & (comparisons["verdict"] != Verdict.NOT_COMPARABLE.value)
        & ~comparisons["relation"].isin([CONTROL, MIXED])
    ]
    rows: list[MatchedRow] = []
    keys = ["sweep", "model", "scale", "metric", "recipe"]
    for names, own in gaps.groupby(keys, sort=False):
        texts = [_text(rivals) for _, rivals in own.groupby(["task", "protocol", "reference_calib"], sort=False)]
        rows.append(
            {
                **dict(zip(keys, names, strict=True)),  # type: ignore[typeddict-item]
                "n_texts": len(texts),
                "n_best": sum(best for best, _, _ in texts),
                "chance": sum(1 / (n_rivals + 1) for _, _, n_rivals in texts),
                "n_shown": sum(shown for _, shown, _ in texts),
                "n_draws": int(min(own["n_draws"].min(), own["n_reference_draws"].min())),
            }
        )
    made: Sequence[Any] = rows
    return pd.DataFrame(
        {name: series(name, kind, [row[name] for row in made]) for name, kind in MATCHED_COLUMNS.items()}
    )


def sentence(row: Any) -> str:
    """What a row of `matched_is_best` says, in words."""
    texts = f"{row['n_texts']} test text{'s' if row['n_texts'] > 1 else ''}"
    draws = f"{row['n_draws']} draw{'s' if row['n_draws'] > 1 else ''} a set"
    shown = "none of them" if not row["n_shown"] else str(row["n_shown"])
    return (
        f"{row['recipe']}, {row['metric']}: the text's own calibration set is best on {row['n_best']} of {texts}; "
        f"chance alone would give {row['chance']:.2g}. That is shown for {shown}, with p values adjusted ({draws})."
    )


def _text(rivals: pd.DataFrame) -> tuple[bool, bool, int]:
    """On one text: whether its own set is best, whether that is shown, and how many others there are."""
    losses = rivals["difference"].where(~rivals["higher_is_better"], -rivals["difference"])
    best = bool((losses > 0).all())
    return best, best and bool((rivals["verdict"] == Verdict.WORSE.value).all()), len(rivals)
