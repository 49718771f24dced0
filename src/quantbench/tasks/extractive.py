"""Extractive question answering: exact match and F1 of what the model writes, as SQuAD scores them.

Rajpurkar et al. 2016 (arXiv 1606.05250): answers are compared in lower case, without punctuation, articles and
superfluous white space; F1 is over words; of several right answers the best one counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter

from transformers import PreTrainedTokenizerBase

from quantbench.core.component import component
from quantbench.datasets.examples import Example
from quantbench.tasks.generative import WritingTask, WritingTest

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@component
class ExtractiveTask(WritingTask):
    """Questions on a passage, answered in free text; metrics exact_match and f1."""

    def load(self, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> WritingTest:
        """See Task."""
        prompts = self.prompts(tokenizer, tokenizer_fingerprint)
        return WritingTest("extractive answers", ("exact_match", "f1"), prompts, self.max_new_tokens, marks)


def marks(written: str, example: Example) -> dict[str, float]:
    """exact_match (0 or 1) and f1 of an answer."""
    return {
        "exact_match": max(float(normalized(written) == normalized(answer)) for answer in example.answers),
        "f1": max(f1(written, answer) for answer in example.answers),
    }


def normalized(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def f1(written: str, answer: str) -> float:
    """Harmonic mean of precision and recall over words; 1 if both are empty."""
    ours, theirs = Counter(normalized(written).split()), Counter(normalized(answer).split())
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * (ours & theirs).total() / (ours.total() + theirs.total())
