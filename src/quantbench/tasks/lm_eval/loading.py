"""Loading tasks by lm-eval, and what a user can do about data it cannot load."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantbench.core.errors import ConfigError, DataError
from quantbench.tasks.lm_eval.broken import BROKEN
from quantbench.tasks.lm_eval.documents import failing
from quantbench.tasks.lm_eval.library import as_by_itself, manager_for
from quantbench.tasks.lm_eval.refused import check_code, check_scripts


@dataclass(frozen=True)
class Loaded:
    """tasks: subtasks by name; groups: lm-eval's groups by name, from the one asked for down; manager: loads again."""

    tasks: dict[str, Any]
    groups: dict[str, Any]
    manager: Any


def load(name: str, include_path: Path | None) -> Loaded:
    """A task, tag or group with its data.

    Raises ConfigError for a name that lm-eval does not know and for tasks that run code, DataError for data that cannot
    be had.
    """
    manager = manager_for(name, include_path)
    if name not in manager.task_index:
        close = difflib.get_close_matches(name, sorted(manager.task_index), n=5)
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        raise ConfigError(
            f"eval task {name}: lm-eval has no task, tag or group of that name.{hint} `lm-eval ls tasks` lists all; "
            "tasks of your own lie in the folder include_path"
        )
    check_code(name, manager)
    try:
        with as_by_itself():
            found = manager.load([name])
    except Exception as error:  # readers of many formats, and code of each task
        raise _explain(name, error) from error
    loaded = Loaded(found["tasks"], found.get("groups", {}), manager)
    check_scripts(name, loaded.tasks)
    return loaded


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
    if not isinstance(error, OSError) or type(error).__module__.startswith("jinja2"):  # no download would mend it
        return failing(error, name, "load it")
    return DataError(
        f"eval task {name}: lm-eval cannot load it: {type(error).__name__}: {text}. If its data are missing: on a "
        "machine with network run `quantbench prepare`, then the same choice of eval as here, with HF_HOME set to a "
        "folder you can carry, and set HF_HOME to it here"
    )
