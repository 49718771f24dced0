"""Exams: which of the letters A to D is the most likely continuation of a question with its four options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from quantbench.core.component import component
from quantbench.core.errors import ConfigError
from quantbench.datasets.examples import Example
from quantbench.datasets.exams import ExamSet, subject_of
from quantbench.tasks.label import LabelTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from quantbench.tasks.exam_items import ExamTest
    from quantbench.tasks.prompts import Prompts


@component
class ExamTask(LabelTask):
    """Accuracy of the option letter with the highest log-likelihood, by the options of LabelTask.

    shots  worked examples of the item's own subject, from the exam's development split
    """

    shot_split: ClassVar[str] = "shots"

    data: ExamSet
    contextual_calibration: Literal[False]

    def prompts(self, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> Prompts:
        """The questions. Raises ConfigError for one without an answer, and as PromptTask.prompts."""
        found = LabelTask.prompts(self, tokenizer, tokenizer_fingerprint)
        unanswered = [example.id for example in found.examples if not example.target]
        if unanswered:
            raise ConfigError(
                f"data {self.origin.name}: {unanswered[0]} and {len(unanswered) - 1} others have no answer, so the "
                f"split {self.data.source.test!r} cannot be tested (`test`)"
            )
        return found

    def load(self, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> ExamTest:
        """The items; their score also holds the accuracy of each subject."""
        from quantbench.tasks.exam_items import ExamTest

        return ExamTest(self.prompts(tokenizer, tokenizer_fingerprint), self.normalize, self.contextual_calibration)

    def draw_shots(self) -> list[Example]:
        """Those of all subjects. Raises DataError if a subject has fewer."""
        drawn = self.data.shots(self.shots, self.shot_seed) if self.shots else {}
        return [shot for several in drawn.values() for shot in several]

    def shots_for(self, drawn: Sequence[Example]) -> Callable[[Example], Sequence[Example]]:
        """Those of the item's subject."""
        by_subject: dict[str, list[Example]] = {}
        for shot in drawn:
            by_subject.setdefault(subject_of(shot), []).append(shot)
        return lambda item: by_subject.get(subject_of(item), [])
