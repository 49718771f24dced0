"""Which metrics have tables and sentences unless others are asked for."""

from __future__ import annotations

import pandas as pd

DEFAULT_METRICS = ("perplexity", "kl")
"""Metrics of running text that have a table of their own."""

HIDDEN_METRICS = (
    "nll",
    "bits_per_byte",
    "kl_median",
    "kl_p90",
    "kl_p99",
    "kl_p999",
    "kl_max",
    "reverse_kl",
    "kl_confident",
    "kl_unsure",
    "rms_dp",
    "top1_agreement",
    "macro_f1",
    "agreement",
    "flips_wrong",
    "flips_right",
    "recovery",
)
"""Metrics that are in results.csv and comparisons.csv only, unless a table of them is asked for."""


def default_metrics(frame: pd.DataFrame) -> list[str]:
    """The metrics of a frame of results or comparisons that are shown unless others are asked for: those of text first.

    That of a frame without any is perplexity: nothing has been scored yet.
    """
    found = [str(name) for name in frame["metric"].dropna().unique()]
    own = [name for name in found if name not in {*DEFAULT_METRICS, *HIDDEN_METRICS}]
    text = [name for name in DEFAULT_METRICS if name in found]
    return [*text, *own] or [DEFAULT_METRICS[0]]
