"""Hydra's flags on a command line, told from overrides without importing Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from quantbench.core.errors import ConfigError

CONFIG_DIR = ("--config-dir", "-cd")
WITH_VALUE = {*CONFIG_DIR, "--config-path", "-cp", "--config-name", "-cn", "--package", "-p", "--cfg", "-c"}
WITH_VALUE |= {"--info", "-i"}
"""Flags of Hydra whose value may be the next argument."""
ALONE = {"--help", "-h", "--version", "--hydra-help", "--run", "-r", "--multirun", "-m", "--resolve"}
ALONE |= {"--shell-completion", "-sc"}
MAY_LACK_IT = {"--info", "-i"}
"""The others. Hydra takes any beginning of one as well, and with --experimental-rerun unpickles a file."""


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's flags with their values, and what else is there: overrides."""
    flags: list[str] = []
    overrides: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in WITH_VALUE:
            flags += [argument, *islice(rest, 1)]
        else:
            (flags if argument.startswith("-") else overrides).append(argument)
    return flags, overrides


def config_dirs(flags: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The folders of --config-dir, and the other flags."""
    own: list[Path] = []
    kept: list[str] = []
    rest = iter(flags)
    for flag in rest:
        name, equals, value = flag.partition("=")
        if name in CONFIG_DIR:
            own += [Path(one) for one in ([value] if equals else islice(rest, 1))]
        else:
            kept.append(flag)
    return own, kept


def check_flags(flags: Sequence[str]) -> None:
    """Raise ConfigError for a flag that there is not, and for one without the value it needs."""
    rest = iter(flags)
    for flag in rest:
        name, equals, _ = flag.partition("=")
        if name in WITH_VALUE:
            if not equals and not list(islice(rest, 1)) and name not in MAY_LACK_IT:
                raise ConfigError(f"{flag}: a value is missing")
        elif name not in ALONE:
            known = ", ".join(sorted(one for one in {*WITH_VALUE, *ALONE} if one.startswith("--")))
            raise ConfigError(f"{flag}: no such flag. Flags: {known}")
