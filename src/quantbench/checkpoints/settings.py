"""Settings of a checkpoint's quantization_config, checked one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantbench.core.errors import ModelError

WHERE = "quantization_config"


def integer(config: Mapping[str, Any], key: str, among: Sequence[int] | None, default: int | None = None) -> int:
    """A whole number, of those in `among` if that is given. Raises ModelError for anything else."""
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or (among is not None and value not in among):
        wanted = "a whole number" if among is None else f"one of {', '.join(map(str, among))}"
        raise ModelError(f"{WHERE}.{key}={value!r}: quantbench reads {wanted}")
    return value


def one_of(config: Mapping[str, Any], key: str, among: Sequence[str], default: str | None = None) -> str:
    """A text, of those in `among`. Raises ModelError for anything else."""
    value = config.get(key, default)
    if value not in among:
        raise ModelError(f"{WHERE}.{key}={value!r}: quantbench reads {', '.join(among)}")
    return str(value)


def refuse(config: Mapping[str, Any], key: str, why: str) -> None:
    """Raise ModelError if a key is set to anything but null, false or nothing."""
    if value := config.get(key):
        text = repr(value)
        raise ModelError(f"{WHERE}.{key}={text if len(text) < 80 else text[:80] + '...'}: {why}")
