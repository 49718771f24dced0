"""What tasks on prompts share: which items, which shots, prompts that fit the model, and what fixes a score."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

import pandas as pd
import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from quantbench.core.component import component
from quantbench.core.errors import ConfigError, DataError
from quantbench.datasets.examples import Example, Examples, ExampleSet, train_examples
from quantbench.datasets.template import Template
from quantbench.models.tokenizer import leading_special_tokens

PLACEMENT = "item i of n is example floor(i * N / n) of N"


@component
class PromptTask:
    """Options of every task on prompts.

    split      the split that is tested
    n          how many items, evenly spaced over the split; null: all
    shots      worked examples before the item, drawn from the train split with `shot_seed`, the same for all items
    max_tokens  longest prompt with its answer; null: what the model takes. In a longer one the middle of the passage
               is cut, never another slot; the item column `truncated` counts them
    """

    data: ExampleSet
    template: Template
    split: Annotated[str, Field(min_length=1)]
    n: Annotated[int, Field(ge=1)] | None
    shots: Annotated[int, Field(ge=0)]
    shot_seed: Annotated[int, Field(ge=0)]
    max_tokens: Annotated[int, Field(ge=8)] | None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def distribution(self) -> dict[str, str]:
        """name, family, domain and language of the test distribution."""
        about = {**self.data.about, **self.about}
        described = {key: str(about.get(key, "unknown")) for key in ("domain", "language")}
        return {"name": self.data.name, "family": self.data.family, **described}

    def prepare(self) -> str:
        """Fetch the data set."""
        return self.data.prepare()

    def prompts(self, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> Prompts:
        """The items and shots, as this tokenizer sees them. Raises DataError for fewer shots than asked."""
        if self.shots and self.split == "train":
            raise ConfigError("shots are drawn from the train split, so it cannot be tested with shots: shots=0")
        found = self.data.load(self.split)
        self.template.check(found)
        chosen = self._choose(found)
        shots = self._draw_shots()
        values = {
            "data": digest_of(chosen),
            "split": self.split,
            "items": {"n": len(chosen), "N": len(found.examples), "placement": PLACEMENT},
            "template": {f.name: getattr(self.template, f.name) for f in dataclasses.fields(self.template)},
            "labels": list(found.labels),
            "shots": {"k": len(shots), "ids": [shot.id for shot in shots], "data": digest_of(shots)},
            "bos": "first",
            "max_tokens": self.max_tokens,
            "tokenizer": tokenizer_fingerprint,
        }
        about = {"name": self.data.name, "split": self.split, "revision": found.rows.revision, "notes": found.notes}
        return Prompts(self.template, tokenizer, chosen, found.labels, shots, self.max_tokens, values, about)

    def _choose(self, found: Examples) -> list[Example]:
        total = len(found.examples)
        n = total if self.n is None else min(self.n, total)
        return [found.examples[i * total // n] for i in range(n)]

    def _draw_shots(self) -> list[Example]:
        if not self.shots:
            return []
        pool = train_examples(self.data).examples
        if len(pool) < self.shots:
            raise DataError(
                f"data {self.data.name}: {self.shots} shots were asked for, but its train split has {len(pool)} "
                "examples that are not test items; use fewer shots"
            )
        return random.Random(self.shot_seed).sample(list(pool), self.shots)


@dataclass(frozen=True, eq=False)
class Prompt:
    """One item as text: its prompt, and whether its passage was cut to fit."""

    example: Example
    text: str
    truncated: bool


@dataclass(frozen=True, eq=False)
class Prompts:
    """The items of a task for one tokenizer.

    values  what of the protocol the items fix
    about   where they came from: kept beside each score
    """

    template: Template
    tokenizer: PreTrainedTokenizerBase
    examples: Sequence[Example]
    labels: tuple[str, ...]
    shots: Sequence[Example]
    max_tokens: int | None
    values: dict[str, Any]
    about: dict[str, Any]
    _fitted: dict[Any, list[Prompt]] = field(default_factory=dict, repr=False)

    @property
    def attachments(self) -> dict[str, str]:
        """The file data.json beside a score: which source answered, its revision, and what was left out."""
        return {"data.json": json.dumps(self.about, indent=2) + "\n"}

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
        """Token ids of a text, the tokenizer's own special tokens before it."""
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        assert isinstance(ids, list)
        return [*leading_special_tokens(self.tokenizer), *ids]

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

    def _fit(self, example: Example, limit: int | None, tails: Sequence[str], extra: int) -> Prompt:
        text = self._text(example.fields)
        if limit is None or self.length(text, tails, extra) <= limit:
            return Prompt(example, text, truncated=False)
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

    def _text(self, fields: Mapping[str, str]) -> str:
        return self.template.prompt(fields, self.labels, self.shots)

    def _shortened(self, example: Example, kept: int) -> str:
        return self._text(self.template.shortened(example.fields, kept))

    def _too_long(self, example: Example, limit: int, why: str) -> str:
        return (
            f"item {example.id}: its prompt with {len(self.shots)} shots is longer than {limit} tokens, {why}; "
            "use fewer shots, a shorter template, or a model with a longer context"
        )

    def frame(self, prompts: Sequence[Prompt]) -> pd.DataFrame:
        """Columns item, document, n_tokens, n_bytes, truncated; one row per item."""
        return pd.DataFrame(
            {
                "item": [prompt.example.id for prompt in prompts],
                "document": [prompt.example.document for prompt in prompts],
                "n_tokens": [len(self.encode(prompt.text)) for prompt in prompts],
                "n_bytes": [len(prompt.text.encode("utf-8", "surrogatepass")) for prompt in prompts],
                "truncated": [int(prompt.truncated) for prompt in prompts],
            }
        )


def digest_of(examples: Sequence[Example]) -> str:
    """sha256 over ids, fields and answers."""
    rows = [[one.id, dict(one.fields), one.target, list(one.answers)] for one in examples]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


class PromptTest:
    """Base of test sets whose items are prompts."""

    _prompts: Prompts

    @property
    def documents(self) -> Sequence[str]:
        """See TestSet."""
        return self._prompts.documents

    @property
    def contents(self) -> Sequence[str]:
        """See quantbench.datasets.overlap."""
        return self._prompts.contents

    @property
    def token_rows(self) -> Sequence[Tensor]:
        """See TestSet."""
        return self._prompts.token_rows
