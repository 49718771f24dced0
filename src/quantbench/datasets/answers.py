"""Examples with free-text answers: extractive question answering."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import DataError
from quantbench.datasets.examples import Example, Examples, RowExamples, columns_read, fields_of, finish
from quantbench.datasets.values import located


@component
class AnswerSet(RowExamples):
    """Rows with a passage, a question and its answers.

    columns  slot of the template -> column
    answers  the column of the answers: as in SQuAD ({"text": [...], ...}), a list of texts, or one text
    Rows with an empty field or without an answer are skipped, and counted in a note. Where answers begin is not read:
    some sets hold wrong positions (BOSS writes texts there).
    """

    columns: Annotated[dict[str, str], Field(min_length=1)]
    answers: Annotated[str, Field(min_length=1)] = "answers"

    def load(self, split: str) -> Examples:
        """See ExampleSet."""
        rows = self.rows(split)
        rows.require([*columns_read(self.columns), self.answers])
        examples, skipped = [], Counter[str]()
        for where, name, row in rows.each():
            with located(where):
                fields = fields_of(row, self.columns)
                found = _texts(row[self.answers], self.answers)
            if not all(fields.values()) or not found:
                skipped["without a text or an answer"] += 1
            else:
                examples.append(Example(name, fields, found[0], found))
        return finish(rows, examples, (), skipped)


def _texts(value: object, label: str) -> tuple[str, ...]:
    """The distinct answers of a column's value, in order."""
    texts = value.get("text") if isinstance(value, dict) else value
    if isinstance(texts, str):
        texts = [texts]
    if texts is None:
        return ()
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(f'{label}: expected {{"text": [...]}}, a list of texts, or a text, found {value!r}')
    return tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))
