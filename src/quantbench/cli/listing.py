"""What the options say of the data sets they use: read from their yamls alone, so that it takes no time.

`python -m quantbench.cli.listing` prints the table of docs/datasets.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from quantbench.config.compose import config_dir

SOURCES = ("text", "rows")
"""Groups whose options are data sets."""

UNKNOWN = "not known"
SCHEMA_ONLY = "its columns only"


@dataclass(frozen=True)
class DataSet:
    """What an option of the groups text and rows says of its data set; home: where it comes from."""

    option: str
    name: str
    family: str
    domain: str
    language: str
    licence: str
    size: str
    home: str
    relatives: tuple[str, ...]
    tried: str
    note: str

    @property
    def cells(self) -> tuple[str, ...]:
        """For a table: name, family, domain, language, licence, size."""
        return (self.name, self.family, self.domain, self.language, self.licence, self.size)


FAMILIES = ("lm", "instruct", "sa", "nli", "td", "eqa", "ner", "exam")
COLUMNS = ("option", "family", "domain", "language", "home", "licence", "size", "`calib=`", "task", "tried here with")
HEADER = ("name", "family", "domain", "language", "licence", "size")


@cache
def read(file: Path) -> dict[str, Any]:
    """The plain content of an option."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def find(folders: Sequence[Path], group: str, option: str) -> Path | None:
    """The file of an option: that of the last folder which has one."""
    found = [file for folder in folders if (file := folder / group / f"{option}.yaml").is_file()]
    return found[-1] if found else None


def data_set(file: Path, over: Mapping[str, Any] | None = None) -> DataSet:
    """What a text or rows option says of itself, or of the source inside it; `over`: what its user sets anew."""
    content = OmegaConf.to_container(OmegaConf.merge(read(file), over or {}))
    nodes = list(_nodes(content))
    about: dict[str, Any] = {}
    for node in reversed(nodes):  # what is outside counts
        about |= node.get("about") or {}
    told = {key: next((str(n[key]) for n in nodes if isinstance(n.get(key), str)), "") for key in ("name", "family")}
    return DataSet(
        option=file.stem,
        name=told["name"] or file.stem,
        family=told["family"] or "lm",
        domain=str(about.get("domain", UNKNOWN)),
        language=str(about.get("language", UNKNOWN)),
        licence=str(about.get("licence", UNKNOWN)),
        size=str(about.get("size", UNKNOWN)),
        home=_home(nodes),
        relatives=tuple(map(str, about.get("relatives") or ())),
        tried=str(about.get("tried", SCHEMA_ONLY)),
        note=str(about.get("note", about.get("where", ""))),
    )


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """A mapping and those inside it, from the outside in; a description is not looked into."""
    if isinstance(node, dict):
        yield node
        for key, value in node.items():
            if key != "about":
                yield from _nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _nodes(value)


def _home(nodes: Sequence[dict[str, Any]]) -> str:
    """The hub ids, with configuration; the package; or the host of files that are named by address."""
    homes = []
    for node in nodes:
        path, config = node.get("path"), node.get("config")
        if isinstance(path, str) and path.startswith("${"):
            homes.append("a folder of yours")
        elif isinstance(path, str) and "/" in path and "://" not in path:
            homes.append(f"`{path}`" + (f", `{config}`" if config and config != "{subject}" else ""))
        elif path == "???":
            homes.append("a file or folder of yours")
        elif isinstance(node.get("data_files"), dict):
            files = " ".join(map(str, node["data_files"].values()))
            homes += [f"{host}" for host in dict.fromkeys(re.findall(r"https?://([^/]+/[^/]+/[^/]+)", files))]
        if isinstance(node.get("package"), dict):
            homes.append(f"package `{node['package']['name']}` {node['package']['version']}")
    return "; ".join(dict.fromkeys(homes)) or UNKNOWN


def data_sets_of(folders: Sequence[Path], group: str, option: str) -> list[DataSet]:
    """The data sets that an option of calib, task or eval uses: its own, not its natural tests'; each once."""
    file = find(folders, group, option)
    found: dict[tuple[str, str], DataSet] = {}
    for named, place, chosen in _defaults(read(file)) if file else ():
        if place.startswith(("natural", "sets")):
            continue
        if named in SOURCES:
            source = find(folders, named, chosen)
            if source is not None:
                one = data_set(source, _at(read(file), place))
                found.setdefault((one.option, one.name), one)
        elif named in {"task", "eval"}:
            for one in data_sets_of(folders, named, chosen):
                found.setdefault((one.option, one.name), one)
    return list(found.values())


def _at(content: Any, place: str) -> dict[str, Any]:
    """What a yaml sets itself under a dotted place; nothing where it leaves that to its defaults."""
    for name in place.split("."):
        content = content.get(name) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def _defaults(content: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Group, place and option of the entries of a defaults list; "eval" for an option of the same group."""
    for entry in content.get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            yield "eval", "", entry
        if isinstance(entry, dict):
            for key, option in entry.items():
                group, _, place = str(key).partition("@")
                yield group.strip("/ "), place, str(option)


def options(folders: Sequence[Path], group: str) -> list[Path]:
    """The files of a group's options."""
    return sorted(file for folder in folders for file in (folder / group).glob("*.yaml"))


def markdown_table(folders: Sequence[Path]) -> list[str]:
    """The lines of the table of all data sets: what each is, its home, and what it is used for."""
    calib: dict[str, list[str]] = {}
    tests: dict[str, list[str]] = {}
    for group, users in (("calib", calib), ("task", tests)):
        for file in options(folders, group):
            for one in data_sets_of(folders, group, file.stem):
                users.setdefault(one.option, []).append(file.stem)
    lines = [_row(COLUMNS), "|" + "---|" * len(COLUMNS)]
    found = [data_set(file) for group in SOURCES for file in options(folders, group)]
    order = {family: number for number, family in enumerate(FAMILIES)}
    for one in sorted(found, key=lambda d: (order.get(d.family, len(order)), d.language != "en", d.language, d.option)):
        uses = [", ".join(f"`{name}`" for name in users.get(one.option, [])) for users in (calib, tests)]
        size = one.size + (f". {one.note}" if one.note else "")
        described = (one.family, one.domain, one.language, one.home, one.licence, size)
        lines.append(_row((f"`{one.option}`", *described, *uses, one.tried)))
    return lines


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.stdout.write("\n".join(markdown_table([config_dir()])) + "\n")
