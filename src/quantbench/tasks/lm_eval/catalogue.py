"""What is known of lm-eval's tasks: entries of conf/lm_eval/catalogue.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantbench.core.errors import ConfigError
from quantbench.core.origin import Origin

REQUIRED = ("description", "family", "domain", "language", "hub", "tested", "columns")
KEYS = (*REQUIRED, "name", "relatives")


def catalogue_origin(task: str, entry: Mapping[str, Any] | None) -> Origin:
    """The origin of a task, from its entry; None: nobody has described it, so its family is unknown.

    Its path is None: the name alone decides whether it is what was calibrated on. Raises ConfigError for keys that an
    entry does not have or lacks; a family that does not exist is refused as by Origin.
    """
    if entry is None:
        return Origin(name=task, family="unknown", path=None)
    if wrong := [key for key in entry if key not in KEYS]:
        raise ConfigError(f"lm_eval catalogue, {task}: unknown key {wrong[0]!r}; an entry has {', '.join(KEYS)}")
    if missing := [key for key in REQUIRED if key not in entry]:
        raise ConfigError(f"lm_eval catalogue, {task}: {missing[0]} is missing; an entry has {', '.join(REQUIRED)}")
    return Origin(
        name=entry.get("name", task),
        family=entry["family"],
        domain=entry["domain"],
        language=entry["language"],
        relatives=tuple(entry.get("relatives", ())),
        size=entry["tested"],
        note=f"{entry['hub']}: {entry['columns']}",
        path=None,
    )
