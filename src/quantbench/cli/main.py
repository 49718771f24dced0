"""The command line: a sub-command, or else Hydra. torch is imported by neither."""

from __future__ import annotations

import importlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from quantbench.cli.entry import reporting_errors
from quantbench.core.logs import set_up_logging

if TYPE_CHECKING:
    from quantbench.config.cell import Cell

MULTIRUN = {"-m", "--multirun"}
CONFIG_DIR = {"--config-dir", "-cd"}
WITH_VALUE = {*CONFIG_DIR, "--config-path", "-cp", "--config-name", "-cn", "--package", "-p", "--cfg", "-c"}
WITH_VALUE |= {"--info", "-i", "--experimental-rerun"}
"""Flags of Hydra whose value may be the next argument."""

BROKEN_PIPE = 128 + signal.SIGPIPE


def main() -> None:
    """Entry point of `quantbench` and `python -m quantbench`."""
    set_up_logging()
    arguments = sys.argv[1:]
    commands = _commands()
    if arguments and arguments[0] in commands:
        with reporting_errors():
            try:
                status = commands[arguments[0]](arguments[1:])
                sys.stdout.flush()
            except BrokenPipeError:  # who reads has seen enough, `| head` for instance
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                status = BROKEN_PIPE
            sys.exit(status)
    flags, overrides = _split(arguments)
    if overrides and overrides[0] in commands:
        sys.stderr.write(f"quantbench: a command comes first: {shlex.join(['quantbench', *overrides, *flags])}\n")
        sys.exit(2)
    if overrides and overrides[0].isidentifier():
        sys.stderr.write(
            f"quantbench: no command {overrides[0]!r}. Commands: {', '.join(commands)}; "
            "anything else is key=value, for example quantizer=gptq. See quantbench --help.\n"
        )
        sys.exit(2)
    if any(override.lstrip("+").startswith("sweep=") for override in overrides) and not MULTIRUN & set(flags):
        flags = ["-m", *flags]
    with reporting_errors():
        own, flags = _config_dirs(flags)
        from quantbench.config.application import run
        from quantbench.config.folders import Folders

        run([*flags, *overrides], Folders(own), _run_grid)


def _run_grid(cells: Sequence[Cell], command: Sequence[str], sweep_params: Mapping[str, str]) -> None:
    from quantbench.cells.reachable import check_reachable

    check_reachable(cells)
    from quantbench.launch.grid import run_grid

    run_grid(cells, command, sweep_params)


def _config_dirs(flags: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The folders of --config-dir, and the other flags."""
    own: list[Path] = []
    kept: list[str] = []
    rest = iter(flags)
    for flag in rest:
        name, equals, value = flag.partition("=")
        if name in CONFIG_DIR:
            own += [Path(value if equals else one) for one in ([value] if equals else islice(rest, 1))]
        else:
            kept.append(flag)
    return own, kept


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
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


def _commands() -> dict[str, Callable[[list[str]], int]]:
    def command(path: str) -> Callable[[list[str]], int]:
        def run(arguments: list[str]) -> int:
            module, _, name = path.rpartition(".")
            result: int = getattr(importlib.import_module(module), name)(arguments)
            return result

        return run

    found = {
        "list": command("quantbench.cli.listing.list_options"),
        "prepare": command("quantbench.cli.preparing.prepare"),
    }
    found |= {name: command(f"quantbench.cli.commands.{name}") for name in ("show", "collate", "compare")}
    return found | {name: command(f"quantbench.cli.sweeps.{name}") for name in ("status", "logs", "cancel", "retry")}
