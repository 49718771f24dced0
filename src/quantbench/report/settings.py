"""A recipe's settings in one line of text."""

from __future__ import annotations

from typing import Any

IDLE: tuple[Any, ...] = (None, [], {}, False, "all")
"""Values of a policy's options that change nothing (0 equals False)."""


def settings(config: dict[str, Any]) -> str:
    """A recipe's resolved configuration in one line: "weight=IntFormat(bits=4, ...), rounding=Gptq(...)".

    Left out are parts that are not used (null, empty), what a policy does not do, and `about`; every other option of
    the parts that are used is there.
    """
    idle = (None, [], {}) if "policy" in config or not config.get("_target_", "").endswith(".Policy") else IDLE
    return ", ".join(
        f"{key}={_setting(value)}"
        for key, value in config.items()
        if value not in idle and key != "about" and not key.startswith("_") and _setting(value)
    )


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, dict):
        return str(value)
    target = value.get("_target_")
    inner = settings(value)
    return f"{str(target).rpartition('.')[2]}({inner})" if target else inner
