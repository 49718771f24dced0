"""What calibration can and cannot change: data-free recipes are controls with no variance at all."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from quantbench.config.composer import offline_composer
from quantbench.core.build import build
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.walker import quantize_model
from recipes import NAMES, make_recipe, quickened, recipe_spec
from tiny import VOCABULARY, tiny_handle

DATA_FREE = [name for name in NAMES if name != "none" and make_recipe(name).data_free]
CALIBRATED = [name for name in NAMES if not make_recipe(name).data_free]
CHANGES = ("calib=wiki_sample", "calib=code_sample", "seed=1", "calib.draw=1")


@cache
def run_ids() -> dict[str, list[str]]:
    """Of each recipe the runs under the changes of what it is calibrated on, composed as a grid of the command is."""
    points = [(name, change) for name in NAMES for change in CHANGES]
    with offline_composer() as (composer, _):
        cells = composer.cells([[f"quantizer={name}", change] for name, change in points])
    found: dict[str, list[str]] = {name: [] for name in NAMES}
    for (name, _), cell in zip(points, cells, strict=True):
        found[name].append(cell.run_id)
    return found


@pytest.mark.parametrize("name", ["rtn", "gptq", "quarot", "kivi2"])
def test_a_recipe_is_the_same_alone_as_in_a_whole_configuration(name: str) -> None:
    with offline_composer() as (composer, _):
        (cell,) = composer.cells([[f"quantizer={name}"]])
    assert cell.recipe == make_recipe(name)


@pytest.mark.parametrize("name", DATA_FREE)
def test_a_data_free_recipe_is_one_run_whatever_it_is_calibrated_on(name: str) -> None:
    assert len(set(run_ids()[name])) == 1


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
    assert len(set(run_ids()[name])) == 4
