"""The command line: a sub-command, help, or else cells. Nothing is imported here before it is known to be needed."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Callable, Sequence

from quantbench.cli.entry import prepare_terminal, reporting_errors
from quantbench.cli.flags import check_flags, config_dirs, split
from quantbench.core import garbage
from quantbench.core.errors import ConfigError
from quantbench.core.logs import set_up_logging
from quantbench.core.version import __version__

COMMANDS = {
    "list": "quantbench.cli.listing.list_options",
    "prepare": "quantbench.cli.preparing.prepare",
    "show": "quantbench.cli.commands.show",
    "collate": "quantbench.cli.commands.collate",
    "status": "quantbench.cli.sweeps.status",
    "logs": "quantbench.cli.sweeps.logs",
    "cancel": "quantbench.cli.sweeps.cancel",
    "retry": "quantbench.cli.sweeps.retry",
    "compare": "quantbench.cli.comparing.compare",
    "report": "quantbench.cli.reporting.report",
    "pareto": "quantbench.cli.pareto.pareto",
    "roofline": "quantbench.cli.roofline.roofline",
    "export": "quantbench.cli.exporting.export",
    "measure": "quantbench.cli.measuring.measure",
    "pack": "quantbench.cli.packing.pack",
    "merge": "quantbench.cli.packing.merge",
}
"""Where the function of a sub-command is: it takes the arguments after it, and returns its exit status."""


def main() -> None:
    """Entry point of `quantbench` and `python -m quantbench`."""
    prepare_terminal()
    set_up_logging()
    garbage.pause()
    try:
        with reporting_errors():
            sys.exit(_answer(sys.argv[1:]))
    finally:
        garbage.resume()


def _answer(arguments: Sequence[str]) -> int:
    """What to do with a command line; the exit status."""
    if arguments and arguments[0] in COMMANDS:
        module, _, name = COMMANDS[arguments[0]].rpartition(".")
        command: Callable[[list[str]], int] = getattr(importlib.import_module(module), name)
        garbage.resume()
        return command(list(arguments[1:]))
    flags, overrides = split(arguments)
    check_flags(flags)
    if overrides and overrides[0] in COMMANDS:
        raise ConfigError(f"a command comes first: {shlex.join(['quantbench', *overrides, *flags])}")
    if overrides and overrides[0].isidentifier():
        raise ConfigError(
            f"no command {overrides[0]!r}. Commands: {', '.join(COMMANDS)}; "
            "anything else is key=value, for example quantizer=gptq. See quantbench --help."
        )
    if "--version" in flags:
        sys.stdout.write(f"quantbench {__version__}\n")
    elif {"--help", "-h"} & set(flags):
        from quantbench.cli.help import help_text

        sys.stdout.write(help_text(config_dirs(flags)[0]))
    else:
        from quantbench.cli.cells import run_cells

        run_cells(flags, overrides)
    return 0
