"""Shipped recipes, composed as the command composes them."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from quantbench.config.build import build
from quantbench.config.compose import config_dir
from quantbench.pipeline.recipe import Recipe

NAMES = sorted(path.stem for path in (config_dir() / "quantizer").glob("*.yaml"))
"""All options of conf/quantizer."""


def recipe_spec(name: str, *overrides: str) -> dict[str, Any]:
    """The resolved mapping that `quantizer=NAME` and further overrides stand for."""
    return copy.deepcopy(_composed(name, overrides))


def make_recipe(name: str, *overrides: str) -> Recipe:
    """The recipe of `quantizer=NAME` with further overrides of the command line."""
    return build(recipe_spec(name, *overrides), Recipe, "quantizer")


def quickened(spec: dict[str, Any]) -> dict[str, Any]:
    """A recipe that learns, with two steps instead of hundreds; others as they are."""
    for key in {"iterations", "epochs", "steps"} & set(spec["rounding"] or {}):
        spec["rounding"][key] = 2
    return spec


@cache
def _composed(name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("config", overrides=[f"quantizer={name}", *overrides])
        plain = OmegaConf.to_container(config.quantizer, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
