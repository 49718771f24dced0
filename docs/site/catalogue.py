"""The catalogue of options as pages, written from the option files alone: plain YAML is read, nothing is composed.

A group is a folder of `conf/` that holds option files; `sweeps/` is the group `sweep`. A page lists the options of a
group with what their first comment line says, the facts of those that are data sets, and each file as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

SWEEP = "sweep"

FIRST = ("model", "calib", "quantizer", "eval", "scale", "cluster", SWEEP, "family")
"""Groups that a command line names most, in the order of the catalogue; the others follow by name."""

FACTS = ("family", "domain", "language", "from", "licence", "size")
"""What is known of a data set, as columns."""

HOMES = ("hub", "package", "path", "files", "id")
"""Keys that say where a data set lies, the first that is there."""


@dataclass(frozen=True)
class Option:
    """One option file."""

    group: str
    name: str
    text: str

    @property
    def comment(self) -> str:
        """The first comment line that is no directive of Hydra, "" if there is none."""
        lines = (line.lstrip("# ").strip() for line in self.text.splitlines() if line.startswith("#"))
        return next((line for line in lines if not line.startswith("@package")), "")

    @property
    def typed(self) -> str:
        """How it is chosen on a command line, as its comment says; "" if it is only used by other options."""
        command, colon, _ = self.comment.partition(": ")
        return command if colon and "=" in command else ""

    @property
    def description(self) -> str:
        """What its comment says besides."""
        return self.comment.removeprefix(f"{self.typed}: ") if self.typed else self.comment

    @cached_property
    def content(self) -> Mapping[str, Any]:
        """The file's mapping."""
        content = yaml.safe_load(self.text)
        return content if isinstance(content, dict) else {}

    @property
    def facts(self) -> tuple[str, ...]:
        """The values of FACTS, "" for what the file does not say; empty if it describes no data set."""
        found = {**_mapping(self.content, "source"), **self.content}
        about = {**found, **_mapping(found, "about")}
        if "domain" not in about and "language" not in about:
            return ()
        home = next((f"{_plain(found[key])}" for key in HOMES if found.get(key)), "")
        return tuple(home if fact == "from" else _plain(about.get(fact, "")) for fact in FACTS)


def groups(conf: Path) -> dict[str, list[Option]]:
    """Every group with its options, both in the order of the catalogue. A link into `conf/` is not followed."""
    folders = [folder for folder in conf.rglob("*") if folder.is_dir() and not folder.is_symlink()]
    named = {folder.relative_to(conf).as_posix(): folder for folder in folders}
    found = {group: _options(folder, group) for group, folder in named.items()}
    found[SWEEP] = _options(conf.parent / "sweeps", SWEEP)
    order = [*FIRST, *sorted(set(found) - set(FIRST))]
    return {group: found[group] for group in order if found.get(group)}


def pages(conf: Path) -> dict[str, str]:
    """The pages of the catalogue by file name: index.md, and one for each group."""
    found = groups(conf)
    return {"index.md": _index(found), **{page_name(group): _page(group, options) for group, options in found.items()}}


def page_name(group: str) -> str:
    """The file name of a group's page."""
    return f"{group.replace('/', '_')}.md"


def _options(folder: Path, group: str) -> list[Option]:
    return [Option(group, file.stem, file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.yaml"))]


def _index(found: Mapping[str, Sequence[Option]]) -> str:
    rows = [
        (f"[`{group}`]({page_name(group)})", str(len(options)), _code(next((o.typed for o in options if o.typed), "")))
        for group, options in found.items()
    ]
    return "\n".join(
        [
            "# Options",
            "",
            "Every option is one file; its page shows it whole. `quantbench list GROUP` lists them in a terminal,",
            "those of a folder of yours included (`--config-dir FOLDER`). Each key can be changed on the command line.",
            "",
            *_table(("group", "options", "chosen by, for instance"), rows),
        ]
    )


def _page(group: str, options: Sequence[Option]) -> str:
    columns = ("option", "what it is", *(FACTS if any(option.facts for option in options) else ()))
    rows = [(f"[`{o.name}`](#{o.name})", o.description, *(o.facts or ("",) * (len(columns) - 2))) for o in options]
    return "\n".join([f"# `{group}`", "", *_table(columns, rows), *(line for o in options for line in _section(o))])


def _section(option: Option) -> Iterator[str]:
    yield from ("", f"## {option.name} {{ #{option.name} }}", "")
    yield from (f"`{option.typed}`", "") if option.typed else ()
    yield from ("```yaml", option.text.rstrip(), "```")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items())
    if isinstance(value, list):
        return "; ".join(_plain(one) for one in value)
    return "" if value is None else str(value)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
