"""Label tasks: which of a few labels is the most likely continuation of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from quantbench.core.component import component
from quantbench.core.errors import ConfigError
from quantbench.models.folder import max_length
from quantbench.models.handle import ModelHandle
from quantbench.tasks.loglikelihood import Continuation, check_finite, loglikelihoods
from quantbench.tasks.prompts import Prompt, Prompts, PromptTask, PromptTest
from quantbench.tasks.reference import Reference
from quantbench.tasks.task import Outcome, Show

CONTENT_FREE = "N/A"
"""What every slot holds in the content-free prompt."""


@component
class LabelTask(PromptTask):
    """Accuracy of the label whose text has the highest log-likelihood behind the prompt.

    normalize  "tokens" or "bytes": log-likelihood per token or byte of the label's text; "none": its sum
    calibrate  "content_free": minus the log-likelihood of the same label behind the same prompt whose slots hold "N/A"
               (Zhao et al. 2021, arXiv 2102.09690, in log space)
    """

    normalize: Literal["none", "tokens", "bytes"]
    calibrate: Literal["none", "content_free"]

    def load(self, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> LabelTest:
        """See Task. Raises ConfigError for labels of which one begins with another."""
        prompts = self.prompts(tokenizer, tokenizer_fingerprint)
        if len(prompts.labels) < 2:
            raise ConfigError(f"data {self.data.name}: a label task needs at least two labels, not {prompts.labels}")
        test = LabelTest(prompts, self.template.answered, self.normalize, self.calibrate)
        test.requests(Prompt(prompts.examples[0], prompts.template.prompt(prompts.examples[0].fields, ()), False))
        return test


class LabelTest(PromptTest):
    """The items of a label task for one tokenizer; see TestSet."""

    uses_reference = False
    metrics = ("accuracy", "macro_f1")

    def __init__(self, prompts: Prompts, answered: Any, normalize: str, calibrate: str) -> None:
        self._prompts = prompts
        self._tails = [answered(label) for label in prompts.labels]
        self._normalize, self._calibrate = normalize, calibrate

    @property
    def prompts(self) -> Prompts:
        """The items."""
        return self._prompts

    @property
    def protocol_values(self) -> dict[str, Any]:
        """See TestSet."""
        own = {"kind": "label by log-likelihood", "normalize": self._normalize, "calibrate": self._calibrate}
        return {**own, **self._prompts.values}

    @property
    def n_positions(self) -> int:
        """See TestSet."""
        return sum(len(self._prompts.encode(prompt.text)) for prompt in self._prompts.fitted(None, self._tails))

    def check_length(self, limit: int | None, task: str) -> None:
        """See TestSet."""
        try:
            self._prompts.fitted(limit, self._tails)
        except ConfigError as error:
            raise ConfigError(f"task {task}: {error}") from error

    def requests(self, prompt: Prompt) -> list[Continuation]:
        """The labels as continuations: the tokens of prompt and label behind what all of them have in common.

        Where the end of the prompt and the beginning of a label make one token, scoring begins with that token.
        """
        alone = self._prompts.encode(prompt.text)
        whole = [self._prompts.encode(prompt.text + tail) for tail in self._tails]
        start = min(_common(alone, tokens) for tokens in whole)
        for one, ours in enumerate(whole):
            for other, theirs in enumerate(whole):
                if one != other and theirs[: len(ours)] == ours:
                    names = self._prompts.labels
                    raise ConfigError(
                        f"the labels {names[one]!r} and {names[other]!r} cannot be told apart: the tokens of the first "
                        f"({ours[start:]}) begin those of the second ({theirs[start:]}), so it would always be at "
                        "least as likely. Choose other texts in the label map"
                    )
        return [Continuation(tuple(tokens), max(start, 1)) for tokens in whole]

    def score(
        self, handle: ModelHandle, task: str, reference: Reference | None, device: torch.device, show: Show
    ) -> Outcome:
        """See TestSet. Columns accuracy, gold, predicted (numbers of labels), ll_0.., margin (best minus other)."""
        del reference
        prompts = self._prompts.fitted(max_length(handle.model.config), self._tails)
        asked = [self._content_free(prompts[0]), *prompts] if self._calibrate == "content_free" else prompts
        requests = [self.requests(prompt) for prompt in asked]
        with torch.no_grad(), handle.on_device(device) as model:
            flat = loglikelihoods(model, [one for several in requests for one in several], device, show)
        width = len(self._tails)
        check_finite(flat, task, [prompt.example.id for prompt in asked for _ in range(width)])
        found = torch.tensor(flat, dtype=torch.float64).reshape(-1, width)
        values = found / torch.tensor([self._divisors(several) for several in requests], dtype=torch.float64)
        if self._calibrate == "content_free":
            found, values = found[1:], values[1:] - values[:1]
        gold = torch.tensor([self._prompts.labels.index(prompt.example.target) for prompt in prompts])
        items = pd.concat([self._prompts.frame(prompts), _columns(found, values, gold)], axis=1)
        return Outcome(items, self._prompts.attachments)

    def _content_free(self, like: Prompt) -> Prompt:
        fields = dict.fromkeys(like.example.fields, CONTENT_FREE)
        return Prompt(
            like.example, self._prompts.template.prompt(fields, self._prompts.labels, self._prompts.shots), False
        )

    def _divisors(self, several: Sequence[Continuation]) -> list[float]:
        if self._normalize == "tokens":
            return [float(len(one.tokens) - one.start) for one in several]
        if self._normalize == "bytes":
            return [float(len(tail.encode())) for tail in self._tails]
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
