"""Shifted inputs in the pipeline: the function stays, and what follows sees the shifted inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from quantbench.formats.base import Format
from quantbench.formats.int import IntActivation, IntFormat
from quantbench.formats.quantize import quantize
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.input_ops import ShiftInput
from quantbench.pipeline.policy import Policy
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.stats import LinearStats
from quantbench.rounding.base import Rounded
from quantbench.rounding.nearest import Nearest
from quantbench.transforms.awq import AwqScale
from quantbench.transforms.base import ScaleTransform, ShiftTransform
from quantbench.transforms.os_plus import OsPlus
from quantbench.transforms.rotation import Rotation
from test_rotate import logits, quantized, relative, uneven
from tiny import tiny_gpt2, tiny_handle, tiny_llama, tiny_opt

INT8 = IntFormat(bits=8, group_size="channel", symmetric=True, scale_convention="narrow_range")
TOKEN4 = IntActivation(bits=4, symmetric=True, scale_convention="narrow_range", granularity="token", dynamic=True)


class Unquantized:
    """Activations as they are, for a recipe that must have an activation format."""

    needs: frozenset[str] = frozenset()

    def static_params(self, minimum: Tensor, maximum: Tensor) -> tuple[Tensor, None]:
        raise NotImplementedError

    def fake_quantize(self, x: Tensor, scale: Tensor | None = None, zero: Tensor | None = None) -> Tensor:
        return x


class Watching:
    """Rounds to nearest, and keeps the statistics it is given."""

    needs: ClassVar[frozenset[str]] = frozenset({"hessian", "mean_abs", "absmax", "sample", "minimum", "maximum"})

    def __init__(self) -> None:
        self.seen: list[LinearStats] = []

    def round(self, weight: Tensor, stats: LinearStats | None, format: Format) -> Rounded:
        assert stats is not None
        self.seen.append(stats)
        return Rounded(quantize(weight, format))


@pytest.mark.parametrize("make", [tiny_llama, tiny_opt, tiny_gpt2])
@pytest.mark.parametrize("rotation", [None, Rotation(residual=False, value=False, heads=False)])
def test_shifts_leave_the_function_unchanged_and_reload(
    make: Callable[[], PreTrainedModel], rotation: Rotation | None
) -> None:
    handle = tiny_handle(uneven(make()))
    before = logits(handle.model)
    transforms: dict[str, ScaleTransform | ShiftTransform] = {"a": OsPlus(grid=3), "b": AwqScale(grid=3)}
    recipe = Recipe(
        weight=INT8,
        rounding=Nearest(),
        activation=Unquantized(),
        policy=Policy(keep=("[.]1[.]",)),
        transforms=transforms,
        rotation=rotation,
    )
    artifact = quantized(handle, recipe)
    for name in list(artifact.weights):  # what remains is the rewriting of the first block, not its rounding
        del artifact.weights[name]
    shifts = [op for op in artifact.ops if isinstance(op, ShiftInput)]
    assert shifts
    assert all(".0." in op.module and float(op.shift.abs().max()) > 0.01 for op in shifts)


@pytest.mark.parametrize("make", [tiny_llama, tiny_opt, tiny_gpt2])
def test_a_shift_without_rounding_leaves_the_function_unchanged(make: Callable[[], PreTrainedModel]) -> None:
    handle = tiny_handle(uneven(make()))
    before = logits(handle.model)
    recipe = Recipe(
        weight=None, rounding=None, activation=Unquantized(), policy=Policy(), transforms={"os": OsPlus(grid=3)}
    )
    artifact = quantized(handle, recipe)
    assert [op for op in artifact.ops if isinstance(op, ShiftInput)]
    assert relative(logits(handle.model), before) < 2e-5
