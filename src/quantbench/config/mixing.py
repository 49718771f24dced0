"""What `conf/calib/mix.yaml` asks for: its parts by weight, put together from the calibration options it names."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from quantbench.core.errors import ConfigError

CALIB_NODES = ("natural", "parts", "sets")
"""Nodes of a calibration set that are not options of its component: its tests, and what a mixture is made from."""

ADD_A_SET = "+calib@calib.sets.NAME=OPTION +calib.parts.NAME=WEIGHT"
"""How another set becomes part of a mixture."""

OWN = ("n", "length", "seed", "draw")
"""Options that a part takes over from the mixture."""


def register_resolvers() -> None:
    """Make `${mixed:}` and `${natural_of_parts:}` known to OmegaConf; may be called again."""
    OmegaConf.register_new_resolver("mixed", mixed, replace=True)
    OmegaConf.register_new_resolver("natural_of_parts", natural_of_parts, replace=True)


def mixed(*, _parent_: DictConfig) -> DictConfig:
    """The parts that have a weight, each as a `quantbench.calibration.mixture.MixedSet`, in alphabetical order."""
    own = {name: _parent_[name] for name in OWN}
    found = {}
    for name, weight in _weights(_parent_).items():
        node = _set(_parent_, name)
        made = {key: value for key, value in node.items() if key not in CALIB_NODES}
        found[name] = {"_target_": "quantbench.calibration.mixture.MixedSet", "weight": weight, "set": made | own}
    return OmegaConf.create(found)


def natural_of_parts(*, _parent_: DictConfig) -> DictConfig:
    """The natural tests of all parts that have a weight."""
    found: dict[str, Any] = {}
    for name in _weights(_parent_):
        found |= _set(_parent_, name).get("natural") or {}
    return OmegaConf.create(found)


def _weights(mix: DictConfig) -> dict[str, float]:
    found = {str(name): weight for name, weight in sorted(mix.parts.items()) if weight is not None}
    for name, weight in found.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ConfigError(f"calib.parts.{name}={weight!r}: a weight is a number; null leaves a part out")
    return {name: float(weight) for name, weight in found.items()}


def _set(mix: DictConfig, name: str) -> dict[str, Any]:
    if name not in mix.sets:
        raise ConfigError(
            f"calib.parts.{name}: the mixture has no set of that name; add it: +calib@calib.sets.{name}=OPTION. "
            f"It has {', '.join(map(str, mix.sets))}"
        )
    node = OmegaConf.to_container(mix.sets[name], resolve=True)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}
