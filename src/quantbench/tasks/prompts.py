"""Prompts of a task for one tokenizer: each item as text that fits the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from quantbench.core.errors import ConfigError
from quantbench.datasets.examples import Example
from quantbench.datasets.template import Template
from quantbench.models.tokenizer import in_chat, leading_special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class Prompt:
    """One item as text: its prompt, and whether its passage was cut to fit."""

    example: Example
    text: str
    truncated: bool


@dataclass(frozen=True, eq=False)
class Prompts:
    """The items of a task for one tokenizer.

    shots_for   the worked examples that stand before an item
    chat        prompts go through the tokenizer's chat template, which has its own special tokens
    values      what of the protocol the items fix
    provenance  where they came from: kept beside each score
    """

    template: Template
    tokenizer: PreTrainedTokenizerBase
    examples: Sequence[Example]
    labels: tuple[str, ...]
    shots_for: Callable[[Example], Sequence[Example]]
    max_tokens: int | None
    chat: bool
    values: dict[str, Any]
    provenance: dict[str, Any]
    _fitted: dict[Any, list[Prompt]] = field(default_factory=dict, repr=False)

    @property
    def attachments(self) -> dict[str, str]:
        """The file data.json beside a score: which source answered, its revision, and what was left out."""
        return {"data.json": json.dumps(self.provenance, indent=2) + "\n"}

    @property
    def documents(self) -> list[str]:
        """The distinct texts the items are made of."""
        return list(dict.fromkeys(value for example in self.examples for value in example.fields.values()))

    @property
    def contents(self) -> list[str]:
        """What each item is about, without template and answer, normalized."""
        return [example.content for example in self.examples]

    @cached_property
    def token_rows(self) -> list[Tensor]:
        """The tokens of each item's own text, without the template that all items share."""
        return [torch.tensor(self.encode("\n".join(example.fields.values()))) for example in self.examples]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, the tokenizer's own special tokens before it; a chat template writes its own."""
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        assert isinstance(ids, list)
        return ids if self.chat else [*leading_special_tokens(self.tokenizer), *ids]

    def length(self, text: str, tails: Sequence[str], extra: int) -> int:
        """Tokens of a prompt with the longest of some answers behind it, and `extra` more."""
        return extra + max(len(self.encode(text + tail)) for tail in tails)

    def fitted(self, limit: int | None, tails: Sequence[str], extra: int = 0) -> list[Prompt]:
        """The prompts, passages cut where prompt, the longest of `tails` and `extra` tokens exceed the limit.

        Raises ConfigError if one is too long even without its passage.
        """
        bounds = [bound for bound in (limit, self.max_tokens) if bound is not None]
        bound = min(bounds, default=None)
        key = (bound, tuple(tails), extra)
        if key not in self._fitted:  # asked for again for every cell of a grid
            self._fitted[key] = [self._fit(example, bound, tails, extra) for example in self.examples]
        return self._fitted[key]

    def whole(self, example: Example, fields: Mapping[str, str] | None = None) -> Prompt:
        """The prompt of an item however long it is, with other texts in its slots if they are given."""
        filled = self.template.prompt(fields or example.fields, self.labels, self.shots_for(example))
        text = in_chat(self.tokenizer, [{"role": "user", "content": filled}]) if self.chat else filled
        return Prompt(example, text, truncated=False)

    def _fit(self, example: Example, limit: int | None, tails: Sequence[str], extra: int) -> Prompt:
        whole = self.whole(example)
        if limit is None or self.length(whole.text, tails, extra) <= limit:
            return whole
        if self.template.passage is None:
            raise ConfigError(self._too_long(example, limit, "and the template has no passage to cut"))
        kept, above = 0, len(example.fields[self.template.passage])
        if self.length(self._shortened(example, 0), tails, extra) > limit:
            raise ConfigError(self._too_long(example, limit, "even without its passage"))
        while above - kept > 1:
            middle = (kept + above) // 2
            fits = self.length(self._shortened(example, middle), tails, extra) <= limit
            kept, above = (middle, above) if fits else (kept, middle)
        return Prompt(example, self._shortened(example, kept), truncated=True)

    def _shortened(self, example: Example, kept: int) -> str:
        return self.whole(example, self.template.shortened(example.fields, kept)).text

    def _too_long(self, example: Example, limit: int, why: str) -> str:
        shots = len(self.shots_for(example))
        return (
            f"item {example.id}: its prompt with {shots} shots is longer than {limit} tokens, {why}; "
            "use fewer shots, a shorter template, or a model with a longer context"
        )

    def frame(self, prompts: Sequence[Prompt]) -> pd.DataFrame:
        """Columns item, document, cluster, n_tokens, n_bytes, truncated; one row per item.

        Items on one text (a passage, a premise) are a document, and a cluster.
        """
        return pd.DataFrame(
            {
                "item": [prompt.example.id for prompt in prompts],
                "document": [prompt.example.document for prompt in prompts],
                "cluster": [prompt.example.document for prompt in prompts],
                "n_tokens": [len(self.encode(prompt.text)) for prompt in prompts],
                "n_bytes": [len(prompt.text.encode("utf-8", "surrogatepass")) for prompt in prompts],
                "truncated": [int(prompt.truncated) for prompt in prompts],
            }
        )
