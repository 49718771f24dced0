"""Which numbers of an lm-eval task become item columns and metrics, and how they are read from its samples.

lm-eval gives each document a value for each metric and filter, and an aggregation that makes one number of them. A
metric is kept where its value comes out of per-item columns again:

mean                    a column of the metric's name; of a further filter: metric_filter
f1, matthews_corrcoef   of gold and predicted label: the column `acc`, whether they are equal. The number itself is no
                        mean over items and stands in the attachment only
perplexity              of a log-likelihood per document: columns nll, n_words = 1, metric word_perplexity
weighted_perplexity, bits_per_byte   of texts: columns nll, n_words, n_bytes, metrics word_perplexity, bits_per_byte

The mean over a group that lm-eval does not weight by size is the metric macro_<metric>.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantbench.metrics.metrics import LOWER_IS_BETTER, METRICS
from quantbench.tasks.lm_eval.library import filters

ROLLING = ("word_perplexity", "bits_per_byte")


@dataclass(frozen=True)
class Column:
    """A metric: its name here, and lm-eval's metric and filter."""

    name: str
    metric: str
    filter: str
    derived: bool = False

    @property
    def key(self) -> str:
        """lm-eval's key of the number it reports."""
        return f"{self.metric},{self.filter}"

    @property
    def is_mean(self) -> bool:
        """Whether the metric is the mean of an item column."""
        return self.name not in ROLLING

    def value(self, sample: dict[str, Any]) -> float | None:
        """A document's value; None if it has none that is a finite number."""
        found = sample.get(self.metric)
        if self.derived and isinstance(found, tuple | list) and len(found) == 2:
            found = float(found[0] == found[1])
        if isinstance(found, bool | int | float | np.number) and np.isfinite(found):
            return float(found)
        return None


def columns_of(task: Any) -> list[Column]:
    """The metrics of one subtask that are kept."""
    from lm_eval.api import metrics as known

    found: list[Column] = []
    for index, name in enumerate(filters(task)):
        for metric, aggregate in task.aggregation().items():
            column = Column(metric if index == 0 else f"{metric}_{name}".replace("-", "_"), metric, name)
            if aggregate is known.mean and _may_stand(column.name, task, metric):
                found.append(column)
            elif aggregate in (known.f1_score, known.matthews_corrcoef) and "acc" not in task.aggregation():
                found.append(Column("acc", metric, name, derived=True))
            elif aggregate is known.perplexity and task.OUTPUT_TYPE == "loglikelihood":
                found.append(Column("word_perplexity", metric, name))
            elif task.OUTPUT_TYPE == "loglikelihood_rolling" and metric in ROLLING:
                found.append(Column(metric, metric, name))
    return list({column.name: column for column in reversed(found)}.values())[::-1]


def _may_stand(name: str, task: Any, metric: str) -> bool:
    """Whether a mean may have this name: it must not mean something else here, and the smaller must not be better."""
    if name in LOWER_IS_BETTER:
        return True
    if name in METRICS:
        return False
    return bool(task.higher_is_better().get(metric, True))


def shared(tasks: Mapping[str, Any]) -> dict[str, dict[str, Column]]:
    """The metrics that all subtasks have: subtask -> name -> column. Empty mappings if they have none in common."""
    every = {name: {column.name: column for column in columns_of(task)} for name, task in tasks.items()}
    common = set.intersection(*(set(columns) for columns in every.values()))
    return {name: {key: one for key, one in columns.items() if key in common} for name, columns in every.items()}
