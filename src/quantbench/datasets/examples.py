"""Examples: rows with their meaning - what a prompt is filled with, and what the model is expected to say."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from quantbench.core.component import component
from quantbench.core.errors import DataError
from quantbench.core.origin import Origin
from quantbench.datasets.boilerplate import Share, without_boilerplate_rows
from quantbench.datasets.fill import TextTemplate, is_template, slots
from quantbench.datasets.likeness import apart
from quantbench.datasets.rows import Row, Rows, Source
from quantbench.datasets.split import cut_rows
from quantbench.datasets.values import scalar

log = logging.getLogger("quantbench")


@dataclass(frozen=True)
class Example:
    """One row.

    id       the row's; document: of what it reads first (a passage, a premise), so that items on one text are known
    fields   what a template's slots read
    target   what the model is expected to say
    answers  everything that counts as right; of a label, its text alone
    """

    id: str
    fields: Mapping[str, str]
    target: str
    answers: tuple[str, ...]

    @property
    def document(self) -> str:
        """A short name of the first field's text."""
        return hashlib.sha256(next(iter(self.fields.values())).encode("utf-8", "surrogatepass")).hexdigest()[:12]

    @property
    def content(self) -> str:
        """What the example is about without its answer, white space and case normalized: equal for equal questions."""
        return "\n".join(" ".join(value.split()).casefold() for value in self.fields.values())


@dataclass(frozen=True)
class Examples:
    """One split of an example set; labels: all texts a target can be, in order, none where it is free text."""

    rows: Rows
    examples: Sequence[Example] = field(repr=False)
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the fields."""
        return tuple(self.examples[0].fields)


@component
class RowExamples:
    """Base of sets whose examples are the rows of a source.

    strip_boilerplate  passages that more than this share of the rows hold are taken out of their texts
    """

    source: Source
    origin: Origin
    strip_boilerplate: Share = None

    def rows(self, split: str) -> Rows:
        """The rows of a split; of a source that has one split, those that are cut out for it."""
        found = without_boilerplate_rows(self.source.read(self.origin.name, split), self.strip_boilerplate)
        return cut_rows(found, split, self.source.group, self.source.group_until) if found.whole else found

    def check_files(self) -> None:
        """Raise DataError for a file of the user's that is missing."""
        try:
            self.source.check_files()
        except DataError as error:
            raise DataError(f"data {self.origin.name}: {error}") from error

    def check_reachable(self, split: str) -> None:
        """Raise DataError if the data are neither here nor can be fetched."""
        self.source.check_reachable(self.origin.name, split)

    def prepare(self) -> str:
        """Fetch the rows."""
        return f"{self.origin.name}: {self.source.fetch(self.origin.name)}"


@runtime_checkable
class ExampleSet(Protocol):
    """Rows and what their columns mean. Implementations are components (.labelled, .answers, .spans)."""

    @property
    def origin(self) -> Origin:
        """What is known of the data set."""
        ...

    def load(self, split: str) -> Examples:
        """The examples of a split.

        Raises DataError if the source cannot be reached or has no such split, and for columns, labels or tags that are
        not as the yaml says.
        """
        ...

    def prepare(self) -> str:
        """Fetch everything `load` needs, for all splits; returns one line saying what lies where."""
        ...


def fields_of(row: Row, columns: Mapping[str, str]) -> dict[str, str]:
    """The template's fields of a row: slot -> the column's text, or columns through a template of their own."""
    return {slot: _field(row, column) for slot, column in columns.items()}


def columns_read(columns: Mapping[str, str]) -> list[str]:
    """The columns that fields are made of."""
    return [name for text in columns.values() for name in (slots(text) if is_template(text) else [text])]


def _field(row: Row, column: str) -> str:
    if is_template(column):
        return TextTemplate(column).fill(row).strip()
    return scalar(row[column], column)


def skipped_note(counts: Mapping[str, int]) -> tuple[str, ...]:
    """What was left out, in words."""
    return tuple(f"{count} rows {reason} skipped" for reason, count in counts.items() if count)


def finish(rows: Rows, examples: Sequence[Example], labels: tuple[str, ...], skipped: Mapping[str, int]) -> Examples:
    """The examples of some rows. Raises DataError if none is left."""
    notes = (*rows.notes, *skipped_note(skipped))
    log.info("data %s, split %s: %d examples (%s)", rows.name, rows.split, len(examples), "; ".join(notes))
    if not examples:
        raise DataError(
            f"data {rows.name}, split {rows.split}: none of {len(rows.table)} rows is left: {'; '.join(notes)}"
        )
    return Examples(rows, examples, labels, notes)


def train_examples(data: ExampleSet, tested: str = "test") -> Examples:
    """The train split without what the tested split holds, too, word for word or nearly so.

    So shots and calibration items are never test items (quantbench.datasets.likeness).
    """
    train = data.load("train")
    try:
        items = [example.content for example in data.load(tested).examples]
    except DataError as error:  # a set for calibration only; tasks on it fail by themselves
        unread = f"not compared with its own {tested} split, which cannot be read: {error}"
        return dataclasses.replace(train, notes=(*train.notes, unread))
    stays = apart([example.content for example in train.examples], items)
    kept = [example for example, own in zip(train.examples, stays, strict=True) if own]
    note = skipped_note({"that are test items, too,": len(train.examples) - len(kept)})
    if not kept:
        raise DataError(f"data {data.origin.name}: every example of its train split is in its {tested} split, too")
    return dataclasses.replace(train, examples=kept, notes=(*train.notes, *note))
