"""The parts that docs/add_a_quantizer.md makes quantize a model, are stored exactly, and do what the page says."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from doc_pages import write_files
from helpers_math import correlated_inputs, random, stats_of
from quantbench.config.named import named_recipe
from quantbench.core.input_stats import output_error
from quantbench.formats.base import Format
from quantbench.formats.int import IntFormat
from quantbench.formats.quantize import quantize
from quantbench.models.handle import ModelHandle
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.walker import quantize_model
from quantbench.rounding.base import Rounding
from quantbench.transforms.base import ScaleTransform
from tiny import tiny_llama, tiny_tokenizer

PACKAGE = "mylab"
RECIPES = ["coordinate", "fp4", "gptq_down8", "rms_scale", "ternary"]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the files of the worked examples, from which Python can import."""
    folder = tmp_path_factory.mktemp("examples")
    write_files(folder)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for module in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[module]


def recipe_of(examples: Path, name: str) -> Recipe:
    """A recipe composed as the command composes it with --config-dir."""
    return named_recipe(name, folder=examples / PACKAGE / "conf")


@pytest.mark.parametrize("name", RECIPES)
def test_example_quantizes_a_model_that_is_stored_and_reloaded_exactly(examples: Path, name: str) -> None:
    recipe = recipe_of(examples, name)
    handle = ModelHandle(tiny_llama(), tiny_tokenizer(), "random")
    tokens = torch.randint(2, 250, (2, 32), generator=torch.Generator().manual_seed(0))
    artifact = quantize_model(handle, recipe, tokens, torch.device("cpu"), lambda _done, _all: None).artifact
    assert len(artifact.weights) == 14
    assert bool(artifact.changed) == (name == "rms_scale")
    again = Artifact.from_tensors(*artifact.to_tensors())
    assert again.fingerprint() == artifact.fingerprint()
    for layer, weight in artifact.weights.items():
        assert torch.equal(again.weights[layer].dequantize(), weight.dequantize())


def test_every_recipe_of_the_pages_is_tried(examples: Path) -> None:
    names = {path.stem for path in (examples / PACKAGE / "conf" / "quantizer").glob("*.yaml")}
    assert sorted(names) == RECIPES


def test_rounding_example_never_does_worse_than_nearest(examples: Path) -> None:
    rounding = recipe_of(examples, "coordinate").rounding
    assert isinstance(rounding, Rounding)
    stats = stats_of(correlated_inputs(200, 24, seed=1))
    assert stats.hessian is not None
    weight = random(6, 24, seed=2)
    int3 = IntFormat(bits=3, group_size=16, symmetric=False)
    before = weight.clone()
    losses = [
        output_error(rounded.dequantize() - weight, stats.hessian)
        for rounded in (quantize(weight, int3), rounding.round(weight, stats, int3).weight)
    ]
    assert losses[1] < losses[0]
    assert torch.equal(weight, before)


def test_transform_example_survives_an_input_that_was_always_zero(examples: Path) -> None:
    (transform,) = recipe_of(examples, "rms_scale").transforms.values()
    assert isinstance(transform, ScaleTransform)
    x = correlated_inputs(50, 8, seed=3)
    x[:, 2] = 0
    scale = transform.scale([random(4, 8, seed=4)], stats_of(x), [None])
    assert scale.shape == (8,)
    assert bool((scale > 0).all() & scale.isfinite().all())


def test_format_example_takes_the_nearest_of_its_values(examples: Path) -> None:
    fp4 = recipe_of(examples, "fp4").weight
    assert isinstance(fp4, Format)
    weight = torch.cat([random(3, 40, seed=5), torch.zeros(3, 8)], dim=1)
    rounded = quantize(weight, fp4)
    index = torch.arange(48) // 32
    levels = torch.tensor([0.0, 0.5, 1, 1.5, 2, 3, 4, 6])
    grid = torch.cat([levels, -levels]) * rounded.params.scale[:, index][..., None]
    nearest = (grid - weight[..., None]).abs().amin(dim=-1)
    torch.testing.assert_close((rounded.dequantize() - weight).abs(), nearest)
    assert rounded.bits_per_weight() == 4 + 16 * 2 / 48
    with pytest.raises(ValueError, match="NaN or infinity"):
        fp4.params(torch.full((2, 32), torch.nan))


def test_the_test_of_the_page_passes(examples: Path) -> None:
    module: Any = importlib.import_module(f"{PACKAGE}.test_coordinate")
    module.test_coordinate_descent_beats_rounding_to_nearest()


def test_ternary_codes_are_packed_by_fives_and_come_back(examples: Path) -> None:
    ternary = recipe_of(examples, "ternary").weight
    assert isinstance(ternary, Format)
    weight = torch.cat([random(3, 70, seed=6), torch.zeros(3, 3)], dim=1)
    rounded = quantize(weight, ternary)
    assert set(rounded.codes.flatten().tolist()) == {0, 1, 2}
    torch.testing.assert_close(rounded.params.scale[:, 0], weight[:, :64].abs().mean(dim=1), rtol=1e-3, atol=0)
    stored = ternary.pack(rounded.codes, rounded.params)
    assert stored["codes"].shape == (-(-3 * 73 // 5),)
    codes, params = ternary.unpack(stored, (3, 73))
    assert torch.equal(codes, rounded.codes)
    assert torch.equal(params.scale, rounded.params.scale)
    bits = 8 * stored["codes"].numel() + 16 * stored["scale"].numel()
    assert rounded.bits_per_weight() == pytest.approx(bits / (3 * 73))


def test_a_rule_of_the_page_gives_one_layer_other_bits(examples: Path) -> None:
    recipe = recipe_of(examples, "gptq_down8")
    plan = recipe.policy.plan([["layers.0.mlp.down_proj", "layers.0.mlp.up_proj"]], recipe.weight)
    assert {name: getattr(grid, "bits", None) for name, grid in plan.items()} == {
        "layers.0.mlp.down_proj": 8,
        "layers.0.mlp.up_proj": 4,
    }
