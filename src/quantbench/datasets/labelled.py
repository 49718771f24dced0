"""Examples with one label of a few: sentiment, inference, toxicity."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Protocol, runtime_checkable

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import ConfigError, DataError
from quantbench.datasets.examples import Example, Examples, RowExamples, columns_read, fields_of, finish
from quantbench.datasets.rows import Row
from quantbench.datasets.values import as_yaml, located, number


@runtime_checkable
class LabelRule(Protocol):
    """How a row gets its label. Implementations are components."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it reads."""
        ...

    @property
    def texts(self) -> tuple[str, ...]:
        """The labels' texts, in order, each once."""
        ...

    def label(self, row: Row) -> str | None:
        """The label's text; None: the row is left out. Raises DataError for a value the rule does not know."""
        ...


@component
class MapLabel:
    """A column's values stand for labels.

    map   value as found -> the label's text; "1" stands for 1 and 1.0, too
    drop  values whose rows are left out
    """

    column: Annotated[str, Field(min_length=1)]
    map: Annotated[dict[str, str], Field(min_length=1)]
    drop: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """See LabelRule."""
        return (self.column,)

    @property
    def texts(self) -> tuple[str, ...]:
        """See LabelRule."""
        return tuple(dict.fromkeys(self.map.values()))

    def label(self, row: Row) -> str | None:
        """See LabelRule."""
        found = as_yaml(row[self.column], self.column)
        if found in self.drop:
            return None
        if found not in self.map:
            raise DataError(
                f"the label column {self.column!r} holds {found!r}, which `labels` of the data "
                f"set's yaml does not name ({', '.join([*self.map, *self.drop])}); null there leaves its rows out"
            )
        return self.map[found]


@component
class CutLabel:
    """The mean of some columns' numbers, cut into intervals.

    at      ascending bounds b_1 < ... < b_k
    labels  k + 1 texts: of values below b_1, of b_1 <= value < b_2, ...; null: such rows are left out
    """

    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    at: Annotated[tuple[float, ...], Field(min_length=1)]
    labels: tuple[str | None, ...]

    def __post_init__(self) -> None:
        if list(self.at) != sorted(set(self.at)) or len(self.labels) != len(self.at) + 1:
            raise ConfigError(f"at={list(self.at)}, labels={list(self.labels)}: k ascending bounds need k + 1 labels")

    @property
    def texts(self) -> tuple[str, ...]:
        """See LabelRule."""
        return tuple(dict.fromkeys(text for text in self.labels if text is not None))

    def label(self, row: Row) -> str | None:
        """See LabelRule."""
        values = [number(row[column], column) for column in self.columns]
        mean = sum(values) / len(values)
        return self.labels[sum(mean >= bound for bound in self.at)]


@component
class LabelledSet(RowExamples):
    """Rows with a label.

    columns  slot of the template -> column, or a template of columns
    label    which label a row has
    Rows with an empty field or label are skipped, and counted in a note.
    """

    columns: Annotated[dict[str, str], Field(min_length=1)]
    label: LabelRule

    def load(self, split: str) -> Examples:
        """See ExampleSet. A label that no row has is an error: then the map, or the split, is not the right one."""
        rows = self.rows(split)
        rows.require([*columns_read(self.columns), *self.label.columns])
        examples, skipped = [], Counter[str]()
        for where, name, row in rows.each():
            with located(where):
                fields = fields_of(row, self.columns)
                known = all(fields.values()) and all(as_yaml(row[column], column) for column in self.label.columns)
                label = self.label.label(row) if known else None
            if not known:
                skipped["with an empty text or label"] += 1
                continue
            if label is None:
                skipped["with a label that is not used"] += 1
            else:
                examples.append(Example(name, fields, label, (label,)))
        found = finish(rows, examples, self.label.texts, skipped)
        counts = Counter(example.target for example in examples)
        if missing := [text for text in found.labels if not counts[text]]:
            raise DataError(
                f"data {rows.name}, split {split}: no row has the label {missing[0]!r}; found "
                f"{', '.join(f'{text}: {count}' for text, count in counts.items())}. Check the label map"
            )
        return found
