"""Items of exams: label scores, and the accuracy of each subject."""

from __future__ import annotations

import pandas as pd
import torch

from quantbench.core.progress import ProgressCallback
from quantbench.models.handle import ModelHandle
from quantbench.tasks.label_items import LabelTest
from quantbench.tasks.reference import Reference
from quantbench.tasks.task import Outcome


class ExamTest(LabelTest):
    """The test set of an exam for one tokenizer."""

    def score(
        self,
        handle: ModelHandle,
        task: str,
        reference: Reference | None,
        device: torch.device,
        progress: ProgressCallback,
    ) -> Outcome:
        """As LabelTest; the attachment subjects.csv has subject, n and accuracy."""
        found = super().score(handle, task, reference, device, progress)
        return Outcome(found.items, {**found.attachments, "subjects.csv": by_subject(found.items)})


def by_subject(items: pd.DataFrame) -> str:
    """CSV of subject, number of items and accuracy."""
    subjects = items["item"].str.partition(":")[0].rename("subject")
    table = items.groupby(subjects)["accuracy"].agg(n="count", accuracy="mean")
    return table.to_csv(lineterminator="\n", float_format="%.6g")
