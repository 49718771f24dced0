"""The columns of comparisons.csv: one row per comparison of two arms on one test text and metric."""

from __future__ import annotations

from typing import Annotated, TypedDict

from quantbench.report.columns import DATA_FREE, columns_of

FULL_PRECISION, RECIPE, GAP = KINDS = ("full precision", "recipe", "transfer gap")
"""What is compared: with full precision; two recipes on one calibration set; two calibration sets of one recipe."""

ONE_DRAW = "this draw only"
"""Note of a comparison that does not show how far another calibration draw would move it."""


class ComparisonRow(TypedDict, total=False):
    """One row: each column with its type and meaning. None is "not known" or "does not apply", an empty field."""

    sweep: Annotated[str, "name of the sweep"]
    model: Annotated[str, "chosen model option"]
    scale: Annotated[str, "chosen scale option, and what of it all cells have otherwise"]
    kind: Annotated[
        str,
        "full precision: an arm against full precision; recipe: two recipes calibrated on the same set, or on none; "
        "transfer gap: one recipe, calibrated on another set and on the test distribution itself",
    ]
    metric: Annotated[str, "metric"]
    unit: Annotated[str, "unit of value, reference_value, difference, low and high"]
    higher_is_better: Annotated[bool, "direction of the metric"]
    task: Annotated[str, "task"]
    protocol: Annotated[str, "protocol id"]
    distribution: Annotated[str | None, "test distribution of the task"]
    relation: Annotated[str | None, "how far it is from what the candidate is calibrated on"]
    recipe: Annotated[str, "the candidate's recipe: option, variant, and what tells it from another of that name"]
    calib: Annotated[str, f"what the candidate is calibrated on; {DATA_FREE} if nothing is read"]
    reference_recipe: Annotated[str, "the reference's recipe"]
    reference_calib: Annotated[str, "what the reference is calibrated on; in a transfer gap, the test distribution"]
    run_ids: Annotated[str, "the candidate's runs, one per draw, separated by spaces"]
    reference_run_ids: Annotated[str, "the reference's runs"]
    bits: Annotated[float | None, "the candidate's effective bits"]
    reference_bits: Annotated[float | None, "the reference's; of full precision, bits per parameter of the model"]
    same_bits: Annotated[bool | None, "whether the two differ by at most 0.01 bits"]
    n_items: Annotated[int, "number of items (windows, questions)"]
    n_clusters: Annotated[int, "number of clusters the items lie in (documents, passages)"]
    n_draws: Annotated[int, "the candidate's draws compared"]
    n_reference_draws: Annotated[int, "the reference's"]
    value: Annotated[float | None, "the candidate's mean over draws; of perplexities, the geometric mean"]
    reference_value: Annotated[float | None, "the reference's"]
    difference: Annotated[float | None, "value minus reference_value"]
    stderr: Annotated[
        float | None, "standard error over clusters and draws, on the test scale: of perplexities, of log(ratio)"
    ]
    low: Annotated[float | None, "lower end of the difference's 95 % interval; of perplexities, at reference_value"]
    high: Annotated[float | None, "upper end"]
    ratio: Annotated[float | None, "of perplexities: value / reference_value"]
    ratio_low: Annotated[float | None, "lower end of its 95 % interval"]
    ratio_high: Annotated[float | None, "upper end"]
    p: Annotated[float | None, "two-sided p value of no difference, of this comparison alone"]
    p_holm: Annotated[float | None, "Holm's adjusted p value in the family"]
    p_bh: Annotated[float | None, "Benjamini and Hochberg's adjusted p value, over all of this kind in the sweep"]
    family: Annotated[str | None, "what the family is, and how many comparisons it has"]
    margin: Annotated[float | None, "differences below it do not matter, on the test scale; empty if none was stated"]
    p_equivalence: Annotated[float | None, "p value of two one-sided tests of the margin, adjusted as p_holm is"]
    detectable: Annotated[float | None, "smallest difference found with power 0.8 at this error, on the test scale"]
    verdict: Annotated[str, "better, worse, equivalent, undecided or not comparable (docs/statistics.md)"]
    reliable: Annotated[bool, "whether there are at least 8 clusters, below which intervals cover too seldom"]
    note: Annotated[str | None, "what limits the comparison: this draw only, draws left out, why there is none"]


COMPARISON_COLUMNS = columns_of(ComparisonRow)
"""In the order of the file."""
