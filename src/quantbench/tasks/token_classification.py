"""Named entities: span-level F1 of the list "type: span; type: span" that the model writes."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from quantbench.core.component import component
from quantbench.datasets.examples import Example
from quantbench.datasets.spans import counts
from quantbench.tasks.generative import WritingTask, WritingTest


@component
class EntityTask(WritingTask):
    """Entities of a sentence; metric span_f1: 2 tp / (predicted + gold) over all items, types and texts compared."""

    def load(self, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> WritingTest:
        """See Task."""
        prompts = self.prompts(tokenizer, tokenizer_fingerprint)
        return WritingTest("entity spans", ("span_f1",), prompts, self.max_new_tokens, marks)


def marks(written: str, example: Example) -> dict[str, float]:
    """tp, n_predicted and n_gold of an item."""
    return {name: float(count) for name, count in counts(written, example.target).items()}
