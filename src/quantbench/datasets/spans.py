"""Examples with tagged spans: named entities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import DataError
from quantbench.datasets.examples import Example, Examples, RowExamples, finish
from quantbench.datasets.rows import Row
from quantbench.datasets.values import as_yaml, located

NOTHING = "none"
"""What stands for a sentence without entities."""

Span = tuple[str, str]
"""An entity: its type and its text."""


@component
class SpanSet(RowExamples):
    """Sentences as lists of tokens and of tags.

    label  the column of tags
    tags   tag as found -> "O", "B-type" (begins a span), "I-type" (goes on with it), or a bare "type": then
           neighbouring tokens of one type are one span
    The template's slot is `text`: the tokens with spaces between. The target is "type: span; type: span", or "none".
    Sentences without tokens are skipped, and counted in a note.
    """

    tokens: Annotated[str, Field(min_length=1)] = "tokens"
    label: Annotated[str, Field(min_length=1)] = "ner_tags"
    tags: Annotated[dict[str, str], Field(min_length=1)]

    def load(self, split: str) -> Examples:
        """See ExampleSet; labels are the types of entities."""
        rows = self.rows(split)
        rows.require([self.tokens, self.label])
        examples, skipped = [], Counter[str]()
        for where, name, row in rows.each():
            with located(where):
                tokens, tags = self._tagged(row)
            if not tokens:
                skipped["without tokens"] += 1
                continue
            target = answer_of(spans_of(tokens, tags))
            examples.append(Example(name, {"text": " ".join(tokens)}, target, (target,)))
        types = dict.fromkeys(meaning.rpartition("-")[2] for meaning in self.tags.values() if meaning != "O")
        return finish(rows, examples, tuple(types), skipped)

    def _tagged(self, row: Row) -> tuple[list[str], list[str]]:
        """The tokens of a sentence, and what their tags mean."""
        tokens, tags = row[self.tokens], row[self.label]
        if not isinstance(tokens, list) or not isinstance(tags, list) or len(tokens) != len(tags):
            raise DataError(f"{self.tokens} and {self.label} must be lists of one length")
        if wrong := [token for token in tokens if not isinstance(token, str)]:
            raise DataError(f"the column {self.tokens!r} holds {wrong[0]!r} among its tokens, which is no text")
        found = [as_yaml(tag, self.label) for tag in tags]
        if unknown := [tag for tag in found if tag not in self.tags]:
            raise DataError(f"unknown tag {unknown[0]!r}; `tags` names {', '.join(self.tags)}")
        return tokens, [self.tags[tag] for tag in found]


def spans_of(tokens: Sequence[str], meanings: Sequence[str]) -> list[Span]:
    """The spans of a tagged sentence, as seqeval finds them: an I- tag without its B- begins a span."""
    from seqeval.metrics.sequence_labeling import get_entities

    tags = [meaning if meaning == "O" or "-" in meaning else f"I-{meaning}" for meaning in meanings]
    found: list[tuple[str, int, int]] = get_entities(tags)
    return [(kind, " ".join(tokens[first : last + 1])) for kind, first, last in found]


def answer_of(spans: Sequence[Span]) -> str:
    """Spans as the model is to write them."""
    return "; ".join(f"{kind}: {text}" for kind, text in spans) or NOTHING


def spans_in(text: str) -> Counter[Span]:
    """The spans that a model wrote; what is not of the form "type: span" is no span. Case and white space are free."""
    found: Counter[Span] = Counter()
    for part in text.split(";"):
        kind, colon, span = part.partition(":")
        if colon and kind.strip() and span.strip():
            found[kind.strip().lower(), " ".join(span.split()).lower()] += 1
    return found


def span_counts(predicted: str, expected: str) -> Mapping[str, int]:
    """tp, n_predicted and n_gold of one sentence, duplicates counted."""
    ours, theirs = spans_in(predicted), spans_in(expected)
    return {"tp": (ours & theirs).total(), "n_predicted": ours.total(), "n_gold": theirs.total()}
