"""The command line: a sub-command, or else Hydra. torch is imported by neither."""

from __future__ import annotations

import importlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from itertools import islice

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from quantbench.cli.entry import reporting_errors
from quantbench.config.compose import config_dir
from quantbench.config.mixing import register_resolvers
from quantbench.core.logs import set_up_logging
from quantbench.launch.axes import as_choices

MULTIRUN = {"-m", "--multirun"}
WITH_VALUE = {"--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p", "--cfg", "-c"}
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
    # Hydra refuses overrides on both sides of a flag (its argparse cannot mix them).
    sys.argv[1:] = as_choices([*flags, *overrides])
    # Hydra would print its own errors and advise to add a misspelt key with a plus: have them raised instead.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register_resolvers()
    with reporting_errors():
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(_single)()


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

    found = {"list": command("quantbench.cli.commands.list_options")}
    found |= {name: command(f"quantbench.cli.commands.{name}") for name in ("prepare", "show", "collate", "compare")}
    return found | {name: command(f"quantbench.cli.sweeps.{name}") for name in ("status", "logs", "cancel", "retry")}


def _single(config: DictConfig) -> None:
    """One cell: Hydra's task function."""
    with reporting_errors():
        from quantbench.config.compose import cell_from, check_additions

        info = HydraConfig.get()
        overrides = list(info.overrides.task)
        check_additions(overrides, config, list(info.runtime.choices))
        from quantbench.launch.grid import run_grid

        choices = OmegaConf.to_container(info.runtime.choices)
        run_grid([cell_from(config, overrides, choices)], command=overrides)  # type: ignore[arg-type]
