"""Items of label tasks: the labels' log-likelihoods behind each prompt, and the decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from quantbench.core.errors import ConfigError
from quantbench.core.progress import ProgressCallback
from quantbench.models.folder import max_length
from quantbench.models.handle import ModelHandle
from quantbench.tasks.loglikelihood import Continuation, check_finite, loglikelihoods
from quantbench.tasks.prompt_items import PromptTest
from quantbench.tasks.prompts import Prompt, Prompts
from quantbench.tasks.reference import Reference
from quantbench.tasks.task import Outcome

CONTENT_FREE = "N/A"
"""What every slot holds in the content-free prompt."""


class LabelTest(PromptTest):
    """The test set of a label task for one tokenizer.

    Raises ConfigError for labels of which one begins with another.
    """

    metrics = ("accuracy", "macro_f1")

    def __init__(self, prompts: Prompts, normalize: str, contextual_calibration: bool) -> None:
        super().__init__(prompts, [prompts.template.answered(label) for label in prompts.labels])
        self._normalize, self._calibrated = normalize, contextual_calibration
        self.requests(prompts.whole(prompts.examples[0]))

    @property
    def own_protocol(self) -> dict[str, Any]:
        """How a label is chosen."""
        return {
            "kind": "label by log-likelihood",
            "normalize": self._normalize,
            "contextual_calibration": self._calibrated,
        }

    def requests(self, prompt: Prompt) -> list[Continuation]:
        """The labels as continuations: the tokens of prompt and label behind what all of them have in common.

        Where the end of the prompt and the beginning of a label make one token, scoring begins with that token.
        """
        alone = self.prompts.encode(prompt.text)
        whole = [self.prompts.encode(prompt.text + tail) for tail in self.tails]
        start = min(_common(alone, tokens) for tokens in whole)
        for one, ours in enumerate(whole):
            for other, theirs in enumerate(whole):
                if one != other and theirs[: len(ours)] == ours:
                    names = self.prompts.labels
                    raise ConfigError(
                        f"the labels {names[one]!r} and {names[other]!r} cannot be told apart: the tokens of the first "
                        f"({ours[start:]}) begin those of the second ({theirs[start:]}), so it would always be at "
                        "least as likely. Choose other texts in the label map"
                    )
        return [Continuation(tuple(tokens), max(start, 1)) for tokens in whole]

    def score(
        self,
        handle: ModelHandle,
        task: str,
        reference: Reference | None,  # noqa: ARG002 - nothing is compared with full precision
        device: torch.device,
        progress: ProgressCallback,
    ) -> Outcome:
        """Columns accuracy, gold, predicted (numbers of labels), n_labels, ll_0.., margin (best minus other)."""
        prompts = self.fitted(max_length(handle.model.config))
        asked = [self._content_free(prompts[0]), *prompts] if self._calibrated else prompts
        requests = [self.requests(prompt) for prompt in asked]
        with torch.no_grad(), handle.on_device(device) as model:
            flat = loglikelihoods(
                model, [one for several in requests for one in several], handle.mixing, device, progress
            )
        width = len(self.tails)
        check_finite(flat, task, [prompt.example.id for prompt in asked for _ in range(width)])
        found = torch.tensor(flat, dtype=torch.float64).reshape(-1, width)
        values = found / torch.tensor([self._divisors(several) for several in requests], dtype=torch.float64)
        if self._calibrated:
            found, values = found[1:], values[1:] - values[:1]
        gold = torch.tensor([self.prompts.labels.index(prompt.example.target) for prompt in prompts])
        items = pd.concat([self.prompts.frame(prompts), _columns(found, values, gold)], axis=1)
        return Outcome(items, self.prompts.attachments)

    def _content_free(self, like: Prompt) -> Prompt:
        return self.prompts.whole(like.example, dict.fromkeys(like.example.fields, CONTENT_FREE))

    def _divisors(self, several: Sequence[Continuation]) -> list[float]:
        if self._normalize == "tokens":
            return [float(len(one.tokens) - one.start) for one in several]
        if self._normalize == "bytes":
            return [float(len(tail.encode())) for tail in self.tails]
        return [1.0] * len(several)


def _columns(found: Tensor, values: Tensor, gold: Tensor) -> pd.DataFrame:
    """Item columns from log-likelihoods and decision values [n, K], and the right labels' numbers [n]."""
    predicted = values.argmax(1)
    right = values.gather(1, gold[:, None])[:, 0]
    others = values.scatter(1, gold[:, None], -torch.inf).amax(1)
    columns = {
        "accuracy": (predicted == gold).double(),
        "gold": gold.double(),
        "predicted": predicted.double(),
        "n_labels": torch.full_like(right, values.shape[1]),
        "margin": right - others,
        **{f"ll_{k}": found[:, k] for k in range(found.shape[1])},
    }
    return pd.DataFrame({name: column.numpy() for name, column in columns.items()})


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    length = 0
    for ours, theirs in zip(one, other, strict=False):
        if ours != theirs:
            break
        length += 1
    return length
