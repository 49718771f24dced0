"""Label tasks: which of a few labels is the most likely continuation of the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from quantbench.core.component import component
from quantbench.core.errors import ConfigError
from quantbench.tasks.prompt_task import PromptTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from quantbench.tasks.label_items import LabelTest


@component
class LabelTask(PromptTask):
    """Accuracy of the label whose text has the highest log-likelihood behind the prompt.

    normalize  "tokens" or "bytes": log-likelihood per token or byte of the label's text; "none": its sum
    contextual_calibration  minus the log-likelihood of the same label behind the same prompt whose slots hold "N/A"
                            (Zhao et al. 2021, arXiv 2102.09690, in log space)
    """

    normalize: Literal["none", "tokens", "bytes"]
    contextual_calibration: bool

    def load(self, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> LabelTest:
        """The items. Raises ConfigError for labels of which one begins with another."""
        from quantbench.tasks.label_items import LabelTest

        prompts = self.prompts(tokenizer, tokenizer_fingerprint)
        if len(prompts.labels) < 2:
            raise ConfigError(f"data {self.origin.name}: a label task needs at least two labels, not {prompts.labels}")
        return LabelTest(prompts, self.normalize, self.contextual_calibration)
