"""With a rounding that keeps every value, what is left of a recipe is its transforms: the function must be the same."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from quantbench.core.component import Part
from quantbench.core.input_stats import LinearStats
from quantbench.formats.base import Format
from quantbench.formats.corrections import Outliers
from quantbench.formats.quantize import quantize
from quantbench.pipeline.recipe import Recipe
from quantbench.rounding.base import Rounded
from recipes import make_recipe
from rewriting import logits, quantized, relative, uneven
from tiny import FAMILIES, tiny_handle

FAMILY = pytest.mark.parametrize("family", ["llama", "opt", "gpt_neox", "gpt2", "gemma2", "qwen3", "mixtral"])


class Exactly(Part):
    """Keeps every element as an outlier in float32: the limit of many bits."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def round(self, weight: Tensor, stats: LinearStats | None, format: Format) -> Rounded:
        everything = Outliers.of(weight, torch.ones_like(weight, dtype=torch.bool), "float32")
        return Rounded(dataclasses.replace(quantize(weight, format), corrections=(everything,)))


def exact(*overrides: str) -> Recipe:
    exactly: Any = Exactly()
    every_expert = "quantizer.policy.min_expert_tokens=1"  # those with few tokens would be rounded to nearest
    small = make_recipe("rtn", "quantizer.weight.group_size=16", every_expert, *overrides)
    return dataclasses.replace(small, rounding=exactly)


@FAMILY
def test_without_transforms_it_is_the_model_bit_for_bit(family: str) -> None:
    handle = tiny_handle(uneven(FAMILIES[family]()))
    before = logits(handle.model)
    assert quantized(handle, exact()).weights
    assert torch.equal(logits(handle.model), before)


@FAMILY
@pytest.mark.parametrize("transform", ["awq", "smooth"])
def test_a_transform_changes_weights_and_not_the_function(family: str, transform: str) -> None:
    handle = tiny_handle(uneven(FAMILIES[family]()))
    before = logits(handle.model)
    artifact = quantized(handle, exact(f"+transform@quantizer.transforms.t={transform}"))
    assert artifact.changed
    assert relative(logits(handle.model), before) < 2e-5


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_smoothing_of_any_strength_does_not_change_the_function(alpha: float) -> None:
    handle = tiny_handle(uneven(FAMILIES["llama"]()))
    before = logits(handle.model)
    smooth = ("+transform@quantizer.transforms.t=smooth", f"quantizer.transforms.t.alpha={alpha}")
    quantized(handle, exact(*smooth))
    assert relative(logits(handle.model), before) < 2e-5
