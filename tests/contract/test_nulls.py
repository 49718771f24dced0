"""What calibration can and cannot change: data-free recipes are controls with no variance at all."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from quantbench.config.cell import Cell, checked
from quantbench.config.composer import offline_composer
from quantbench.config.node import ConfigNode
from quantbench.core.build import build
from quantbench.pipeline.any_recipe import AnyRecipe
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.walker import quantize_model
from recipes import NAMES, make_recipe, quickened, recipe_spec
from tiny import VOCABULARY, tiny_handle

DATA_FREE = [name for name in NAMES if name != "none" and make_recipe(name).data_free]
CALIBRATED = [name for name in NAMES if not make_recipe(name).data_free]
CHANGES = ("calib=wiki_sample", "calib=code_sample", "seed=1", "calib.draw=1")


@cache
def changed() -> list[Cell]:
    """A calibrated cell under the changes of what it is calibrated on, composed as a grid of the command is."""
    with offline_composer() as (composer, _):
        return composer.cells([["quantizer=gptq", change] for change in CHANGES])


def run_ids(name: str) -> set[str]:
    """The runs of a recipe under those changes."""
    recipe = ConfigNode(recipe_spec(name), AnyRecipe, "quantizer")
    return {
        checked(
            *(cell.settings, cell.scale_part, cell.model_part, recipe, cell.calib_part, cell.task_parts),
            cell.cluster_part,
            choices=cell.choices,
            overrides=cell.overrides,
        ).run_id
        for cell in changed()
    }


@pytest.mark.parametrize("name", ["rtn", "gptq", "quarot", "kivi2"])
def test_a_recipe_is_the_same_alone_as_in_a_whole_configuration(name: str) -> None:
    with offline_composer() as (composer, _):
        (cell,) = composer.cells([[f"quantizer={name}"]])
    assert cell.recipe == make_recipe(name)


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
    assert len(run_ids(name)) == len(CHANGES)
