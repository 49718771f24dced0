"""Composing the cells of a grid without asking Hydra for each: what one option decides is composed once.

Hydra takes a tenth of a second a cell. But a root node (`quantizer`, `calib`, ...) depends, before interpolations are
resolved, only on its own overrides, and after that on those of the nodes its interpolations lead to: part by part, so
that tests which are those of the calibration set do not depend on its seed. So a cell whose nodes have all been seen,
each in another cell, is put together from those; any other one is composed by Hydra, and its nodes are remembered.

Overrides that belong to no node (a user's `experiment` group, say) count for every node. Where a defaults list itself
contains an interpolation, or a composed cell contradicts what is remembered, nodes are not independent, and every cell
is composed by Hydra.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from quantbench.config.explain import check_additions, check_chosen
from quantbench.config.groups import CELL, ROOT
from quantbench.config.resolving import resolved, resolved_node

_INTERPOLATION = re.compile(r"\$\{([^${}]*)")
_PATH = re.compile(r"\w+(\.\w+)*")
_DEFAULTS = re.compile(r"^defaults:.*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)

Key = tuple[str, tuple[str, ...]]
"""A root node, and overrides."""

Owned = tuple[str | None, str]
"""The root node an override belongs to, and the override."""


@dataclass(frozen=True, eq=False)
class Node:
    """A resolved root node. Equal nodes of different cells are the same object."""

    plain: Any


Composed = tuple[dict[str, Node], dict[str, str]]
"""The resolved root nodes, and the option chosen in each group that tells cells apart."""


class Factored:
    """Composes cells by their overrides, equal nodes of different cells once."""

    def __init__(self, loader: Any, load: Callable[[list[str]], DictConfig]) -> None:
        self._load = load
        self._groups = {str(name) for name in loader.list_groups("")}
        self._parser = OverridesParser.create()
        self._parsed: dict[str, Override] = {}
        self._owners: dict[str, str | None] = {}
        self._paths: dict[str, set[str]] = {}
        self._reads: dict[str, frozenset[str]] = {}
        self._raw: dict[Key, tuple[Any, Any]] = {}
        self._resolved: dict[Key, Node] = {}
        self._roots: list[str] = []
        self.factored = True
        self.by_hydra = 0
        """How many cells Hydra was asked for."""

    def compose(self, overrides: Sequence[str]) -> Composed:
        """A cell: ConfigError for an unknown key, and what Hydra raises for an unknown option."""
        if not self._roots or not self.factored:
            return self._by_hydra(overrides)
        owned = [(self._owner(override), override) for override in overrides]
        raw = {name: self._raw_node(name, owned) for name in self._roots}
        if any(node is None for node in raw.values()):
            return self._by_hydra(overrides)
        known = {name: node for name, node in raw.items() if node is not None}
        plain = {name: self._node(name, owned, known) for name in self._roots}
        return plain, {name: known[name][1] for name in CELL}

    def _by_hydra(self, overrides: Sequence[str]) -> Composed:
        config = self._load(list(overrides))
        if not self.by_hydra:
            self.factored = not _computed_defaults(config.hydra.runtime.config_sources)
        self.by_hydra += 1
        check_chosen(config.hydra.runtime.choices)
        check_additions(overrides, config, self._groups)
        plain, chosen = resolved(config), config.hydra.runtime.choices
        choices = {name: str(chosen[name]) for name in CELL}
        raw = OmegaConf.to_container(config, resolve=False)
        assert isinstance(raw, dict)
        if self._roots != list(plain):
            self._roots = list(plain)
            self._owners.clear()
        owned = [(self._owner(override), override) for override in overrides]
        for name in self._roots:
            found = (raw[name], choices.get(name))
            if self._raw.setdefault(_key(name, owned, {name}), found) != found:
                self.factored = False
        self._learn_reads()
        nodes = {}
        for name in self._roots:
            nodes[name] = self._resolved.setdefault(_key(name, owned, self._reads[name]), Node(plain[name]))
        return nodes, choices

    def _raw_node(self, name: str, owned: Sequence[Owned]) -> tuple[Any, Any] | None:
        """A node before its interpolations are resolved, and the option chosen; None if only Hydra can tell."""
        key = _key(name, owned, {name})
        alone = len(key[1]) == 1 and self._owners[key[1][0]] == name
        if key not in self._raw and name not in ROOT and alone:
            value = self._parsed[key[1][0]].value()
            if isinstance(value, str | int | float | bool) and "${" not in str(value):  # what is set needs no Hydra
                self._raw[key] = (value, None)
        return self._raw.get(key)

    def _node(self, name: str, owned: Sequence[Owned], raw: dict[str, tuple[Any, Any]]) -> Node:
        """A node with its interpolations resolved, which needs the nodes it reads and no others."""
        key = _key(name, owned, self._reads[name])
        if key not in self._resolved:
            part = OmegaConf.create({one: raw[one][0] for one in sorted(self._reads[name])})
            self._resolved[key] = Node(resolved_node(part, name))
        return self._resolved[key]

    def _owner(self, override: str) -> str | None:
        """The root node an override belongs to; None for one that may change any."""
        if override not in self._owners:
            (parsed,) = self._parser.parse_overrides([override])
            self._parsed[override] = parsed
            name, _, package = parsed.get_key_element().lstrip("+~").partition("@")
            root = _root(package or name)
            self._owners[override] = root if root in self._roots else None
        return self._owners[override]

    def _learn_reads(self) -> None:
        """Which nodes each node reads, directly or not; more of them become known as options are seen."""
        before = dict(self._reads)
        seen: dict[str, list[Any]] = {name: [] for name in self._roots}
        for (name, _), (node, _) in self._raw.items():
            seen[name].append(node)
        leads = cache(lambda path: set[str]().union(*(_mentioned(node, path) for node in seen[_root(path)])))
        for name in self._roots:
            paths = self._paths.setdefault(name, {name})
            while more := {place for path in paths for place in leads(path) if _root(place) in seen} - paths:
                paths |= more
            self._reads[name] = frozenset(map(_root, paths))
        if before != self._reads:
            self._resolved.clear()  # they were remembered under too few overrides


def _key(name: str, owned: Sequence[Owned], reads: Collection[str]) -> Key:
    """A node, and the overrides it depends on if it reads these nodes."""
    return name, tuple(sorted(override for owner, override in owned if owner is None or owner in reads))


def _root(path: str) -> str:
    return path.partition(".")[0]


def _mentioned(node: Any, path: str) -> set[str]:
    """Where the interpolations under a dotted path, in the raw root node it begins with, lead to: dotted paths."""
    root, *names = path.split(".")
    for name in names:
        if not isinstance(node, dict) or name not in node:
            break
        node = node[name]
    found = set()
    for text in _interpolations(node):
        resolver, colon, arguments = text.partition(":")
        if text.startswith(".") or (colon and not resolver.startswith("oc.")):
            found.add(root)  # a relative one, or a resolver that may look at what stands beside it
        elif place := _PATH.match((arguments if colon else text).strip()):
            found.add(place[0])
    return found


def _interpolations(value: Any) -> Iterable[str]:
    """What stands behind each `${` in a raw configuration, up to the next brace."""
    if isinstance(value, str):
        yield from _INTERPOLATION.findall(value)
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _interpolations(one)


def _computed_defaults(sources: Iterable[Any]) -> bool:
    """Whether a defaults list on the search path chooses an option by what was chosen elsewhere."""
    for source in sources:
        folder = Path(source.path)
        if source.schema == "file" and folder.is_dir():
            for file in folder.rglob("*.yaml"):
                if any("${" in part for part in _DEFAULTS.findall(file.read_text(encoding="utf-8"))):
                    return True
    return False
