"""Calibration text from task data: examples through the same template as the evaluation's prompts."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from quantbench.core.component import component
from quantbench.core.errors import DataError
from quantbench.datasets.documents import Documents
from quantbench.datasets.examples import ExampleSet, train_examples
from quantbench.datasets.template import Template


@component
class RenderedRows:
    """One document an example: its zero-shot prompt, with `labels` what is expected behind it.

    The train split goes without the examples that are in the set's own test split, too.
    """

    data: ExampleSet
    template: Template
    labels: bool
    joiner: str = "\n\n"
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The data set's: a task on it is in-distribution."""
        return self.data.name

    @property
    def family(self) -> str:
        """The data set's."""
        return self.data.family

    def load(self, split: str) -> Documents:
        """See TextSource."""
        found = train_examples(self.data) if split == "train" else self.data.load(split)
        self.template.check(found)
        if self.labels and not all(example.target for example in found.examples):
            raise DataError(
                f"data {self.name}, split {split}: it has no answers to render; set calib.source.labels=false"
            )
        return Documents(
            name=self.name,
            split=split,
            documents=[self.template.rendered(example, found.labels, self.labels) for example in found.examples],
            revision=found.rows.revision,
            joiner=self.joiner,
            notes=found.notes,
            contents=[example.content for example in found.examples],
        )

    def prepare(self) -> str:
        """Fetch the data set."""
        return self.data.prepare()
