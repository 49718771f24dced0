"""Options in a multirun that only its cells have.

Hydra composes a multirun once as a whole, with the default option in place of every group that is swept, and applies
all overrides of one value to it: `-m quantizer=kv4,kivi4 quantizer.kv_cache.bits=3` is refused because the default
recipe has no kv_cache, although every cell has one. Swept overrides reach the cells alone. So an override below a
group is handed to Hydra as a choice of one, and read back as it was typed.
"""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from quantbench.config.compose import NODES


def as_choices(arguments: Sequence[str]) -> list[str]:
    """The arguments of a multirun, overrides of one value below a group as choices of one; others as they are."""
    swept = any(a in {"-m", "--multirun"} for a in arguments)
    return [_as_choice(a) if swept else a for a in arguments]


def as_typed(overrides: Sequence[str]) -> list[str]:
    """What `as_choices` was given."""
    return [f"{key}={value[7:-1]}" if _is_choice_of_one(o) else o for o in overrides for key, _, value in [_parts(o)]]


def _as_choice(argument: str) -> str:
    key, equals, value = _parts(argument)
    group, dot, _ = key.lstrip("+").rpartition("@")[2].partition(".")
    if not (equals and value and dot and group in NODES):
        return argument
    typed, choice = _parsed(argument), f"{key}=choice({value})"
    if typed is None or typed.is_sweep_override() or not _is_choice_of_one(choice):
        return argument
    return choice


def _parts(override: str) -> tuple[str, str, str]:
    return override.partition("=")


def _is_choice_of_one(override: str) -> bool:
    if "=choice(" not in override:
        return False
    parsed = _parsed(override)
    return parsed is not None and parsed.is_choice_sweep() and len(list(parsed.sweep_string_iterator())) == 1


def _parsed(override: str) -> Override | None:
    """None for what Hydra will refuse with a message of its own."""
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None
