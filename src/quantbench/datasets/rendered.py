"""Calibration text from task data: examples through the same template as the evaluation's prompts."""

from __future__ import annotations

from quantbench.core.component import component
from quantbench.core.errors import DataError
from quantbench.core.origin import Origin
from quantbench.datasets.documents import Documents, check_reachable
from quantbench.datasets.examples import ExampleSet, train_examples
from quantbench.datasets.template import Template


@component
class RenderedExamples:
    """One document an example: its zero-shot prompt, with `with_answers` what is expected behind it.

    The train split goes without the examples that are in the set's own test split, too.
    """

    data: ExampleSet
    template: Template
    with_answers: bool = True
    joiner: str = "\n\n"

    @property
    def origin(self) -> Origin:
        """The data set's: a task on it is in-distribution."""
        return self.data.origin

    def check_reachable(self, split: str) -> None:
        """Raise DataError if the data are neither here nor can be fetched."""
        check_reachable(self.data, split)

    def load(self, split: str) -> Documents:
        """See TextSource."""
        found = train_examples(self.data) if split == "train" else self.data.load(split)
        self.template.check(found)
        if self.with_answers and not all(example.target for example in found.examples):
            raise DataError(
                f"data {self.origin.name}, split {split}: it has no answers to render; set calib.with_answers=false"
            )
        return Documents(
            name=self.origin.name,
            split=split,
            documents=[self.template.rendered(example, found.labels, self.with_answers) for example in found.examples],
            revision=found.rows.revision,
            joiner=self.joiner,
            notes=found.notes,
            contents=[example.content for example in found.examples],
            processing=found.rows.processing,
            places=[f"row {example.id}" for example in found.examples],
        )

    def prepare(self) -> str:
        """Fetch the data set."""
        return self.data.prepare()
