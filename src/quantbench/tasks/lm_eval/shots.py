"""Worked examples of lm-eval tasks: how many stand before a question, and where they come from."""

from __future__ import annotations

from typing import Any

from quantbench.core.errors import ConfigError, DataError
from quantbench.tasks.lm_eval.options import LmEvalOptions


def set_shots(name: str, task: Any, options: LmEvalOptions) -> str:
    """Set the number of worked examples as lm-eval does; where they come from. Raises ConfigError or DataError."""
    own, asked = task.get_config("num_fewshot"), options.shots
    if own == 0 and asked:
        raise ConfigError(
            f"eval task {options.task}: shots={asked}, but lm-eval defines {name} without worked examples; "
            "use shots=0, or leave this task out"
        )
    shots = own if asked is None or own == 0 else asked
    task.set_config(key="num_fewshot", value=shots or 0)
    task.set_fewshot_seed(seed=options.seed)
    if not shots:
        return "none"
    pool = getattr(getattr(task, "sampler", None), "df", None)
    same = _shots_from_test(task)
    there = None if pool is None else len(pool) - same
    if there is not None and there < shots:
        raise DataError(
            f"eval task {options.task}: {shots} worked examples are asked for, but {name} has {there} "
            f"{'besides the question itself' if same else 'to draw from'}; use shots={max(there, 0)} or less"
        )
    return "the tested split, the question itself left out" if same else "another split than the tested one"


def _shots_from_test(task: Any) -> bool:
    """Whether worked examples are drawn from the documents that are tested, since the task has no others."""
    config = task.config
    tested = config.test_split or config.validation_split
    own = getattr(getattr(task, "fewshot_cfg", None), "split", None) or config.fewshot_split
    if own is None and getattr(getattr(task, "fewshot_cfg", None), "samples", None) is not None:
        return False
    return bool((own or config.training_split or config.validation_split or config.test_split) == tested)
