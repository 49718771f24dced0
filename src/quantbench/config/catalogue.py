"""The option files by name, read as plain values: data sets, families, named parts, lm-eval's tasks, hardware.

Hydra composes what a command line chooses; what is only named inside an option (a family, the members of a suite, a
sampler) is looked up here, in the same folders and in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from quantbench.config.folders import Folders
from quantbench.core.build import unknown_choice, unknown_key
from quantbench.core.errors import ConfigError

PARTS = ("sampler", "template", "scoring", "render")
"""Parts of data sets and tests that are chosen by name: one file of each kind, conf/parts/KIND.yaml."""

FAMILY = ("kind", "reads", "template", "scoring", "sampler", "testing", "members", "like", "common")
"""Keys of a family; those that it must have, itself or from the one it is like:"""
FAMILY_NEEDS = ("kind", "reads", "scoring")

LISTS = ("lm_eval", "hardware")
"""Groups whose options are the entries of one file, conf/GROUP/catalogue.yaml."""

Plain = dict[str, Any]


@cache
def read_yaml(file: Path) -> Plain:
    """The mapping in a yaml file. Raises ConfigError if it is not one."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: {yaml_problem(error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected a mapping of keys, found {type(content).__name__}")
    return content


def yaml_problem(error: Exception) -> str:
    """What is wrong with the text of a yaml file."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} is no UTF-8: save it in that encoding"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, yaml.MarkedYAMLError):
        mark: Any = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        tab = " (yaml is indented with spaces)" if "\\t" in str(error.problem) else ""
        return f"{place}{error.problem or error.context}{tab}"
    if isinstance(error, OSError) and error.strerror:
        return f"it cannot be read: {error.strerror}"
    return f"it is no yaml: {' '.join(str(error).split())}"


class Catalogue:
    """The options in some folders; of equal names the first folder's counts."""

    def __init__(self, folders: Folders | None = None) -> None:
        chosen = folders or Folders()
        self._folders, self._sweeps = chosen.options, chosen.sweeps

    def files(self, group: str) -> dict[str, Path]:
        """The option files of a group by name, in alphabetical order."""
        places = [*(self._sweeps if group == "sweep" else ()), *(folder / group for folder in self._folders)]
        found = {file.stem: file for place in reversed(places) for file in place.glob("*.yaml")}
        return dict(sorted(found.items()))

    def option(self, group: str, name: str) -> Plain:
        """The content of an option. Raises ConfigError, with what was meant, if there is none."""
        files = self.files(group)
        if name not in files:
            raise ConfigError(unknown_choice(group, name, list(files)))
        return read_yaml(files[name])

    def family(self, name: str) -> Plain:
        """A family with what it takes over from the one it is `like`.

        Raises ConfigError for a key that no family has, one that is missing, and families that are like each other.
        """
        found = self._whole_family(name, ())
        if missing := [key for key in FAMILY_NEEDS if key not in found]:
            raise ConfigError(f"family {name}: `{missing[0]}` is missing; give it, or the family that it is `like`")
        return found

    def _whole_family(self, name: str, before: tuple[str, ...]) -> Plain:
        if name in before:
            raise ConfigError(f"family {name}: it is like itself ({' like '.join([*before, name])})")
        own = self.option("family", name)
        if unknown := sorted(set(own) - set(FAMILY)):
            raise ConfigError(unknown_key(f"family {name}.{unknown[0]}", list(FAMILY)))
        like = own.get("like")
        if like is None:
            return own
        whole = self._whole_family(str(like), (*before, name))
        common = {**whole.get("common", {}), **own.get("common", {})}
        return {**whole, **{key: value for key, value in own.items() if key != "like"}, "common": common}

    def parts(self, kind: str) -> Plain:
        """All parts of a kind by name."""
        found: Plain = {}
        for folder in reversed(self._folders):
            file = folder / "parts" / f"{kind}.yaml"
            if file.is_file():
                found |= read_yaml(file)
        return found

    def part(self, kind: str, chosen: str | Mapping[str, Any]) -> Plain:
        """A part by its name, or as it is where it is given in full. Raises ConfigError for an unknown name."""
        if not isinstance(chosen, str):
            return dict(chosen)
        known = self.parts(kind)
        if chosen not in known:
            raise ConfigError(unknown_choice(kind, chosen, list(known)))
        return dict(known[chosen])

    def comments(self, kind: str) -> dict[str, str]:
        """What stands as a comment before each part of a kind."""
        found: dict[str, str] = {}
        for folder in reversed(self._folders):
            file = folder / "parts" / f"{kind}.yaml"
            lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
            for before, line in pairwise(lines):
                if before.startswith("# ") and line[:1].isalpha():
                    found[line.partition(":")[0]] = before.removeprefix("# ")
        return found

    def entries(self, group_name: str) -> Plain:
        """The entries of a group of LISTS by name."""
        found: Plain = {}
        for folder in reversed(self._folders):
            file = folder / group_name / "catalogue.yaml"
            if file.is_file():
                found |= read_yaml(file)
        return found

    def lm_eval(self) -> Plain:
        """What is known of lm-eval's tasks, by name."""
        return self.entries("lm_eval")

    def count(self, group_name: str) -> int:
        """How many options a group has."""
        if group_name in LISTS:
            return len(self.entries(group_name))
        return len(self.parts(group_name) if group_name in PARTS else self.files(group_name))

    def members(self, family: str) -> Sequence[str]:
        """The data sets that a family lists."""
        return [str(name) for name in self.family(family).get("members", ())]
