"""What the command lines of the sub-commands that read results have in common."""

from __future__ import annotations

import argparse

from quantbench.core.paths import local_path, outputs_folder


def subcommand(name: str, description: str, examples: str | None = None) -> argparse.ArgumentParser:
    """A parser of `quantbench NAME`, which has --output-dir; examples: shown below the options, as they are."""
    parser = argparse.ArgumentParser(
        prog=f"quantbench {name}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter if examples else argparse.HelpFormatter,
    )
    parser.add_argument(
        "--output-dir", type=local_path, default=outputs_folder(), help="where results lie (default: %(default)s)"
    )
    return parser


def add_margin(parser: argparse.ArgumentParser) -> None:
    """The option --margin, a list of texts (quantbench.report.margins.margins_of)."""
    parser.add_argument(
        "--margin",
        action="append",
        default=[],
        metavar="METRIC=NUMBER",
        help="differences below it do not matter, in the metric's unit (perplexity: nats per token); may be repeated",
    )
