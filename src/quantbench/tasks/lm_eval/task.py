"""A task, tag or group of lm-eval as a component."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantbench.core.component import component
from quantbench.tasks.lm_eval.options import LmEvalOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from quantbench.tasks.lm_eval.item_set import LmEvalTestSet


@component
class LmEvalTask(LmEvalOptions):
    """One task, tag or group of lm-eval. A tag or group is one task whose items are those of all its subtasks.

    task          its name in lm-eval, or in `include_path`
    shots         worked examples before each question; None: the task's own number
    limit         only the first documents of each subtask
    include_path  a folder with task files of your own, which go before lm-eval's of the same name
    seed          draws the worked examples; lm-eval's own default is 1234
    chat          prompts go through the tokenizer's chat template, worked examples as turns of their own
    max_length    longer prompts lose their beginning; None: what the model takes, as lm-eval reads it
    batch_size    prompts at a time; "auto": as many as the GPU holds, 4 on a CPU. Changes last digits only
    origin        the test distribution, with the name of a calibration text if it is that; by default the task's name,
                  of unknown family
    """

    def prepare(self) -> str:
        """Download the data."""
        from quantbench.tasks.lm_eval.loading import load

        self.check_files()
        found = load(self.task, self.include_path)
        names = sorted({f"{t.DATASET_PATH}" for t in found.tasks.values()})
        count = sum(len(t.eval_docs) for t in found.tasks.values())
        return f"{self.task}: {', '.join(names)}, {count} documents, in the Hugging Face cache (HF_HOME)"

    def load(self, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> LmEvalTestSet:
        """Load the data and render all prompts.

        Raises ConfigError for an unknown name and for shots the task does not take, DataError for data that cannot be
        had, and for fewer worked examples than asked for.
        """
        from quantbench.tasks.lm_eval.item_set import LmEvalTestSet
        from quantbench.tasks.lm_eval.prepared import make

        self.check_files()
        return LmEvalTestSet(make(self, tokenizer, tokenizer_fingerprint))
