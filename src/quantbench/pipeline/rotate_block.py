"""Rotating one block: the residual stream it reads and writes, its values and heads, what its MLP writes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quantbench.models.groups import GroupFinder, InputGroup, norm_modules
from quantbench.models.handle import Removable
from quantbench.models.slots import WeightSlot
from quantbench.pipeline.fold import input_of
from quantbench.pipeline.input_ops import RotateInput
from quantbench.pipeline.rotate_weights import (
    NO_HEADS,
    NO_STREAM,
    fold_gain,
    hooked,
    refused,
    rotate_inputs,
    rotate_outputs,
)
from quantbench.pipeline.runtime import RuntimeOp
from quantbench.transforms.hadamard import Orthogonal
from quantbench.transforms.rotation import Rotation

Run = Callable[[], object]


@dataclass(frozen=True)
class ValueLayer:
    """Some output `rows` of a layer are the values that the attention's output projection reads, mixed over tokens."""

    slot: WeightSlot
    rows: slice
    projection: InputGroup


class BlockRotation:
    """One block [.., d], what it reads, and `run`, which runs it on that.

    output  what it wrote before
    sizes   the orders of the matrices that its own layers were rotated by
    """

    def __init__(self, name: str, block: nn.Module, states: Tensor, run: Run, rotation: Rotation) -> None:
        self.name, self.block, self.run, self.rotation = name, block, run, rotation
        for parameter_name, parameter in block.named_parameters():
            if parameter.dim() > 2:
                reason = "weights in a 3-D parameter (experts) are not rotated"
                raise refused(f"{name}.{parameter_name}", reason, "Choose a recipe without rotation")
        with GroupFinder(name, block) as finder:
            output = run()
        assert isinstance(output, Tensor)
        self.output, self.sizes = output, set[int]()
        self.groups = finder.groups()
        width = states.shape[-1]
        self.readers = [g for g in self.groups if g.norm is not None and g.in_features == width]
        self.writing = [g for g in self.groups if g.norm is None and any(s.shape[0] == width for s in g.slots)]

    def rotate(self, stream: Orthogonal | None, heads: tuple[int, int, int]) -> list[RuntimeOp]:
        """Rotate the block's weights; the operations its layers perform since."""
        n_heads, shared, width = heads
        value = self._find_value(n_heads, shared, width)
        down = self._down(value)
        if stream is not None:
            self._rotate_stream(stream)
        if value is None and (self.rotation.value or self.rotation.heads):
            reason = f"no layer gives the values of {shared} heads, {width} channels each, in the order of the output"
            raise refused(self.name, f"{reason} projection's input", NO_HEADS)
        ops: list[RuntimeOp] = []
        if value is not None and self.rotation.value:
            matrix = self.rotation.matrix(width, f"{self.name} value")
            self.sizes.add(width)
            rotate_outputs(value.slot, matrix, value.rows)
            for slot in value.projection.slots:
                rotate_inputs(slot, matrix)
        if value is not None and self.rotation.heads:
            size, stride = (n_heads, width) if self.rotation.value else (n_heads * width, 1)
            ops += self._online(value.projection, size, stride)
        if self.rotation.down:
            ops += self._online(down, down.in_features, 1)
        return ops

    def _online(self, group: InputGroup, size: int, stride: int) -> list[RuntimeOp]:
        """Rotate what a group reads as it runs; its weights absorb the inverse."""
        seed = self.rotation.text(group.slots[0].name)
        self.sizes.add(size)
        for slot in group.slots:
            rotate_inputs(slot, Orthogonal(size, seed), stride)
        return [RotateInput(module=slot.name, size=size, stride=stride, seed=seed) for slot in group.slots]

    def _rotate_stream(self, stream: Orthogonal) -> None:
        writers = [slot for group in self.writing for slot in group.slots]
        if not self.readers or not writers:
            reason = "no layer reads a normalization of the residual stream, or none writes to the stream"
            raise refused(self.name, reason, NO_STREAM)
        for group in self.readers:
            fold_gain(group, stream, self.name)
        self._refuse_normalized(writers)
        for group in self.readers:
            for slot in group.slots:
                rotate_inputs(slot, stream)
        for slot in writers:
            rotate_outputs(slot, stream)

    def _refuse_normalized(self, writers: list[WeightSlot]) -> None:
        """Raise ModelError if a normalization stands between a writer and the stream: its gain cannot be folded."""
        written: list[Tensor] = []
        read: list[tuple[str, Tensor]] = []

        def noting(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            return lambda _module, args: read.append((name, args[0]))

        hooks: list[Removable] = [
            slot.module.register_forward_hook(lambda _module, _args, output: written.append(output)) for slot in writers
        ]
        hooks += [norm.register_forward_pre_hook(noting(name)) for name, norm in norm_modules(self.block).items()]
        with hooked(hooks):
            self.run()
        addresses = {output.data_ptr() for output in written}
        found = [name for name, given in read if given.data_ptr() in addresses]
        if found:
            reason = f"{found[0]} writes into the residual stream, and the gain of a normalization there has no reader"
            raise refused(self.name, f"{reason} it could be folded into", NO_STREAM)

    def _find_value(self, heads: int, shared: int, width: int) -> ValueLayer | None:
        """Values and the layer that reads them, found by trying: rotated heads must come out as rotated heads."""
        matrix, n = Orthogonal(width, "probe"), shared * width

        def rotate_values(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
            return torch.cat([output[..., :-n], matrix.apply(output[..., -n:])], dim=-1)

        for projection in (g for g in self.groups if g.norm is None and g.in_features == heads * width):
            plain = input_of(projection, self.run)
            tolerance = (1e-2 if plain.dtype != torch.float32 else 1e-4) * float(plain.abs().amax())
            for slot in (s for g in self.groups for s in g.slots if s.shape[0] >= n):
                with hooked([slot.module.register_forward_hook(rotate_values)]):
                    turned = input_of(projection, self.run)
                if torch.allclose(turned, matrix.apply(plain), rtol=0, atol=tolerance):
                    return ValueLayer(slot, slice(slot.shape[0] - n, None), projection)
        return None

    def _down(self, value: ValueLayer | None) -> InputGroup:
        """The last group that writes to the stream and does not read the attention's output."""
        found = [group for group in self.writing if value is None or group is not value.projection]
        if not found and self.rotation.down:
            remedy = "Set quantizer.rotation.down=false, or choose a recipe without rotation"
            raise refused(self.name, "no layer of an MLP writes to the residual stream", remedy)
        return found[-1] if found else self.groups[-1]
