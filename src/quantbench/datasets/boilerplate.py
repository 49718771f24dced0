"""Rows without the passages that many of them hold (quantbench.datasets.passages), wherever in a row they stand."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from quantbench.datasets.passages import without_boilerplate
from quantbench.datasets.rows import Rows
from quantbench.datasets.table import ListTable

Share = Annotated[float, Field(gt=0, lt=1)] | None
"""Passages that more than this share of the documents hold are taken out; None: none is."""


def without_boilerplate_rows(rows: Rows, share: Share) -> Rows:
    """The rows with passages taken out of their texts, those inside lists (messages) included; it is noted."""
    if share is None:
        return rows
    table = list(rows.table)
    texts = [list(_texts(row)) for row in table]
    first: dict[tuple[str, ...], int] = {}
    holder = [first.setdefault(tuple(several), index) for index, several in enumerate(texts) for _ in several]
    stripped = without_boilerplate([text for several in texts for text in several], share, holder)
    left = iter(stripped.texts)
    changed = [{column: _replaced(value, left) for column, value in row.items()} for row in table]
    return dataclasses.replace(
        rows,
        table=ListTable(changed, [rows.where(index) for index in range(len(table))]),
        notes=(*rows.notes, stripped.note),
        processing={**rows.processing, "strip_boilerplate": stripped.protocol},
    )


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _replaced(value: object, texts: Iterator[str]) -> object:
    if isinstance(value, str):
        return next(texts)
    if isinstance(value, dict):
        return {key: _replaced(one, texts) for key, one in value.items()}
    return [_replaced(one, texts) for one in value] if isinstance(value, list) else value
