"""Folding a per-channel scale into whatever wrote a group's input, so that the block's function stays the same.

X' = X / s is written by the producer of X: a normalization (its gain and bias are divided by s) or a linear layer some
of whose rows are the channels of X (rows and bias divided by s). W' = W diag(s) reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quantbench.core.errors import ModelError
from quantbench.core.finite import all_finite
from quantbench.models.groups import InputGroup
from quantbench.models.slots import WeightSlot
from quantbench.transforms.base import Producer


@dataclass(frozen=True, eq=False)
class NormProducer:
    """A normalization whose output is x_hat * (weight + offset) + bias; offset is 1 in Gemma's, 0 elsewhere."""

    module: nn.Module
    offset: float
    kind: Producer = "norm"

    def divide(self, scale: Tensor) -> None:
        """Make the normalization write X / scale."""
        for name, value in self.divided(scale).items():
            replace_parameter(self.module, name, value)

    def divided(self, scale: Tensor) -> dict[str, Tensor]:
        """Gain and bias with which the normalization writes X / scale, in their dtypes; differentiable in scale."""
        gain, bias = self.module.weight, getattr(self.module, "bias", None)
        assert isinstance(gain, Tensor)
        found = {"weight": ((gain.float() + self.offset) / scale - self.offset).to(gain.dtype)}
        if isinstance(bias, Tensor):
            found["bias"] = (bias.float() / scale).to(bias.dtype)
        return found

    def release(self) -> Tensor:
        """Make the gain one; the gain float32 [in] it had, by which the readers' columns are to be multiplied."""
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        gain = weight.detach().float() + self.offset
        replace_parameter(self.module, "weight", torch.full_like(gain, 1 - self.offset))
        return gain


@dataclass(frozen=True, eq=False)
class LinearProducer:
    """A linear layer with output channels `start`, `start` + 1, .. that scale exactly one channel of the group's input
    each: all of them, or the values or the second half of layers that are fused.
    """

    slot: WeightSlot
    start: int = 0
    kind: Producer = "linear"

    def divide(self, scale: Tensor) -> None:
        """Make the layer's rows produce X / scale."""
        divisor = scale.new_ones(self.slot.shape[0])
        divisor[self.start : self.start + len(scale)] = scale
        self.slot.set(self.slot.get() / divisor[:, None])
        if self.slot.bias is not None:
            replace_parameter(self.slot.module, "bias", self.slot.bias.float() / divisor)


@dataclass(frozen=True, eq=False)
class RunningDivision:
    """A group's input is divided as the model runs: behind an activation function. perform: does that with a scale."""

    perform: Callable[[Tensor], None]
    kind: Producer = "activation"

    def divide(self, scale: Tensor) -> None:
        """Make the group read X / scale."""
        self.perform(scale)


def replace_parameter(module: nn.Module, name: str, value: Tensor) -> None:
    """Put a new value in a parameter's place, in its dtype."""
    old = getattr(module, name)
    setattr(module, name, nn.Parameter(value.detach().to(old.dtype), requires_grad=False))


def norm_producer(group: InputGroup) -> NormProducer | None:
    """The normalization that wrote the group's input, if one did and its gain has one of the two known forms."""
    module = group.norm
    if module is None:
        return None
    weight = module.weight
    assert isinstance(weight, nn.Parameter)
    bias = getattr(module, "bias", None)
    shift = bias.float() if isinstance(bias, Tensor) else torch.zeros((), device=weight.device)
    probe = torch.linspace(-1, 2, weight.numel(), device=weight.device, dtype=weight.dtype)[None, None]
    with torch.no_grad():
        original = weight.data
        try:
            weight.data = torch.zeros_like(original)
            at_zero = module(probe).float() - shift
            weight.data = torch.ones_like(original)
            at_one = module(probe).float() - shift
        finally:
            weight.data = original
    for offset in (0.0, 1.0):
        if torch.allclose(at_zero * (1 + offset), at_one * offset, atol=1e-2 * float(at_one.abs().max())):
            return NormProducer(module, offset)
    return None


def linear_producer(group: InputGroup, earlier: list[WeightSlot], run: Callable[[], object]) -> LinearProducer | None:
    """The layer among `earlier` whose output rows scale the group's input channels one to one, found by trying.

    `run` replays the block. A run of a candidate's outputs is multiplied by a positive vector s; it is the producer if
    and only if the group's input comes out multiplied by s. That holds for an `up` beside a gate and for a layer before
    a ReLU, not for a layer before another nonlinearity. Where layers are fused, the input is as wide as one of two or
    more equal parts of their outputs: the last, as in all known models, is tried first.
    """
    width = group.in_features
    candidates = [
        (slot, start)
        for slot in reversed(earlier)
        if slot.shape[0] % width == 0
        for start in reversed(range(0, slot.shape[0], width))
    ]
    if not candidates:
        return None
    factors = torch.linspace(0.5, 2.0, width)
    plain = input_of(group, run)
    for slot, start in candidates:
        multiplier = torch.ones(slot.shape[0])
        multiplier[start : start + width] = factors
        handle = slot.module.register_forward_hook(lambda _m, _a, out, by=multiplier: out * by.to(out))
        try:
            scaled = input_of(group, run)
        finally:
            handle.remove()
        tolerance = 1e-2 if plain.dtype != torch.float32 else 1e-4
        bound = tolerance * plain.abs().amax().float()
        if torch.allclose(scaled.float(), plain.float() * factors.to(plain.device), rtol=tolerance, atol=float(bound)):
            return LinearProducer(slot, start)
    return None


def input_of(group: InputGroup, run: Callable[[], object]) -> Tensor:
    """What the group reads while `run` runs its block. Raises ModelError if that is not finite."""
    seen: list[Tensor] = []
    handle = group.reader.register_forward_pre_hook(lambda _m, args: seen.append(args[0].detach()))
    try:
        run()
    finally:
        handle.remove()
    if not all_finite(seen[0]):
        raise ModelError(f"{group.slots[0].name}: NaN or infinite activations in its input")
    return seen[0]


def check_unchanged(before: Tensor, after: Tensor, what: str) -> float:
    """The largest change of a block's output relative to its largest value.

    Raises ModelError if it is more than rounding errors of the model's dtype explain: the transform is not
    function-preserving on this model, and quantizing on would measure something else.
    """
    scale = float(before.float().abs().amax())
    if not math.isfinite(scale):
        raise ModelError(
            f"{what} cannot be checked: the full-precision output holds NaN or infinity. Choose another model.dtype."
        )
    change = float((after.float() - before.float()).abs().amax()) / max(scale, 1e-30)
    allowed = 1e-4 if before.dtype == torch.float32 else 5e-2
    if not change <= allowed:
        raise ModelError(
            f"{what} changed the full-precision output by {change:.2e} of its largest value (allowed {allowed:.0e}): "
            "this model's structure does not allow it. Choose a recipe without this transform."
        )
    return change
