"""`quantbench list`: every option with a line saying what it is, read from the option files alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quantbench.config.catalogue import LISTS, Catalogue
from quantbench.config.folders import Folders
from quantbench.config.groups import LISTED, Group, group
from quantbench.core.errors import ConfigError

FACTS = ("family", "domain", "language", "licence", "size")
"""What the table of data sets shows, beside the name."""


def list_options(arguments: list[str]) -> int:
    """`quantbench list [GROUP]`: the options of a group, or the groups with a count of their options."""
    parser = argparse.ArgumentParser(prog="quantbench list", description="Options, each with a line saying what it is.")
    parser.add_argument("group", nargs="?", metavar="GROUP", help=f"one of {', '.join(LISTED)}; default: what there is")
    parser.add_argument("--config-dir", "-cd", type=Path, action="append", default=[], help="a folder of yours")
    given = parser.parse_args(arguments)
    catalogue = Catalogue(Folders(given.config_dir))
    if given.group is None:
        _print(_groups(catalogue))
        return 0
    if given.group not in LISTED:
        raise ConfigError(f"list {given.group}: no such group. Groups: {', '.join(LISTED)}")
    _print(_options(catalogue, group(given.group)))
    if given.group in {"calib", "family"}:
        _print(["", *_table(catalogue)])
    return 0


def _print(lines: Iterator[str] | list[str]) -> None:
    sys.stdout.write("\n".join(lines) + "\n")


def _groups(catalogue: Catalogue) -> Iterator[str]:
    for name in LISTED:
        yield f"{name:<12} {catalogue.count(name):>4}  {group(name).about}"
    yield ""
    yield "quantbench list GROUP shows the options of one of them; they are chosen by GROUP=OPTION."


def _options(catalogue: Catalogue, chosen: Group) -> Iterator[str]:
    yield f"{'+sweep' if chosen.name == 'sweep' else chosen.name}="
    for name, text in _described(catalogue, chosen):
        yield f"  {name:<24} {text}"


def _described(catalogue: Catalogue, chosen: Group) -> Iterator[tuple[str, str]]:
    """Names and descriptions of the options of a group."""
    if chosen.name in LISTS:
        entries = sorted(catalogue.entries(chosen.name).items())
        yield from ((name, str(told.get("description", ""))) for name, told in entries)
    elif chosen.parts:
        said = catalogue.comments(chosen.name)
        yield from ((name, said.get(name, "")) for name in sorted(catalogue.parts(chosen.name)))
    else:
        yield from ((name, description(file)) for name, file in catalogue.files(chosen.name).items())


def description(file: Path) -> str:
    """The first comment line of an option that is not a Hydra directive, without the command it repeats."""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        text = line.lstrip("# ").strip()
        if line.startswith("#") and not text.startswith("@package"):
            command, colon, rest = text.partition(": ")
            return rest if colon and "=" in command else text
    return ""


def _table(catalogue: Catalogue) -> Iterator[str]:
    """A line for each data set: its name and facts, those of its family taken in."""
    from tabulate import tabulate

    rows = [[name, *_facts(catalogue, catalogue.option("calib", name))] for name in catalogue.files("calib")]
    yield tabulate(
        [row for row in rows if row[1]], headers=["data set", *FACTS], tablefmt="simple", disable_numparse=True
    )


def _facts(catalogue: Catalogue, option: Mapping[str, Any]) -> list[str]:
    if "family" not in option:
        return ["" for _ in FACTS]
    if option["family"] not in catalogue.files("family"):
        return [f"{option['family']} (no such family)", *(str(option.get(key) or "") for key in FACTS[1:])]
    family = catalogue.family(str(option["family"]))
    told = {**family.get("common", {}), **option, "family": f"{option['family']} ({family.get('kind')})"}
    return [str(told.get(key) or "not known") for key in FACTS]
