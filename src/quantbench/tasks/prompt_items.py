"""What test sets share whose items are prompts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from quantbench.core.errors import ConfigError
from quantbench.tasks.prompts import Prompt, Prompts


class PromptTest(ABC):
    """Base of test sets of prompts; a subclass adds `metrics`, `own_protocol` and `score`.

    tails       what may follow a prompt: it is cut so that the longest of these fits behind it
    new_tokens  tokens that are generated behind it besides
    """

    uses_reference = False

    def __init__(self, prompts: Prompts, tails: Sequence[str], new_tokens: int = 0) -> None:
        self.prompts, self.tails, self.new_tokens = prompts, tails, new_tokens

    @property
    @abstractmethod
    def own_protocol(self) -> dict[str, Any]:
        """What fixes a score besides the prompts."""

    @property
    def protocol_values(self) -> dict[str, Any]:
        """How it is scored, and all that fixes the prompts."""
        return {**self.own_protocol, **self.prompts.values}

    @property
    def documents(self) -> Sequence[str]:
        """The distinct texts of all slots."""
        return self.prompts.documents

    @property
    def contents(self) -> Sequence[str]:
        """What each item is about, without template and answer."""
        return self.prompts.contents

    @property
    def token_rows(self) -> Sequence[Tensor]:
        """The tokens of each item's own text."""
        return self.prompts.token_rows

    @property
    def n_positions(self) -> int:
        """Tokens of all prompts, none cut, and of the longest answers."""
        return sum(len(self.prompts.encode(prompt.text)) + self.new_tokens for prompt in self.fitted(None))

    def fitted(self, limit: int | None) -> list[Prompt]:
        """The prompts, cut where they and what follows exceed `limit` tokens."""
        return self.prompts.fitted(limit, self.tails, self.new_tokens)

    def check_length(self, limit: int | None, task: str) -> None:
        """Raise ConfigError if a prompt exceeds `limit` tokens even without its passage."""
        try:
            self.fitted(limit)
        except ConfigError as error:
            raise ConfigError(f"task {task}: {error}") from error
