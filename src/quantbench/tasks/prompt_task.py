"""What tasks on prompts share: which items, which shots, and what fixes a score."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import ConfigError, DataError
from quantbench.core.origin import Origin
from quantbench.datasets.documents import check_reachable
from quantbench.datasets.examples import Example, Examples, ExampleSet, train_examples
from quantbench.datasets.template import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from quantbench.tasks.prompts import Prompts

PLACEMENT = "item i of n is example floor(i * N / n) of N"

CLUSTERS = "items whose first field is the same text"


@component
class PromptTask:
    """Options of every task on prompts.

    split      the split that is tested
    n          how many items, evenly spaced over the split; null: all
    shots      worked examples before the item, drawn with `shot_seed` from the train split without what the tested
               split holds, too; the same for all items
    max_tokens longest prompt with its answer; null: what the model takes. In a longer one the middle of the passage
               is cut, never another slot; the item column `truncated` counts them
    """

    shot_split: ClassVar[str] = "train"

    data: ExampleSet
    template: Template
    split: Annotated[str, Field(min_length=1)]
    n: Annotated[int, Field(ge=1)] | None
    shots: Annotated[int, Field(ge=0)]
    shot_seed: Annotated[int, Field(ge=0)]
    max_tokens: Annotated[int, Field(ge=8)] | None

    @property
    def chats(self) -> bool:
        """Whether prompts go through the tokenizer's chat template."""
        return False

    @property
    def origin(self) -> Origin:
        """The data set's."""
        return self.data.origin

    def check_reachable(self) -> None:
        """Raise DataError if the data are neither here nor can be fetched."""
        check_reachable(self.data, self.split)

    def prepare(self) -> str:
        """Fetch the data set."""
        return self.data.prepare()

    def prompts(self, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> Prompts:
        """The items and shots, as this tokenizer sees them. Raises DataError for fewer shots than asked."""
        from quantbench.models.tokenizer import chat_fingerprint
        from quantbench.tasks.prompts import Prompts

        if self.shots and self.split == self.shot_split:
            raise ConfigError(
                f"shots are drawn from the {self.shot_split} split, so it cannot be tested with shots: shots=0"
            )
        found = self.data.load(self.split)
        self.template.check(found)
        chosen = self._choose(found)
        shots = self.draw_shots()
        values = {
            "data": digest_of(chosen),
            "split": self.split,
            "items": {"n": len(chosen), "N": len(found.examples), "placement": PLACEMENT},
            "template": dataclasses.asdict(self.template),
            "labels": list(found.labels),
            "shots": {"k": len(shots), "ids": [shot.id for shot in shots], "data": digest_of(shots)},
            "bos": "first",
            "max_tokens": self.max_tokens,
            "clusters": CLUSTERS,
            "tokenizer": tokenizer_fingerprint,
            **found.rows.processing,
        }
        if self.chats:
            values |= {"chat_template": chat_fingerprint(tokenizer), "bos": "of the chat template"}
        return Prompts(
            template=self.template,
            tokenizer=tokenizer,
            examples=chosen,
            labels=found.labels,
            shots_for=self.shots_for(shots),
            max_tokens=self.max_tokens,
            chat=self.chats,
            values=values,
            provenance={
                "name": self.origin.name,
                "split": self.split,
                "revision": found.rows.revision,
                "notes": found.notes,
            },
        )

    def draw_shots(self) -> list[Example]:
        """The worked examples of all items. Raises DataError if there are fewer."""
        if not self.shots:
            return []
        pool = train_examples(self.data, self.split).examples
        if len(pool) < self.shots:
            raise DataError(
                f"data {self.origin.name}: {self.shots} shots were asked for, but its train split has {len(pool)} "
                "examples that are not test items; use fewer shots"
            )
        return random.Random(self.shot_seed).sample(list(pool), self.shots)

    def shots_for(self, drawn: Sequence[Example]) -> Callable[[Example], Sequence[Example]]:
        """Which of those drawn stand before an item: here all of them before each."""
        return lambda _item: drawn

    def _choose(self, found: Examples) -> list[Example]:
        total = len(found.examples)
        n = total if self.n is None else min(self.n, total)
        return [found.examples[i * total // n] for i in range(n)]


def digest_of(examples: Sequence[Example]) -> str:
    """sha256 over ids, fields and answers."""
    rows = [[one.id, dict(one.fields), one.target, list(one.answers)] for one in examples]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
