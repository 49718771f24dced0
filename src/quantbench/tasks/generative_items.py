"""Items of generative tasks: what the model writes behind each prompt, and how good it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from quantbench.core.errors import ModelError
from quantbench.core.progress import ProgressCallback
from quantbench.datasets.examples import Example
from quantbench.models.folder import max_length
from quantbench.models.handle import ModelHandle
from quantbench.tasks.decoding import greedy
from quantbench.tasks.prompt_items import PromptTest
from quantbench.tasks.prompts import Prompts
from quantbench.tasks.reference import Reference
from quantbench.tasks.task import Outcome


class GenerativeTest(PromptTest):
    """The test set of a generative task for one tokenizer.

    measure  from what was generated and the example to numbers of the item
    """

    def __init__(
        self,
        kind: str,
        metrics: tuple[str, ...],
        prompts: Prompts,
        max_new_tokens: int,
        measure: Callable[[str, Example], Mapping[str, float]],
    ) -> None:
        super().__init__(prompts, [""], max_new_tokens)
        self.metrics = metrics
        self._kind, self._measure = kind, measure

    @property
    def own_protocol(self) -> dict[str, Any]:
        """How an answer is generated."""
        return {
            "kind": self._kind,
            "decoding": "greedy, to the first line break",
            "max_new_tokens": self.new_tokens,
        }

    def score(
        self,
        handle: ModelHandle,
        task: str,
        reference: Reference | None,  # noqa: ARG002 - nothing is compared with full precision
        device: torch.device,
        progress: ProgressCallback,
    ) -> Outcome:
        """Columns of `measure`, new_tokens, and unfinished: 1 for an answer that was cut at max_new_tokens.

        The attachment answers.csv holds what was generated.
        """
        prompts = self.fitted(max_length(handle.model.config))
        encoded = [self.prompts.encode(prompt.text) for prompt in prompts]
        cached = not handle.has_runtime_operations
        try:
            with torch.no_grad(), handle.on_device(device) as model:
                found = greedy(model, encoded, self.new_tokens, self.ended, cached, handle.mixing, device, progress)
        except ModelError as error:
            raise ModelError(f"task {task}: {error}") from error
        answers = [self.answer(tokens) for tokens in found]
        measured = pd.DataFrame(
            [
                dict(self._measure(text, prompt.example))
                | {"new_tokens": len(tokens), "unfinished": int(not self.ended(tokens))}
                for text, tokens, prompt in zip(answers, found, prompts, strict=True)
            ]
        )
        kept = pd.DataFrame({"item": [prompt.example.id for prompt in prompts], "generated": answers})
        items = pd.concat([self.prompts.frame(prompts), measured], axis=1)
        return Outcome(items, {**self.prompts.attachments, "answers.csv": kept.to_csv(index=False)})

    def answer(self, tokens: Sequence[int]) -> str:
        """The first line of what was generated, without white space at its ends."""
        return self._decoded(tokens).lstrip(" ").partition("\n")[0].strip()

    def ended(self, tokens: Sequence[int]) -> bool:
        """Whether an answer is over: at a line break, or the end of the text."""
        return tokens[-1] == self.prompts.tokenizer.eos_token_id or "\n" in self._decoded(tokens)

    def _decoded(self, tokens: Sequence[int]) -> str:
        text = self.prompts.tokenizer.decode(list(tokens), skip_special_tokens=True)
        assert isinstance(text, str)
        return text
