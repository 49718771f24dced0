"""What a report is made of: frames, words, and the runs behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from quantbench.report.page.values import Means


@dataclass(frozen=True, kw_only=True)
class RunEntry:
    """What the page says of one run.

    command   that reproduces it, as it is typed; None: it was made beside others, as full precision is
    calibration, error, created  "" where there is none
    """

    run_id: str
    sweep: str
    recipe: str
    calibration: str
    settings: str
    status: str
    command: str | None
    draw: str = ""
    bits: str = ""
    error: str = ""
    fallbacks: str = ""
    created: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Content:
    """All that the page shows.

    sweeps       names
    results      frame of `collate`, with the columns `recipe` and `calibration`
    comparisons  frame of comparisons.csv
    layers       frame of layers.csv
    costs        frame of costs.csv
    sentences    what was found, in words that follow from the verdicts
    runs         in the order of results
    means        of arms over their draws
    variances    frame of variance.csv
    facts        name -> text: model, scale, windows, clusters, draws ...
    """

    sweeps: Sequence[str]
    results: pd.DataFrame
    comparisons: pd.DataFrame
    layers: pd.DataFrame
    costs: pd.DataFrame
    sentences: Sequence[str]
    runs: Sequence[RunEntry]
    means: Means = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    variances: pd.DataFrame = field(default_factory=pd.DataFrame)
