"""How an example becomes a prompt: an instruction, an item with named slots, and what precedes the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import ConfigError
from quantbench.datasets.examples import Example, Examples
from quantbench.datasets.fill import slots

ELLIPSIS = " ... "


@component
class Template:
    """A prompt is: instruction, blank line, shots with their answers, the item; a shot or item ends at the answer.

    instruction  may name the labels by {labels}
    item         a text with {slot}s of the data set; ends where the answer begins
    answer       how an answer stands behind the item: " {answer}"
    passage      the slot that is cut in its middle where a prompt is longer than the model's context; null: none
    between      what stands between instruction, shots and item
    """

    instruction: str
    item: Annotated[str, Field(min_length=1)]
    answer: Annotated[str, Field(min_length=1)]
    passage: str | None
    between: str = "\n\n"

    def __post_init__(self) -> None:
        if slots(self.answer) != ["answer"]:
            raise ConfigError(f"answer={self.answer!r}: expected a text with the slot {{answer}}, and no other")
        if set(slots(self.instruction)) - {"labels"}:
            raise ConfigError(f"instruction={self.instruction!r}: its only slot is {{labels}}")
        if self.passage is not None and self.passage not in slots(self.item):
            raise ConfigError(f"passage={self.passage!r}: `item` has no such slot")

    def check(self, examples: Examples) -> None:
        """Raise ConfigError if the item has slots that the data set does not fill."""
        if missing := sorted(set(slots(self.item)) - set(examples.slots)):
            raise ConfigError(
                f"template: {{{missing[0]}}} is no field of data {examples.rows.name}, which has "
                f"{', '.join(examples.slots)}; choose another `template` or change `columns`"
            )

    def answered(self, target: str) -> str:
        """What follows an item."""
        return self.answer.format(answer=target)

    def before(self, labels: Sequence[str], shots: Sequence[Example]) -> str:
        """Everything before the item."""
        parts = [self.instruction.format(labels=_listed(labels))] if self.instruction else []
        parts += [self.item.format_map(shot.fields) + self.answered(shot.target) for shot in shots]
        return "".join(part + self.between for part in parts)

    def prompt(self, fields: Mapping[str, str], labels: Sequence[str], shots: Sequence[Example] = ()) -> str:
        """The whole prompt, up to where the answer begins."""
        return self.before(labels, shots) + self.item.format_map(fields)

    def rendered(self, example: Example, labels: Sequence[str], answers: bool) -> str:
        """An example as calibration text: the zero-shot prompt, and with `answers` what is expected behind it."""
        return self.prompt(example.fields, labels) + (self.answered(example.target) if answers else "")

    def shortened(self, fields: Mapping[str, str], kept: int) -> dict[str, str]:
        """The fields with the middle of the passage cut out, so that `kept` of its characters are left."""
        assert self.passage is not None
        text = fields[self.passage]
        head = (kept + 1) // 2
        cut = text[:head].rstrip() + ELLIPSIS + text[len(text) - (kept - head) :].lstrip() if kept else ELLIPSIS.strip()
        return {**fields, self.passage: cut}


def _listed(labels: Sequence[str]) -> str:
    """One, two or three: "positive, negative or neutral"."""
    if len(labels) < 2:
        return "".join(labels)
    return f"{', '.join(labels[:-1])} or {labels[-1]}"
