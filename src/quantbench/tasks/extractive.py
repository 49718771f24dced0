"""Extractive question answering: exact match and F1 of what the model generates, as SQuAD scores them.

Rajpurkar et al. 2016 (arXiv 1606.05250): answers are compared in lower case, without punctuation, articles and
superfluous white space; F1 is over words; of several right answers the best one counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import TYPE_CHECKING

from quantbench.core.component import component
from quantbench.datasets.examples import Example
from quantbench.tasks.generative import GenerativeTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from quantbench.tasks.generative_items import GenerativeTest

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@component
class ExtractiveTask(GenerativeTask):
    """Questions on a passage, answered in free text; metrics exact_match and f1."""

    def load(self, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> GenerativeTest:
        """The items, with the columns exact_match and f1."""
        from quantbench.tasks.generative_items import GenerativeTest

        prompts = self.prompts(tokenizer, tokenizer_fingerprint)
        return GenerativeTest("extractive answers", ("exact_match", "f1"), prompts, self.max_new_tokens, matches)


def matches(generated: str, example: Example) -> dict[str, float]:
    """exact_match (0 or 1) and f1 of an answer."""
    return {
        "exact_match": max(float(normalized(generated) == normalized(answer)) for answer in example.answers),
        "f1": max(f1(generated, answer) for answer in example.answers),
    }


def normalized(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def f1(generated: str, answer: str) -> float:
    """Harmonic mean of precision and recall over words; 1 if both are empty."""
    ours, theirs = Counter(normalized(generated).split()), Counter(normalized(answer).split())
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * (ours & theirs).total() / (ours.total() + theirs.total())
