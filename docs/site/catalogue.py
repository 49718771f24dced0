"""The catalogue of options as pages, written from the option files alone: plain YAML is read, nothing is composed.

A group is a folder of `conf/` that holds option files; `sweeps/` is the group `sweep`. A page lists the options of a
group with what their first comment line says, the facts of those that are data sets, and each file as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from quantbench.config.groups import GROUPS

SWEEP = "sweep"

FIRST = ("model", "calib", "quantizer", "eval", "scale", "cluster", SWEEP, "family")
"""Groups that a command line names most, in the order of the catalogue; the others follow by name."""

FACTS = ("family", "domain", "language", "from", "licence", "size")
"""What is known of a data set, as columns."""

FAMILY_FACTS = ("kind", "template", "scoring", "members")
"""What a family says, as columns."""

HOMES = ("hub", "package", "path", "files", "id")
"""Keys that say where a data set lies, the first that is there."""

PARTS, FAMILY = "parts", "family"

LISTS = (PARTS, "lm_eval", "hardware")
"""Groups whose files hold several entries each."""

ABOUT = {group.name: group.about for group in GROUPS} | {
    PARTS: "samplers, templates, scorings, renderings, one file a kind; chosen by `calib.sampler=NAME` and so on"
}
"""What the options of a group are."""


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


@dataclass(frozen=True)
class Row:
    """A line of a group's table: an option, or an entry of a file that holds several."""

    name: str
    anchor: str
    description: str
    facts: tuple[str, ...]


def rows(option: Option, families: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """An option, or the entries of a file of entries, each a mapping with a description, or a comment before it."""
    if option.group == FAMILY:
        return [Row(option.name, option.name, option.description, _family_facts(option.content, families))]
    entries = [value for value in option.content.values() if isinstance(value, dict)]
    if option.group not in LISTS or not entries or len(entries) < len(option.content):
        return [Row(option.name, option.name, option.description, facts(option.content, families))]
    lines = option.text.splitlines()
    said = {line.partition(":")[0]: before[2:] for before, line in pairwise(lines) if before.startswith("# ")}
    kind = f"{option.name}: " if option.group == PARTS else ""
    told = {name: _plain(entry.get("description") or said.get(str(name), "")) for name, entry in option.content.items()}
    return [
        Row(f"{kind}{name}", option.name, told[name], facts(entry, families)) for name, entry in option.content.items()
    ]


def facts(content: Mapping[str, Any], families: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The values of FACTS, "" for what is not said; empty if no data set is described.

    What all sets of a family have in common is said by its file.
    """
    told = {**_common(str(content.get("family", "")), families), **_mapping(content, "source"), **content}
    told |= _mapping(told, "about")
    if not {"family", "domain"} & set(told):
        return ()
    home = next((_home(told[key]) for key in HOMES if told.get(key)), "")
    size = told.get("size", told.get("tested", ""))
    found = {**told, "from": home, "size": size}
    return tuple(_plain(found.get(fact, "")) for fact in FACTS)


def _home(value: Any) -> str:
    """Where a data set lies: what a user has to give, and a variable of the environment, in words."""
    text = _plain(value).split(" --")[0]
    if text == "???":
        return "a file of yours"
    if found := re.fullmatch(r"\$\{oc\.env:(\w+),(.*)\}", text):
        return f"{found[2]} (or the folder that {found[1]} names)"
    return text


def _family_facts(content: Mapping[str, Any], families: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The values of FAMILY_FACTS, those of the family that it is `like` taken in."""
    told = dict(content)
    while like := told.pop("like", None):
        told = {**families.get(str(like), {}), **told}
    return tuple(_plain(told.get(fact, "")) for fact in FAMILY_FACTS)


def _common(family: str, families: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    own = families.get(family, {})
    like = own.get("like")
    return {**(_common(str(like), families) if like else {}), **_mapping(own, "common")}


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
    families = {option.name: option.content for option in found.get("family", [])}
    made = {page_name(group): _page(group, options, families) for group, options in found.items()}
    return {"index.md": _index(found), **made}


def page_name(group: str) -> str:
    """The file name of a group's page."""
    return f"{group.replace('/', '_')}.md"


def _options(folder: Path, group: str) -> list[Option]:
    return [Option(group, file.stem, file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.yaml"))]


def _index(found: Mapping[str, Sequence[Option]]) -> str:
    lines = [
        (
            f"[`{group}`]({page_name(group)})",
            ABOUT.get(group, ""),
            str(sum(len(rows(option, {})) for option in options)),
            _code(next((o.typed for o in options if o.typed), "")),
        )
        for group, options in found.items()
    ]
    return "\n".join(
        [
            "# Options",
            "",
            "An option is a file; its page shows it whole. `quantbench list GROUP` lists them in a terminal, those of",
            "your own included (`--config-dir FOLDER`), those of `parts` by kind, as `quantbench list template` does.",
            "Each key can be changed on the command line.",
            "",
            *_table(("group", "what", "options", "chosen by, for instance"), lines),
        ]
    )


def _page(group: str, options: Sequence[Option], families: Mapping[str, Mapping[str, Any]]) -> str:
    listed = [row for option in options for row in rows(option, families)]
    own = FAMILY_FACTS if group == FAMILY else FACTS
    columns = ("option", "what it is", *(own if any(row.facts for row in listed) else ()))
    blank = ("",) * (len(columns) - 2)
    cells = [(f"[`{row.name}`](#{row.anchor})", row.description, *(row.facts or blank)) for row in listed]
    return "\n".join([f"# `{group}`", "", *_table(columns, cells), *(line for o in options for line in _section(o))])


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
