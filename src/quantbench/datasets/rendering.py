"""Running text out of rows: chats, and instructions with their answers."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, Protocol, runtime_checkable

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import ConfigError, DataError
from quantbench.datasets.documents import Documents
from quantbench.datasets.rows import Row, Rows, RowSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@runtime_checkable
class Rendering(Protocol):
    """How a row becomes a document. Implementations are components."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it reads."""
        ...

    @property
    def uses_tokenizer(self) -> bool:
        """Whether the document depends on the model's tokenizer."""
        ...

    def document(self, row: Row, tokenizer: PreTrainedTokenizerBase | None) -> str:
        """The text of a row. Raises DataError for a row that is not as expected."""
        ...


@component
class Filled:
    """Templates filled with the row's columns, one after the other; a part all of whose columns are empty is left out.

    parts    texts with {column}s: ["{instruction}", "{input}", "{output}"]; a brace that is text is written twice
    between  what stands between the parts
    """

    parts: Annotated[tuple[str, ...], Field(min_length=1)]
    between: str = "\n\n"

    def __post_init__(self) -> None:
        for part in self.parts:
            if not _slots(part):
                raise ConfigError(f"parts: {part!r} names no {{column}}")

    @property
    def columns(self) -> tuple[str, ...]:
        """See Rendering."""
        return tuple(dict.fromkeys(name for part in self.parts for name in _slots(part)))

    @property
    def uses_tokenizer(self) -> bool:
        """See Rendering."""
        return False

    def document(self, row: Row, tokenizer: PreTrainedTokenizerBase | None) -> str:  # noqa: ARG002
        """See Rendering."""
        values = {name: _text(row, name).strip() for name in self.columns}
        kept = [part for part in self.parts if any(values[name] for name in _slots(part))]
        return self.between.join(part.format_map(values) for part in kept)


@component
class PlainChat:
    """A list of messages with role and content: each is its role's prefix and its content, two line ends between them.

    column    the column that holds the list
    prefixes  role -> what stands before its messages; a role that is not named here is an error
    """

    column: Annotated[str, Field(min_length=1)]
    prefixes: Annotated[dict[str, str], Field(min_length=1)]

    @property
    def columns(self) -> tuple[str, ...]:
        """See Rendering."""
        return (self.column,)

    @property
    def uses_tokenizer(self) -> bool:
        """See Rendering."""
        return False

    def document(self, row: Row, tokenizer: PreTrainedTokenizerBase | None) -> str:  # noqa: ARG002
        """See Rendering."""
        messages = _messages(row, self.column)
        unknown = [message["role"] for message in messages if message["role"] not in self.prefixes]
        if unknown:
            raise DataError(f"the role {unknown[0]!r} has no prefix; `prefixes` names {', '.join(self.prefixes)}")
        return "\n\n".join(self.prefixes[message["role"]] + message["content"].strip() for message in messages)


@component
class ModelChat:
    """A list of messages with role and content, written by the chat template of the model's own tokenizer."""

    column: Annotated[str, Field(min_length=1)]

    @property
    def columns(self) -> tuple[str, ...]:
        """See Rendering."""
        return (self.column,)

    @property
    def uses_tokenizer(self) -> bool:
        """See Rendering."""
        return True

    def document(self, row: Row, tokenizer: PreTrainedTokenizerBase | None) -> str:
        """See Rendering. Raises ConfigError if the tokenizer has no chat template."""
        if tokenizer is None or not tokenizer.chat_template:
            raise ConfigError(
                "the model's tokenizer has no chat template; use render@calib.source.render=chat, which needs none"
            )
        text = tokenizer.apply_chat_template([dict(one) for one in _messages(row, self.column)], tokenize=False)
        assert isinstance(text, str)
        return text


@component
class RowText:
    """A text whose documents are rendered rows.

    rows    where the rows come from; its splits must name train and test. It gives name, family and `about`
    render  how a row becomes a document; rows that give an empty one are left out, and counted in a note
    """

    rows: RowSource
    render: Rendering
    joiner: str = "\n\n"
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """See TextSource."""
        return self.rows.name

    @property
    def family(self) -> str:
        """See TextSource."""
        return self.rows.family

    def load(self, split: str) -> Documents:
        """See TextSource."""
        return self._rendered(split, None)

    def load_for(self, split: str, tokenizer: PreTrainedTokenizerBase) -> Documents:
        """See TokenizerText."""
        return self._rendered(split, tokenizer)

    def prepare(self) -> str:
        """Fetch the rows."""
        return self.rows.prepare()

    def _rendered(self, split: str, tokenizer: PreTrainedTokenizerBase | None) -> Documents:
        rows = self.rows.load(split)
        rows.require(self.render.columns)
        documents = list(filter(None, (self._document(rows, i, tokenizer).strip() for i in range(len(rows.rows)))))
        if not documents:
            raise DataError(f"text {self.name}, split {split}: none of {len(rows.rows)} rows holds text")
        left_out = len(rows.rows) - len(documents)
        notes = (*rows.notes, *([f"{left_out} empty rows left out"] if left_out else []))
        return Documents(self.name, split, documents, rows.revision, self.joiner, notes)

    def _document(self, rows: Rows, index: int, tokenizer: PreTrainedTokenizerBase | None) -> str:
        try:
            return self.render.document(rows.rows[index], tokenizer)
        except DataError as error:
            raise DataError(f"text {self.name}, split {rows.split}, row {rows.ids[index]}: {error}") from error


def _slots(text: str) -> list[str]:
    try:
        return [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise ConfigError(f"parts: {text!r} is not a template: {error}") from error


def _text(row: Row, column: str) -> str:
    value = row[column]
    if value is not None and not isinstance(value, str):
        raise DataError(f"the column {column!r} holds {type(value).__name__}, not text")
    return value or ""


def _messages(row: Row, column: str) -> Sequence[Mapping[str, str]]:
    found = row[column]
    fine = isinstance(found, list) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in found
    )
    if not fine:
        raise DataError(f"the column {column!r} is not a list of messages with role and content: {found!r:.120}")
    return list(found)
