"""What tasks share whose answer is written by the model: greedy, up to the end of the line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import pandas as pd
import torch
from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import ConfigError, ModelError
from quantbench.datasets.examples import Example
from quantbench.models.folder import max_length
from quantbench.models.handle import ModelHandle
from quantbench.tasks.loglikelihood import greedy
from quantbench.tasks.prompts import Prompts, PromptTask, PromptTest
from quantbench.tasks.reference import Reference
from quantbench.tasks.task import Outcome, Show


@component
class WritingTask(PromptTask):
    """A task on prompts that the model goes on with.

    max_new_tokens  where an answer is cut off that has not ended; it ends before the first line break
    """

    max_new_tokens: Annotated[int, Field(ge=1)]


class WritingTest(PromptTest):
    """The items of a writing task for one tokenizer; see TestSet.

    marks  from what was written and the example to numbers of the item
    """

    uses_reference = False

    def __init__(
        self,
        kind: str,
        metrics: tuple[str, ...],
        prompts: Prompts,
        max_new_tokens: int,
        marks: Callable[[str, Example], Mapping[str, float]],
    ) -> None:
        self.metrics = metrics
        self._prompts, self._marks, self._new = prompts, marks, max_new_tokens
        self._kind = kind

    @property
    def protocol_values(self) -> dict[str, Any]:
        """See TestSet."""
        own = {"kind": self._kind, "decoding": "greedy, to the first line break", "max_new_tokens": self._new}
        return {**own, **self._prompts.values}

    @property
    def n_positions(self) -> int:
        """See TestSet."""
        fitted = self._prompts.fitted(None, [""], self._new)
        return sum(len(self._prompts.encode(prompt.text)) + self._new for prompt in fitted)

    def check_length(self, limit: int | None, task: str) -> None:
        """See TestSet."""
        try:
            self._prompts.fitted(limit, [""], self._new)
        except ConfigError as error:
            raise ConfigError(f"task {task}: {error}") from error

    def score(
        self, handle: ModelHandle, task: str, reference: Reference | None, device: torch.device, show: Show
    ) -> Outcome:
        """See TestSet. The attachment answers.csv holds what was written."""
        del reference
        prompts = self._prompts.fitted(max_length(handle.model.config), [""], self._new)
        encoded = [self._prompts.encode(prompt.text) for prompt in prompts]
        cached = not handle.has_runtime_operations
        try:
            with torch.no_grad(), handle.on_device(device) as model:
                found = greedy(model, encoded, self._new, self._stopped, cached, device, show)
        except ModelError as error:
            raise ModelError(f"task {task}: {error}") from error
        written = [self._text(tokens) for tokens in found]
        marks = pd.DataFrame(
            [
                dict(self._marks(text, prompt.example)) | {"new_tokens": len(tokens)}
                for text, tokens, prompt in zip(written, found, prompts, strict=True)
            ]
        )
        answers = pd.DataFrame({"item": [prompt.example.id for prompt in prompts], "written": written})
        items = pd.concat([self._prompts.frame(prompts), marks], axis=1)
        return Outcome(items, {**self._prompts.attachments, "answers.csv": answers.to_csv(index=False)})

    def _text(self, tokens: Sequence[int]) -> str:
        text = self._prompts.tokenizer.decode(list(tokens), skip_special_tokens=True)
        assert isinstance(text, str)
        return text.lstrip(" ").partition("\n")[0].strip()

    def _stopped(self, tokens: Sequence[int]) -> bool:
        tokenizer = self._prompts.tokenizer
        return tokens[-1] == tokenizer.eos_token_id or "\n" in tokenizer.decode(list(tokens), skip_special_tokens=True)
