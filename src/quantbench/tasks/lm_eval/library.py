"""The insides of lm-eval that are used here: its index of names, its filters, its seeds, its notes."""

from __future__ import annotations

import contextlib
import io
import logging
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quantbench.core.hashing import hash_path
from quantbench.datasets.hub_access import quiet as quiet_datasets

RANDOM_SEED, OTHER_SEED = 0, 1234
"""What lm-eval's own command seeds Python's generator with, and NumPy's and torch's."""


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


@contextlib.contextmanager
def machine_described_once() -> Iterator[None]:
    """lm-eval asks the system's tools about the machine, for seconds, at every evaluation: here the first answer stays.

    It also notes the commit of the working folder, whatever lies there, and git complains if nothing of its does: not
    here.
    """
    from lm_eval import evaluator

    asked = evaluator.get_git_commit_hash, evaluator.add_env_info
    evaluator.get_git_commit_hash = lambda: None
    evaluator.add_env_info = lambda results: results.update(_machine())
    try:
        yield
    finally:
        evaluator.get_git_commit_hash, evaluator.add_env_info = asked


@cache
def _machine() -> dict[str, Any]:
    from lm_eval.loggers.utils import add_env_info

    found: dict[str, Any] = {}
    add_env_info(found)
    return found


def manager_for(name: str, include_path: Path | None) -> Any:
    """lm-eval's index of tasks. Its own, which take 10 s to read, are left out where the user's folder will do."""
    if include_path is None:
        return defaults()
    content = hash_path(include_path)
    own = _own(include_path, content)
    return own if _is_whole(name, own.task_index) else _joint(include_path, content)


@cache
def defaults() -> Any:
    """The tasks that come with lm-eval."""
    return _read(include_defaults=True)


@cache
def _own(include_path: Path, _content: str) -> Any:
    return _read(include_path=include_path, include_defaults=False)


@cache
def _joint(include_path: Path, _content: str) -> Any:
    """Both, those of the folder before lm-eval's of the same name, without reading lm-eval's again."""
    manager = _read(include_path=include_path, include_defaults=False)
    manager.task_index.update(defaults().task_index | manager.task_index)
    return manager


def _read(**options: Any) -> Any:
    from lm_eval.tasks import TaskManager

    with as_by_itself():
        return TaskManager(**options)


def _is_whole(name: str, index: Any) -> bool:
    """Whether a name and all it stands for are in an index."""
    if name not in index:
        return False
    members = _members(name, index)
    return all(isinstance(one, str) and _is_whole(one, index) for one in members)


def _members(name: str, index: Any) -> list[Any]:
    """What a tag or group lists; nothing for a task."""
    entry = index[name]
    if entry.kind.name == "TAG":  # a task has `tags`, too: those it belongs to
        return sorted(entry.tags)
    if entry.kind.name != "GROUP":
        return []
    config = entry.cfg or config_of(entry)
    listed = config.get("task")
    return listed if isinstance(listed, list) else []


def leaves(name: str, index: Any) -> list[str]:
    """The tasks that a name stands for."""
    if name not in index:
        return []
    members = [one.get("task") if isinstance(one, dict) else one for one in _members(name, index)]
    return [leaf for one in members for leaf in leaves(str(one), index)] if members else [name]


def config_of(entry: Any) -> dict[str, Any]:
    """A task file as it stands, its functions not resolved, so that no code of it runs."""
    from lm_eval.tasks._yaml_loader import load_yaml

    found: dict[str, Any] = load_yaml(entry.yaml_path, resolve_func=False)
    return found


def filters(task: Any) -> list[str]:
    """Names of a task's filters, the first first."""
    return [ensemble.name for ensemble in task._filters]
