"""Exams: which of the letters A to D is the most likely continuation of a question with its four options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from quantbench.core.component import component
from quantbench.core.errors import ConfigError
from quantbench.datasets.examples import Example
from quantbench.datasets.exams import ExamSet, subject_of
from quantbench.models.handle import ModelHandle
from quantbench.tasks.label import LabelTask, LabelTest
from quantbench.tasks.prompts import Prompt, Prompts
from quantbench.tasks.reference import Reference
from quantbench.tasks.task import Outcome, Show


@component
class ExamTask(LabelTask):
    """Accuracy of the option letter with the highest log-likelihood; see LabelTask.

    shots  worked examples of the item's own subject, from the exam's development split
    """

    data: ExamSet
    calibrate: Literal["none"]

    def prompts(self, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> Prompts:
        """See PromptTask. Raises DataError for a question without an answer."""
        found = LabelTask.prompts(self, tokenizer, tokenizer_fingerprint)
        unanswered = [example.id for example in found.examples if not example.target]
        if unanswered:
            raise ConfigError(
                f"data {self.data.name}: {unanswered[0]} and {len(unanswered) - 1} others have no answer, so the split "
                f"{self.data.test_on!r} cannot be tested (test_on)"
            )
        shots: dict[str, list[Example]] = {}
        for shot in found.shots:
            shots.setdefault(subject_of(shot), []).append(shot)
        return ExamPrompts(**_fields(found), shots_of=shots)

    def load(self, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> ExamTest:
        """See Task."""
        found = LabelTask.load(self, tokenizer, tokenizer_fingerprint)
        return ExamTest(found.prompts, self.template.answered, self.normalize, self.calibrate)

    def _draw_shots(self) -> list[Example]:
        """The shots of all subjects: the prompts take each item's own ones."""
        drawn = self.data.shots(self.shots, self.shot_seed) if self.shots else {}
        return [shot for several in drawn.values() for shot in several]


@dataclass(frozen=True, eq=False)
class ExamPrompts(Prompts):
    """Prompts whose shots are those of the item's subject."""

    shots_of: Mapping[str, Sequence[Example]] = field(default_factory=dict)

    def _fit(self, example: Example, limit: int | None, tails: Sequence[str], extra: int) -> Prompt:
        shots = self.shots_of.get(subject_of(example), ())
        return Prompts(**_fields(self) | {"shots": shots})._fit(example, limit, tails, extra)


def _fields(prompts: Prompts) -> dict[str, Any]:
    """The fields of Prompts, without what was worked out from them."""
    return {f.name: getattr(prompts, f.name) for f in dataclasses.fields(Prompts) if not f.name.startswith("_")}


class ExamTest(LabelTest):
    """See LabelTest; stores the accuracy of each subject beside the score."""

    def score(
        self, handle: ModelHandle, task: str, reference: Reference | None, device: torch.device, show: Show
    ) -> Outcome:
        """See TestSet. The attachment subjects.csv has subject, n and accuracy."""
        found = LabelTest.score(self, handle, task, reference, device, show)
        return Outcome(found.items, {**found.attachments, "subjects.csv": by_subject(found.items)})


def by_subject(items: pd.DataFrame) -> str:
    """CSV of subject, number of items and accuracy."""
    subjects = items["item"].str.partition(":")[0].rename("subject")
    table = items.groupby(subjects)["accuracy"].agg(n="count", accuracy="mean")
    return table.to_csv(lineterminator="\n", float_format="%.6g")
