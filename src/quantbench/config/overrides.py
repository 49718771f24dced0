"""Overrides between the command line and Hydra.

A command line may set keys that an option file leaves out (`calib.revision=...`), and in a multirun keys that only some
cells have (`-m quantizer=kv4,kivi4 quantizer.kv_cache.bits=3`). Hydra composes a multirun once as a whole, with the
default option in place of every group that is swept, and refuses a key that this one has not; swept overrides reach the
cells alone. So the first are handed to it with `++`, and the others as a choice of one; both are read back as typed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from quantbench.config.facts import set_keys
from quantbench.config.groups import CELL, ROOT
from quantbench.config.moved import OVERRIDES_OF_BEFORE, OVERRIDES_OF_BEFORE_BESIDE
from quantbench.core.errors import ConfigError

MULTIRUN = {"-m", "--multirun"}

_OPEN = re.compile(
    r"calib\.(parts|columns|labels|files|testing|of)(\.|$)|eval\.(tasks|origin)(\.|$)|cluster\.extra(\.|$)"
)
"""Keys below which a command line may name anything."""


def to_hydra(arguments: Sequence[str]) -> list[str]:
    """Arguments of a command line, overrides in the form in which Hydra takes them; flags as they are.

    Raises ConfigError for an override that has another form today.
    """
    swept = bool(MULTIRUN & set(arguments))
    _refuse_of_before(arguments)
    return [one if one.startswith("-") else _handed_on(one, swept) for one in arguments]


def as_typed(overrides: Sequence[str]) -> list[str]:
    """What `to_hydra` was given."""
    return [_typed(override) for override in overrides]


def expand(overrides: Sequence[str], params: Mapping[str, str] | None = None) -> list[list[str]]:
    """All combinations of a sweep's overrides: choice lists and ranges become one override each."""
    given = [f"{key}={value}" for key, value in (params or {}).items()]
    _refuse_of_before([*given, *overrides])
    lines = [_handed_on(line, True) for line in given]
    axes = [_values(o) for o in OverridesParser.create().parse_overrides([*lines, *overrides])]
    return [list(combination) for combination in product(*axes)]


def _refuse_of_before(arguments: Sequence[str]) -> None:
    """Raise ConfigError for the first argument that has another form today."""
    beside = [(old, today) for line, old, today in OVERRIDES_OF_BEFORE_BESIDE if line.match(" ".join(arguments))]
    for argument in arguments:
        plain = argument.lstrip("+")
        for pattern, today in (*OVERRIDES_OF_BEFORE, *beside):
            if not argument.startswith("-") and pattern.fullmatch(plain):
                raise ConfigError(
                    f"{argument}: this is now {pattern.sub(today, plain)}; docs/migration.md has all new names"
                )


def distinct(cells: Iterable[Sequence[str]]) -> list[list[str]]:
    """Each combination of a sweep once: a value that is given twice, or spelt in two ways, makes one cell."""
    parser, values = OverridesParser.create(), dict[str, str]()

    def value(override: str) -> str:
        if override not in values:
            parsed = parser.parse_override(override)
            values[override] = f"{parsed.get_key_element()}={parsed.value()!r}"
        return values[override]

    found: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        found.setdefault(tuple(sorted(map(value, cell))), list(cell))
    return list(found.values())


def _handed_on(argument: str, swept: bool) -> str:
    plain = argument.lstrip("+")
    key, equals, _ = argument.partition("=")
    if equals and key.lstrip("+~") in {"", *ROOT}:
        _check_choice(argument, key.lstrip("+~"))
    if equals and argument == plain and _may_be_left_out(key):
        argument = f"++{argument}"
    return _as_choice(argument) if swept else argument


def _check_choice(argument: str, group: str) -> None:
    """Raise ConfigError unless a group of the root is given names: what Hydra says of it names neither."""
    if not group:
        raise ConfigError(f"{argument}: expected key=value")
    parsed = _parsed(argument)
    if parsed is None or parsed.is_sweep_override() or parsed.is_delete():
        return
    if not isinstance(parsed.value(), str):
        raise ConfigError(f"{argument}: expected the name of an option; quantbench list {group} shows them")


def _typed(override: str) -> str:
    key, _, value = override.partition("=")
    if _is_choice_of_one(override):
        value = value[7:-1]
    bare = key.removeprefix("++")
    return f"{bare if _may_be_left_out(bare) else key}={value}" if "=" in override else override


def _may_be_left_out(key: str) -> bool:
    group, _, rest = key.partition(".")
    return (group == "calib" and rest in set_keys()) or _OPEN.match(key) is not None


def _as_choice(argument: str) -> str:
    key, equals, value = argument.partition("=")
    group, dot, _ = key.lstrip("+").rpartition("@")[2].partition(".")
    if not (equals and value and dot and group in CELL):
        return argument
    typed, choice = _parsed(argument), f"{key}=choice({value})"
    if typed is None or typed.is_sweep_override() or not _is_choice_of_one(choice):
        return argument
    return choice


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


def _values(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [override.input_line or ""]
    key = override.get_key_element()
    return [f"{key}={value}" for value in override.sweep_string_iterator()]
