"""Shifted inputs in the pipeline: the function stays, and what follows sees the shifted inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from quantbench.core.component import Part
from quantbench.core.errors import ModelError
from quantbench.core.input_stats import LinearStats
from quantbench.core.mixing import Mixing
from quantbench.formats.base import ActivationFormat, Format
from quantbench.formats.int import IntActivation, IntFormat
from quantbench.formats.quantize import quantize
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.input_ops import RotateInput, ShiftInput
from quantbench.pipeline.policy import Policy, Rule
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.runtime import QuantizeInput
from quantbench.rounding.base import Rounded
from quantbench.rounding.nearest import Nearest
from quantbench.transforms.base import Readers
from quantbench.transforms.os_plus import OsPlus
from quantbench.transforms.rotation import Rotation
from quantbench.transforms.smooth import SmoothQuant
from rewriting import logits, quantized, relative, uneven
from tiny import tiny_gpt2, tiny_handle, tiny_llama, tiny_opt

INT8 = IntFormat(bits=8, group_size="channel", symmetric=True, scale_convention="narrow_range")
TOKEN4, TOKEN8 = (
    IntActivation(bits=bits, symmetric=True, scale_convention="narrow_range", granularity="token", dynamic=True)
    for bits in (4, 8)
)


class Unquantized:
    """Activations as they are, for a recipe that must have an activation format."""

    mixing: ClassVar[Mixing] = Mixing.NONE
    needs: frozenset[str] = frozenset()

    def static_params(self, minimum: Tensor, maximum: Tensor) -> tuple[Tensor, None]:
        raise NotImplementedError

    def fake_quantize(self, x: Tensor, scale: Tensor | None = None, zero: Tensor | None = None) -> Tensor:
        return x


class Watching(Part):
    """Rounds to nearest, and keeps the statistics it is given."""

    needs: ClassVar[frozenset[str]] = frozenset({"hessian", "mean_abs", "absmax", "rows", "minimum", "maximum"})

    def __init__(self) -> None:
        self.seen: list[LinearStats] = []

    def round(self, weight: Tensor, stats: LinearStats | None, format: Format) -> Rounded:
        assert stats is not None
        self.seen.append(stats)
        return Rounded(quantize(weight, format))


def recipe(weight: Format | None, activation: ActivationFormat, *transforms: Any, **options: Any) -> Recipe:
    rounding = options.pop("rounding", None if weight is None else Nearest())
    return Recipe(
        weight=weight,
        rounding=rounding,
        activation=activation,
        policy=Policy(),
        transforms={str(i): transform for i, transform in enumerate(transforms)},
        **options,
    )


@pytest.mark.parametrize("make", [tiny_llama, tiny_opt, tiny_gpt2])
@pytest.mark.parametrize("others", [(), (SmoothQuant(alpha=0.5),)])
def test_shifts_and_scales_leave_the_function_unchanged(
    make: Callable[[], PreTrainedModel], others: tuple[SmoothQuant, ...]
) -> None:
    handle = tiny_handle(uneven(make()))
    before = logits(handle.model)
    artifact = quantized(handle, recipe(None, Unquantized(), OsPlus(grid=3, shift=True), *others))
    shifts = [op for op in artifact.ops if isinstance(op, ShiftInput)]
    assert {op.module for op in shifts} == {op.module for op in artifact.ops if isinstance(op, QuantizeInput)}
    assert all(float(op.shift.abs().max()) > 0.01 for op in shifts)
    assert relative(logits(handle.model), before) < 2e-5


def test_a_shift_after_a_rotation_leaves_the_function_unchanged() -> None:
    handle = tiny_handle(uneven(tiny_llama()))
    before = logits(handle.model)
    artifact = quantized(handle, recipe(None, Unquantized(), OsPlus(grid=3, shift=True), rotation=Rotation()))
    assert isinstance(artifact.ops[0], RotateInput)
    assert relative(logits(handle.model), before) < 2e-5


@pytest.mark.parametrize("true_sequential", [False, True])
def test_rounding_gets_the_statistics_of_the_shifted_inputs(true_sequential: bool) -> None:
    watching = Watching()
    handle = tiny_handle(uneven(tiny_opt()))
    options = {"rounding": watching, "true_sequential": true_sequential}
    quantized(handle, recipe(INT8, TOKEN8, OsPlus(grid=3, shift=True), **options))
    for stats in watching.seen:
        X = stats.require("rows")
        assert len(X) == stats.n_tokens
        torch.testing.assert_close(stats.require("hessian"), 2 / len(X) * X.T @ X, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(stats.require("mean_abs"), X.abs().mean(0))
        torch.testing.assert_close(stats.require("absmax"), X.abs().amax(0))
        middle = (stats.require("minimum") + stats.require("maximum")).abs().max()
        assert float(middle) < (0.2 if true_sequential else 1e-4) * float(X.abs().max())


def test_what_is_stored_reloads_bit_for_bit_and_counts() -> None:
    handle = tiny_handle(uneven(tiny_llama()))
    artifact = quantized(handle, recipe(INT8, TOKEN8, OsPlus(grid=3, shift=True)))
    fresh = logits(handle.model)
    reloaded = Artifact.from_tensors(*artifact.to_tensors())
    reloaded.install(handle)
    assert torch.equal(logits(handle.model), fresh)
    # Every layer has a shift [in] and an offset [out] in 32 bits besides its codes and its scales.
    extra = sum(32 * sum(weight.codes.shape) for weight in artifact.weights.values())
    total = sum(weight.bits_per_weight() * weight.numel() for weight in artifact.weights.values())
    assert artifact.shift_bits == extra
    assert artifact.effective_bits == pytest.approx((total + extra) / sum(w.numel() for w in artifact.weights.values()))


def test_channels_far_from_zero_are_quantized_better_with_shifts() -> None:
    errors = []
    for transforms in ((OsPlus(),), ()):
        model = tiny_opt()
        for block in model.model.decoder.layers:
            block.self_attn_layer_norm.bias[[3, 17]] += torch.tensor([40.0, -25.0])
            block.final_layer_norm.bias[5] += 30
        handle = tiny_handle(model)
        before = logits(handle.model)
        quantized(handle, recipe(INT8, TOKEN4, *transforms))
        errors.append(relative(logits(handle.model), before))
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("make", [tiny_llama, tiny_opt])
def test_only_what_a_normalization_with_a_bias_wrote_is_shifted(make: Callable[[], PreTrainedModel]) -> None:
    handle = tiny_handle(uneven(make()))
    artifact = quantized(handle, recipe(INT8, TOKEN8, OsPlus(grid=3)))
    shifted = {op.module.rpartition(".")[2] for op in artifact.ops if isinstance(op, ShiftInput)}
    assert shifted == ({"q_proj", "k_proj", "v_proj", "fc1"} if make is tiny_opt else set())
    assert artifact.changed  # scales are folded in either


class Remembering(OsPlus):
    """Keeps the shapes of the weights that it was asked to scale for, and their formats."""

    def shift_and_scale(self, readers: Readers) -> Any:
        self.asked.append(([tuple(W.shape) for W in readers.weights], readers.formats))
        return super().shift_and_scale(readers)

    asked: ClassVar[list[Any]] = []


def test_weights_that_the_policy_keeps_are_scaled_but_not_searched_for() -> None:
    Remembering.asked.clear()
    handle = tiny_handle(uneven(tiny_llama()))
    int4 = IntFormat(bits=4, group_size="channel", symmetric=True, scale_convention="narrow_range")
    policy = Policy(keep=("k_proj", "v_proj"), rules={"gate": Rule(match="gate_proj", format=int4)})
    kept = Recipe(
        weight=INT8,
        rounding=Nearest(),
        activation=TOKEN8,
        policy=policy,
        transforms={"os": Remembering(grid=3)},
    )
    artifact = quantized(handle, kept)
    block = [([(32, 32)], [INT8]), ([(32, 32)], [INT8]), ([(48, 32)] * 2, [int4, INT8]), ([(32, 48)], [INT8])]
    assert Remembering.asked == block * 2
    assert {"model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.v_proj.weight"} <= set(artifact.changed)


def test_a_failure_leaves_no_shift_behind() -> None:
    class Failing(Watching):
        def round(self, weight: Tensor, stats: LinearStats | None, format: Format) -> Rounded:
            raise ValueError("broken")

    handle = tiny_handle(tiny_opt())
    before = logits(handle.model)
    with pytest.raises(ModelError, match="broken"):
        quantized(handle, recipe(INT8, TOKEN8, OsPlus(grid=3), rounding=Failing()))
    handle.restore()
    assert torch.equal(logits(handle.model), before)
