"""Shipped recipes, composed as the command composes them."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from quantbench.config.folders import config_dir
from quantbench.core.build import build
from quantbench.pipeline.recipe import Recipe
from quantbench.rounding.base import Rounding

NAMES = sorted(path.stem for path in (config_dir() / "quantizer").glob("*.yaml") if path.stem != "checkpoint")
"""All options of conf/quantizer that quantize."""

SMALL = {
    "group_size": 16,
    "iterations": 2,
    "steps": 2,
    "residual": 16,
    "min_expert_tokens": 4,
    "tau_steps": 4,
}
"""Largest values of options that would make a tiny model slow, or that it is too small for."""


NEVER_ROTATED = ("opt", "gpt_neox", "gpt2", "gemma2")
"""Families whose residual stream cannot be rotated."""


def recipe_spec(name: str, *overrides: str) -> dict[str, Any]:
    """The resolved mapping that `quantizer=NAME` and further overrides stand for."""
    return copy.deepcopy(_composed(name, overrides))


def make_recipe(name: str, *overrides: str) -> Recipe:
    """The recipe of `quantizer=NAME` with further overrides of the command line."""
    return build(recipe_spec(name, *overrides), Recipe, "quantizer")


def small_spec(name: str) -> dict[str, Any]:
    """A shipped recipe with options that fit a tiny model."""
    spec: dict[str, Any] = _shrunk(recipe_spec(name))
    return spec


def quickened(spec: dict[str, Any]) -> dict[str, Any]:
    """A recipe that learns, with two steps instead of hundreds; others as they are."""
    if "steps" in (spec["rounding"] or {}):
        spec["rounding"]["steps"] = 2
    return spec


def assert_pure_and_data_free(recipe: Recipe) -> None:
    """Its rounding reads no statistics, gives the same twice, and leaves its input alone."""
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    before = weight.clone()
    assert recipe.data_free
    assert isinstance(recipe.rounding, Rounding)
    assert recipe.weight is not None
    first, second = (recipe.rounding.round(weight, None, recipe.weight).weight.dequantize() for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(weight, before)


@cache
def refused() -> dict[tuple[str, str], str]:
    """(recipe, family): what the refusal of a shipped recipe says. Every other pair of tests/contract works."""
    whole = [name for name in NAMES if recipe_spec(name)["rotation"] is not None]
    rotations = [name for name in NAMES if (recipe_spec(name)["rotation"] or {}).get("residual")]
    return {
        **{(name, "mixtral"): "weights in a 3-D parameter" for name in whole},
        **{(name, family): "rotation.residual" for name in rotations for family in NEVER_ROTATED},
    }


@cache
def _composed(name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        if any("@" in override for override in overrides):  # options of other groups are looked up from the root
            config = compose("config", overrides=[f"quantizer={name}", *overrides])
        else:  # quicker, and the same: tests/contract/test_nulls.py
            config = compose(f"quantizer/{name}", overrides=list(overrides))
        plain = OmegaConf.to_container(config.quantizer, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _shrunk(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: min(v, SMALL[k]) if k in SMALL and type(v) is int else _shrunk(v) for k, v in value.items()}
    return [_shrunk(v) for v in value] if isinstance(value, list) else value
