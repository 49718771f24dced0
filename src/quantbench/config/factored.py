"""Composing the cells of a grid without asking Hydra for each: what one option decides is composed once.

Hydra takes a tenth of a second a cell. But the resolved value of a root node (`quantizer`, `calib`, ...) depends only
on the overrides of that node and of the nodes its interpolations lead to. So a cell whose nodes have all been seen,
each in another cell, is put together from those; any other one is composed by Hydra, and its nodes are remembered.

Overrides that belong to no node (a user's `experiment` group, say) count for every node. Where a defaults list itself
contains an interpolation, or a composed cell contradicts what is remembered, nodes are not independent, and every cell
is composed by Hydra.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from quantbench.config.compose import NODES, check_additions, group_names, resolved

_ROOTS = re.compile(r"\$\{(?:[a-z.]+:)?([A-Za-z_]+)")
_DEFAULTS = re.compile(r"^defaults:.*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)

Composed = tuple[dict[str, Any], dict[str, Any]]
"""The resolved configuration, and the option chosen in each group of NODES."""


class Composer:
    """Composes cells by their overrides. Equal nodes of different cells are the same object."""

    def __init__(self, loader: Any, load: Callable[[list[str]], DictConfig]) -> None:
        self._load = load
        self._groups = group_names(loader)
        self._parser = OverridesParser.create()
        self._owners: dict[str, str | None] = {}
        self._reads: dict[str, frozenset[str]] = {}
        self._nodes: dict[tuple[str, tuple[str, ...]], tuple[Any, Any]] = {}
        self._roots: list[str] = []
        self.factored = True
        self.by_hydra = 0
        """How many cells Hydra was asked for."""

    def compose(self, overrides: Sequence[str]) -> Composed:
        """A cell: ConfigError for an unknown key, and what Hydra raises for an unknown option."""
        if self._roots and self.factored:
            keys = self._keys(overrides)
            found = [self._nodes.get(key) for key in keys]
            if all(node is not None for node in found):
                pairs = [(key[0], node) for key, node in zip(keys, found, strict=True) if node is not None]
                choices = {name: choice for name, (_, choice) in pairs if name in NODES}
                return {name: value for name, (value, _) in pairs}, choices
        return self._by_hydra(overrides)

    def _by_hydra(self, overrides: Sequence[str]) -> Composed:
        config = self._load(list(overrides))
        if not self.by_hydra:
            self.factored = not _computed_defaults(config.hydra.runtime.config_sources)
        self.by_hydra += 1
        check_additions(overrides, config, self._groups)
        plain, chosen = resolved(config), config.hydra.runtime.choices
        choices = {name: str(chosen[name]) for name in NODES}
        self._learn_reads(config, plain)
        for key in self._keys(overrides):
            name = key[0]
            known = self._nodes.setdefault(key, (plain[name], choices.get(name)))
            if known != (plain[name], choices.get(name)):
                self.factored = False
            elif self.factored:
                plain[name] = known[0]
        return plain, choices

    def _keys(self, overrides: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
        """For each root node the overrides that its value depends on."""
        owned = [(self._owner(override), override) for override in overrides]
        return [
            (name, tuple(sorted(o for owner, o in owned if owner is None or owner in self._reads[name])))
            for name in self._roots
        ]

    def _owner(self, override: str) -> str | None:
        """The root node an override belongs to; None for one that may change any."""
        if override not in self._owners:
            (parsed,) = self._parser.parse_overrides([override])
            name, _, package = parsed.get_key_element().lstrip("+~").partition("@")
            root = (package or name).partition(".")[0]
            self._owners[override] = root if root in self._roots else None
        return self._owners[override]

    def _learn_reads(self, config: DictConfig, plain: dict[str, Any]) -> None:
        """Which nodes each node reads, directly or not; more of them become known as options are seen."""
        raw = OmegaConf.to_container(config, resolve=False)
        assert isinstance(raw, dict)
        direct = {name: {name, *_mentioned(raw[name])} & plain.keys() for name in plain}
        before = dict(self._reads)
        for name in plain:
            reached = direct[name] | before.get(name, frozenset())
            while (more := set().union(*(direct[one] for one in reached))) - reached:
                reached |= more
            self._reads[name] = frozenset(reached)
        if self._roots != list(plain) or before != self._reads:
            self._roots = list(plain)
            self._owners.clear()
            self._nodes.clear()  # they were remembered under too few overrides


def _mentioned(value: Any) -> Iterable[str]:
    """Root names of the interpolations in a raw configuration."""
    if isinstance(value, str):
        yield from _ROOTS.findall(value)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _mentioned(one)
    elif isinstance(value, list):
        for one in value:
            yield from _mentioned(one)


def _computed_defaults(sources: Iterable[Any]) -> bool:
    """Whether a defaults list on the search path chooses an option by what was chosen elsewhere."""
    for source in sources:
        folder = Path(source.path)
        if source.schema == "file" and folder.is_dir():
            for file in folder.rglob("*.yaml"):
                if any("${" in part for part in _DEFAULTS.findall(file.read_text(encoding="utf-8"))):
                    return True
    return False
