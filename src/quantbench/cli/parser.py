"""What the command lines of the sub-commands that read results have in common."""

from __future__ import annotations

import argparse

from quantbench.core.errors import ConfigError
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


def add_bound(parser: argparse.ArgumentParser) -> None:
    """Options that name what a recipe must keep to: --y, --on, --below, --above (`bound_of`)."""
    parser.add_argument("--y", metavar="METRIC", help="default: kl, or else the first that has a table")
    parser.add_argument("--on", action="append", default=[], metavar="TEXTS", help="tests that count (default: all)")
    parser.add_argument(
        "--below", type=float, metavar="NUMBER", help="the upper end of its interval must be, on all of them"
    )
    parser.add_argument("--above", type=float, metavar="NUMBER", help="the lower end must be, where higher is better")


def bound_of(given: argparse.Namespace) -> float | None:
    """The bound of `add_bound`, None if none was given. Raises ConfigError for two."""
    if given.below is not None and given.above is not None:
        raise ConfigError("--below and --above: give one, --above where higher is better")
    found: float | None = given.below if given.above is None else given.above
    return found


def tests_of(given: argparse.Namespace) -> list[str]:
    """The tests that --on names."""
    return [name.strip() for one in given.on for name in one.split(",") if name.strip()]


def add_margin(parser: argparse.ArgumentParser) -> None:
    """The option --margin, a list of texts (quantbench.report.margins.margins_of)."""
    parser.add_argument(
        "--margin",
        action="append",
        default=[],
        metavar="METRIC=NUMBER",
        help="differences below it do not matter, in the metric's unit (perplexity: nats per token); may be repeated",
    )
