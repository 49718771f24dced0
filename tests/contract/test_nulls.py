"""What calibration can and cannot change: data-free recipes are controls with no variance at all."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from quantbench.config.compose import cell_of, config_dir, resolved
from quantbench.core.build import build
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.walker import quantize_model
from recipes import NAMES, make_recipe, quickened, recipe_spec
from tiny import VOCABULARY, tiny_handle

DATA_FREE = [name for name in NAMES if name != "none" and make_recipe(name).data_free]
CALIBRATED = [name for name in NAMES if not make_recipe(name).data_free]
CHANGES = ("calib=wiki_sample", "calib=code_sample", "seed=1", "calib.draw=1")


@cache
def composed(*overrides: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A resolved configuration, and the options chosen in it."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
        choices = OmegaConf.to_container(config.hydra.runtime.choices)
    assert isinstance(choices, dict)
    return resolved(config), {str(group): choice for group, choice in choices.items()}


def run_ids(name: str) -> set[str]:
    """The run of a recipe under each change of what it is calibrated on."""
    recipe = recipe_spec(name)
    return {cell_of({**config, "quantizer": recipe}, [], chosen).run_id for config, chosen in map(composed, CHANGES)}


@pytest.mark.parametrize("name", ["rtn", "gptq"])
def test_a_recipe_is_the_same_in_a_whole_configuration_as_alone(name: str) -> None:
    for change in CHANGES:
        assert composed(f"quantizer={name}", change)[0] == {**composed(change)[0], "quantizer": recipe_spec(name)}


@pytest.mark.parametrize("name", DATA_FREE)
def test_a_data_free_recipe_is_one_run_whatever_it_is_calibrated_on(name: str) -> None:
    assert len(run_ids(name)) == 1


@pytest.mark.parametrize("name", DATA_FREE)
def test_a_data_free_recipe_gives_the_same_weights_whatever_it_is_shown(name: str) -> None:
    spec = quickened(recipe_spec(name))
    recipe = build(spec, Recipe, "quantizer")
    prints = set()
    for seed in (None, 1, 2):
        draw = torch.Generator().manual_seed(seed or 0)
        data = None if seed is None else torch.randint(0, VOCABULARY, (2, 16), generator=draw)
        found = quantize_model(tiny_handle(), recipe, data, torch.device("cpu"), lambda _done, _total: None)
        prints.add(found.artifact.fingerprint())
    assert len(prints) == 1


@pytest.mark.parametrize("name", CALIBRATED)
def test_a_calibrated_recipe_is_another_run_for_another_text_or_draw(name: str) -> None:
    assert len(run_ids(name)) == 4
