"""Token classification: span-level F1 of the list "type: span; type: span" that the model generates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantbench.core.component import component
from quantbench.datasets.examples import Example
from quantbench.datasets.spans import span_counts
from quantbench.tasks.generative import GenerativeTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from quantbench.tasks.generative_items import GenerativeTest


@component
class TokenClassificationTask(GenerativeTask):
    """Named entities of a sentence.

    Metric span_f1: 2 tp / (predicted + gold) over all items, types and texts compared.
    """

    def load(self, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> GenerativeTest:
        """The items, with the columns tp, n_predicted and n_gold."""
        from quantbench.tasks.generative_items import GenerativeTest

        prompts = self.prompts(tokenizer, tokenizer_fingerprint)
        return GenerativeTest("entity spans", ("span_f1",), prompts, self.max_new_tokens, score_spans)


def score_spans(generated: str, example: Example) -> dict[str, float]:
    """tp, n_predicted and n_gold of an item."""
    return {name: float(count) for name, count in span_counts(generated, example.target).items()}
