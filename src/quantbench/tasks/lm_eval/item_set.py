"""The items of an lm-eval task for one tokenizer, scored by lm-eval itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from quantbench.core.errors import ConfigError
from quantbench.core.progress import ProgressCallback
from quantbench.models.handle import ModelHandle
from quantbench.tasks.lm_eval.prepared import Prepared
from quantbench.tasks.reference import Reference
from quantbench.tasks.task import Outcome


class LmEvalTestSet:
    """The test set of an lm-eval task."""

    uses_reference = False

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared

    @property
    def protocol_values(self) -> dict[str, Any]:
        """All that fixes a score: versions, configurations, and the prompts themselves."""
        return self.prepared.protocol_values

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those of lm-eval that per-item values give, and means over subtasks where lm-eval takes such."""
        return tuple(next(iter(self.prepared.columns.values())))

    @property
    def documents(self) -> tuple[str, ...]:
        """Each document as it is asked without worked examples, with the first of its answers."""
        return self.prepared.documents

    @property
    def contents(self) -> tuple[str, ...]:
        """What each document is about: the longest text of its fields."""
        return self.prepared.contents

    @cached_property
    def token_rows(self) -> Sequence[Tensor]:
        """The documents."""
        return [torch.tensor(row, dtype=torch.int64) for row in self._tokenized(self.documents)]

    @cached_property
    def n_positions(self) -> int:
        """Tokens of all prompts, judged by some of them; and of what is generated, at the most."""
        rows = self._tokenized(self.prepared.prompts)
        mean = sum(map(len, rows)) / len(rows)
        return int((mean + self.prepared.generates) * self.prepared.n_prompts)

    def _tokenized(self, texts: Sequence[str]) -> list[list[int]]:
        ids = self.prepared.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        assert isinstance(ids, list)
        return ids

    def check_length(self, limit: int | None, task: str) -> None:
        """Raise ConfigError if the model takes too few tokens to generate an answer. Prompts are cut, and counted."""
        given, generates = self.prepared.options.max_length, self.prepared.generates
        if given is not None and limit is not None and given > limit:
            raise ConfigError(f"task {task}: max_length={given}, but the model takes at most {limit} tokens")
        length = given or limit
        if length is not None and generates >= length:
            raise ConfigError(
                f"task {task} generates up to {generates} tokens, but the model takes at most {length}, prompt "
                "included: leave this task out"
            )

    def score(
        self,
        handle: ModelHandle,
        task: str,
        reference: Reference | None,  # noqa: ARG002 - nothing is compared with full precision
        device: torch.device,
        progress: ProgressCallback,
    ) -> Outcome:
        """Have lm-eval evaluate the model. Raises DataError if it asks something else than what was prepared."""
        from quantbench.tasks.lm_eval.scoring import score

        return score(self.prepared, handle, task, device, progress)
