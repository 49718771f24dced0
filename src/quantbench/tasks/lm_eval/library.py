"""Loading tasks by lm-eval: its index of names, what it refuses, and what a user can do about data it cannot load."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import io
import logging
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quantbench.core.errors import ConfigError, DataError
from quantbench.core.hashing import hash_path
from quantbench.datasets.hub_access import quiet as quiet_datasets
from quantbench.tasks.lm_eval.broken import BROKEN

RANDOM_SEED, OTHER_SEED = 0, 1234
"""What lm-eval's own command seeds Python's generator with, and NumPy's and torch's."""


@dataclass(frozen=True)
class Loaded:
    """tasks: subtasks by name; groups: lm-eval's groups by name, from the one asked for down; manager: loads again."""

    tasks: dict[str, Any]
    groups: dict[str, Any]
    manager: Any


@contextlib.contextmanager
def as_by_itself() -> Iterator[None]:
    """Random generators as lm-eval's command seeds them, put back afterwards; and nothing printed but errors."""
    logger = logging.getLogger("lm_eval")
    level, python, numpy, cpu = logger.level, random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    logger.setLevel(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with quiet_datasets(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            random.seed(RANDOM_SEED)
            np.random.seed(OTHER_SEED)  # noqa: NPY002
            torch.manual_seed(OTHER_SEED)
            yield
    finally:
        logger.setLevel(level)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)


def load(name: str, include_path: Path | None) -> Loaded:
    """A task, tag or group with its data.

    Raises ConfigError for a name that lm-eval does not know and for tasks that run code, DataError for data that cannot
    be had.
    """
    manager = _manager_for(name, include_path)
    if name not in manager.task_index:
        close = difflib.get_close_matches(name, manager.all_tasks, n=5)
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        raise ConfigError(
            f"eval task {name}: lm-eval has no task, tag or group of that name.{hint} `lm-eval ls tasks` lists all; "
            "tasks of your own lie in the folder include_path"
        )
    _check_code(name, manager)
    try:
        with as_by_itself():
            found = manager.load([name])
    except Exception as error:  # readers of many formats, and code of each task
        raise _explain(name, error) from error
    loaded = Loaded(found["tasks"], found.get("groups", {}), manager)
    _check_scripts(name, loaded)
    return loaded


def _manager_for(name: str, include_path: Path | None) -> Any:
    """lm-eval's index of tasks. All its own take 10 s to read: they are left out where the user's folder will do."""
    if include_path is None:
        return _manager(None, "", True)
    content = hash_path(include_path)
    own = _manager(include_path, content, False)
    return own if _is_whole(name, own.task_index) else _manager(include_path, content, True)


@cache
def _manager(include_path: Path | None, _content: str, defaults: bool) -> Any:
    from lm_eval.tasks import TaskManager

    with as_by_itself():
        return TaskManager(include_path=include_path, include_defaults=defaults)


def _is_whole(name: str, index: Any) -> bool:
    """Whether a name and all it stands for are in an index."""
    if name not in index:
        return False
    members = _members(name, index)
    return all(isinstance(one, str) and _is_whole(one, index) for one in members)


def _members(name: str, index: Any) -> list[Any]:
    """What a tag or group lists; nothing for a task."""
    from lm_eval.tasks._yaml_loader import load_yaml

    entry = index[name]
    if entry.kind.name == "TAG":  # a task has `tags`, too: those it belongs to
        return sorted(entry.tags)
    if entry.kind.name != "GROUP":
        return []
    config = entry.cfg or load_yaml(entry.yaml_path, resolve_func=False)
    listed = config.get("task")
    return listed if isinstance(listed, list) else []


# What is refused


def _check_code(name: str, manager: Any) -> None:
    """Refuse tasks that execute what the model writes, before lm-eval imports their code."""
    from lm_eval.tasks._yaml_loader import load_yaml

    for leaf in _leaves(name, manager.task_index):
        entry = manager.task_index[leaf]
        config = load_yaml(entry.yaml_path, resolve_func=False) if entry.yaml_path else {}
        if config.get("unsafe_code"):
            raise ConfigError(f"eval task {name}: {leaf} executes code that the model writes, which is refused here")


def _leaves(name: str, index: Any) -> list[str]:
    if name not in index:
        return []
    members = [one.get("task") if isinstance(one, dict) else one for one in _members(name, index)]
    return [leaf for one in members for leaf in _leaves(str(one), index)] if members else [name]


def _check_scripts(name: str, loaded: Loaded) -> None:
    """Refuse metrics that are scripts of the hub: they are code that is not run, and fail when all is evaluated."""
    for task in loaded.tasks.values():
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


def _explain(name: str, error: Exception) -> Exception:
    text = " ".join(str(error).split()) or type(error).__name__
    for path, instead in BROKEN.items():
        if path in text:
            return DataError(f"eval task {name}: not loadable today: {path} {instead}. ({text})")
    if "scripts are no longer supported" in text:
        return DataError(
            f"eval task {name}: not loadable today: its data set is a loading script, which `datasets` no longer runs "
            f"({text})"
        )
    return DataError(
        f"eval task {name}: lm-eval cannot load it: {type(error).__name__}: {text}. If its data are missing: on a "
        "machine with network run `quantbench prepare`, then the same choice of eval as here, with HF_HOME set to a "
        "folder you can carry, and set HF_HOME to it here"
    )
