"""The check of our items against the numbers that lm-eval reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from quantbench.core.errors import ModelError
from quantbench.metrics import metrics
from quantbench.tasks.lm_eval.columns import Column
from quantbench.tasks.lm_eval.prepared import Prepared

TOLERANCE = 1e-6
"""Relative: how far a metric of ours may be from the number that lm-eval reports."""


def check_reported(
    prepared: Prepared, task: str, items: pd.DataFrame, results: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """The metrics that the items give, and what to say of the others."""
    kept, notes = [], []
    for column in next(iter(prepared.columns.values())).values():
        if column.is_mean and items[column.name].isna().any():
            n = int(items[column.name].isna().sum())
            notes.append(f"{column.name} is left out: {n} documents have no value for it")
            items.drop(columns=column.name, inplace=True)
            continue
        name = _group_metric(prepared, column, items)
        if name is None:
            notes.append(
                f"{column.name} of the group is left out: lm-eval takes a mean over subtasks, see the attachment"
            )
            continue
        for subtask, columns in prepared.columns.items():
            own = items[items["document"] == subtask]
            _compare(columns[column.name], column.name, own, results["results"][subtask], f"task {task}, {subtask}")
        if prepared.options.task in prepared.loaded.groups:
            _compare(column, name, items, results["results"][prepared.options.task], f"task {task}")
        kept.append(name)
    if not kept:
        raise ModelError(f"task {task}: no metric of lm-eval can be computed from its items: {'; '.join(notes)}")
    return kept, notes


def _group_metric(prepared: Prepared, column: Column, items: pd.DataFrame) -> str | None:
    """The metric's name over all subtasks: a macro mean where subtasks count alike in lm-eval but differ in size."""
    group = prepared.loaded.groups.get(prepared.options.task)
    rules = {} if group is None else {rule.metric: rule for rule in group.aggregate_metric_list or []}
    sizes = set(items.groupby("document").size())
    if column.metric not in rules or rules[column.metric].weight_by_size or len(sizes) == 1:
        return column.name
    return f"macro_{column.name}" if column.name in metrics.MACRO else None


def _compare(column: Column, name: str, items: pd.DataFrame, reported: Mapping[str, Any], where: str) -> None:
    if column.derived or column.key not in reported:  # of a group without an aggregate, lm-eval reports nothing
        return
    ours, theirs = metrics.measure(name, items).value, float(reported[column.key])
    if not math.isclose(ours, theirs, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        raise ModelError(
            f"{where}: {name} of the items is {ours:.9g}, but lm-eval reports {theirs:.9g}: the items cannot be trusted"
        )
