"""Composed configuration -> plain values, interpolations resolved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from quantbench.config.explain import explain_value
from quantbench.core.errors import ConfigError

Plain = dict[str, Any]


def resolved(config: DictConfig) -> Plain:
    """The job's own part of a composed configuration as plain values.

    Raises ConfigError for a required value that is missing and for an interpolation that leads nowhere.
    """
    own = config.copy()
    with open_dict(own):
        own.pop("hydra", None)
    return {str(name): resolved_node(own, str(name)) for name in own}


def resolved_node(config: DictConfig, name: str) -> Any:
    """One node of a configuration as plain values; see `resolved`."""
    try:
        required = [name] if OmegaConf.is_missing(config, name) else []
        node = None if required else config[name]
        if isinstance(node, DictConfig):
            required = sorted(OmegaConf.missing_keys(node))
        if required:
            raise ConfigError(f"{required[0]}: this option is required; give {required[0]}=...")
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except OmegaConfBaseException as error:
        raise explain_value(error, name) from error


def resolver(root: Mapping[str, Any], key: str) -> Callable[[Plain], Plain]:
    """Resolves the interpolations of an option that is named inside another one: they lead to values of `root`."""

    def resolve(node: Plain) -> Plain:
        if not _has_interpolation(node):
            return node
        found: Plain = resolved_node(OmegaConf.create({**root, key: node}), key)
        return found

    return resolve


def _has_interpolation(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_interpolation, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_interpolation, value))
    return isinstance(value, str) and ("${" in value or value == "???")
