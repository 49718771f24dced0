"""Which metrics have tables and sentences unless others are asked for."""

from __future__ import annotations

import pandas as pd

from quantbench.metrics.positions import BUCKETS, NAMES

DEFAULT_METRICS = ("perplexity", "kl")
"""Metrics of running text that have a table of their own."""

HIDDEN_METRICS = (
    *("nll", "bits_per_byte", *NAMES, *BUCKETS, "reverse_kl", "top1_agreement", "rms_dp", "macro_f1"),
    *("agreement", "flips_wrong", "flips_right", "recovery"),
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
