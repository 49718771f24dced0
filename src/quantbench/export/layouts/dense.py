"""Dequantized weights in the model's dtype, as `save_pretrained` writes a model in full precision."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from quantbench.export.saving import save_dense
from quantbench.export.subject import Reasons, Subject, Written, refuse_operations, untie_if_apart


class Dense:
    """Any weights; nothing that happens while the model runs."""

    name: ClassVar[str] = "dense"

    def check(self, subject: Subject) -> None:
        """Refuse operations."""
        reasons = Reasons(self.name)
        refuse_operations(subject, reasons, inputs=False)
        reasons.refuse(subject.run_id)

    def write(self, subject: Subject, folder: Path) -> Written:
        """Configuration, weights in shards, tokenizer."""
        untie_if_apart(subject.model)
        save_dense(subject.model, subject.tokenizer, folder)
        return Written("exact", ("Weights are dequantized: the file is as large as the full-precision model's.",))
