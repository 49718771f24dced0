"""Overrides that Hydra's grammar cannot read, and how the same is written so that it can."""

from __future__ import annotations

import re
import shlex

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException


def unreadable_override(override: str, reason: str) -> str:
    """What is wrong with an override as it was typed, with the quotes that its value needs.

    reason: Hydra's words, which are kept where quotes are no remedy
    """
    key, equals, value = override.partition("=")
    if not equals and not override.startswith("~"):
        return f"{override}: expected key=value"
    if not re.fullmatch(r"(\+\+?|~)?[\w./@-]+", key, re.ASCII):
        return f"{override}: {key!r} is no key: letters, digits, _ and dots, with / and @ in names of groups"
    if equals and (quoted := _quoted(key, value)) is not None:
        return (
            f"{override}: a value with other characters than letters, digits and _ - . / : + % @ stands in quotes, and "
            f"all of it in the shell's: {_for_shell(f'{key}={quoted}')}"
        )
    return f"{override}: cannot be read ({reason.strip().splitlines()[0]}). Do its brackets and quotes close?"


def _for_shell(text: str) -> str:
    return shlex.quote(text) if re.search(r'["$`\\!]', text) else f'"{text}"'


def _quoted(key: str, value: str) -> str | None:
    """The value with quotes around it, or around those between commas that need them; None if that is no remedy."""
    # A comma behind which there is a space is one of a text.
    parts = (
        [value]
        if ", " in value
        else [part if _text(key, part) is not None else _in_quotes(part) for part in value.split(",")]
    )
    for candidate in ((",".join(parts),) if len(parts) > 1 else ()) + (_in_quotes(value),):
        if _reads(f"{key}={candidate}") and not re.search(r"[\[\]{}]", value):
            return candidate
    return None


def _in_quotes(text: str) -> str:
    """In the quotes that do not occur in it; one backslash before a quote would be read as part of it."""
    inner = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
    mark = '"' if "'" in inner else "'"
    inner = re.sub(rf"(\\*)({mark}|$)", lambda m: m[1] * 2 + ("\\" + mark if m[2] else ""), inner)
    return f"{mark}{inner}{mark}"


def _text(key: str, value: str) -> str | None:
    return value if _reads(f"{key}={value}") else None


def _reads(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True
