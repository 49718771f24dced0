"""Tasks of lm-eval that would run code, which is refused."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantbench.core.errors import ConfigError
from quantbench.tasks.lm_eval.library import config_of, leaves


def check_code(name: str, manager: Any) -> None:
    """Refuse tasks that execute what the model writes, before lm-eval imports their code."""
    for leaf in leaves(name, manager.task_index):
        entry = manager.task_index[leaf]
        config = config_of(entry) if entry.yaml_path else {}
        if config.get("unsafe_code"):
            raise ConfigError(f"eval task {name}: {leaf} executes code that the model writes, which is refused here")


def check_scripts(name: str, tasks: Mapping[str, Any]) -> None:
    """Refuse metrics that are scripts of the hub: they are code that is not run, and fail when all is evaluated."""
    for task in tasks.values():
        config = getattr(task, "config", None)
        values = [] if config is None else [*vars(config).values()]
        modules = {type(task).__module__, *(v.__module__ for v in values if inspect.isfunction(v))}
        listed = (getattr(config, "metric_list", None) or []) if config is not None else []
        calls = any(_calls_evaluate(module) for module in modules if not module.startswith("lm_eval.api"))
        if calls or any(one.get("hf_evaluate") for one in listed):
            raise ConfigError(
                f"eval task {name}: the metric of {task.task_name} is a script from the hub (evaluate.load), and code "
                "from the hub is not run"
            )


def _calls_evaluate(module: str) -> bool:
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and "evaluate.load(" in Path(file).read_text(encoding="utf-8")
