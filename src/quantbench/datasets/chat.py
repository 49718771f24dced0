"""Running text out of dialogues: a list of messages with role and content becomes a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Protocol, runtime_checkable

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@runtime_checkable
class Rendering(Protocol):
    """How a row becomes a document. Implementations are components."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it reads."""
        ...

    def document(self, row: Mapping[str, object], tokenizer: PreTrainedTokenizerBase | None) -> str:
        """The text of a row. Raises DataError for a row that is not as expected."""
        ...


@component
class PlainChat:
    """A list of messages: each is its role's prefix and its content, two line ends between them.

    column    the column that holds the list
    prefixes  role -> what stands before its messages; a role that is not named here is an error
    """

    column: Annotated[str, Field(min_length=1)]
    prefixes: Annotated[dict[str, str], Field(min_length=1)]

    @property
    def columns(self) -> tuple[str, ...]:
        """The list's."""
        return (self.column,)

    def document(self, row: Mapping[str, object], tokenizer: PreTrainedTokenizerBase | None) -> str:  # noqa: ARG002
        """The messages one below the other."""
        messages = _messages(row, self.column)
        unknown = [message["role"] for message in messages if message["role"] not in self.prefixes]
        if unknown:
            raise DataError(f"the role {unknown[0]!r} has no prefix; `prefixes` names {', '.join(self.prefixes)}")
        return "\n\n".join(self.prefixes[message["role"]] + message["content"].strip() for message in messages)


@component
class ModelChat:
    """A list of messages, written by the chat template of the model's own tokenizer."""

    column: Annotated[str, Field(min_length=1)]

    @property
    def columns(self) -> tuple[str, ...]:
        """The list's."""
        return (self.column,)

    def document(self, row: Mapping[str, object], tokenizer: PreTrainedTokenizerBase | None) -> str:
        """What the template makes of the messages. Raises ConfigError if the tokenizer has no chat template."""
        if tokenizer is None or not tokenizer.chat_template:
            raise ConfigError("the model's tokenizer has no chat template; use calib.render=chat, which needs none")
        text = tokenizer.apply_chat_template([dict(one) for one in _messages(row, self.column)], tokenize=False)
        assert isinstance(text, str)
        return text


def _messages(row: Mapping[str, object], column: str) -> Sequence[Mapping[str, str]]:
    found = row[column]
    messages = [one for one in found if _is_message(one)] if isinstance(found, list) else []
    if not isinstance(found, list) or len(messages) < len(found):
        raise DataError(f"the column {column!r} is not a list of messages with role and content: {found!r:.120}")
    return messages


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)
