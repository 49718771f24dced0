"""What a rounding that optimizes a whole block is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quantbench.core.input_stats import LinearStats
from quantbench.formats.base import Format
from quantbench.models.groups import InputGroup
from quantbench.models.slots import WeightSlot
from quantbench.pipeline.capture import BlockCall, run_block
from quantbench.pipeline.devices import to_device
from quantbench.pipeline.fold import NormProducer, check_unchanged, norm_producer
from quantbench.pipeline.runtime import RuntimeOp, install

NO_SCALES: Mapping[int, Tensor] = {}


@dataclass(frozen=True)
class BlockContext:
    """One decoder block, what it reads, and what it should write.

    inputs   hidden states [1, L, d] a sequence: what the quantized blocks before write
    targets  [1, L, d] a sequence: what the full-precision block makes of these inputs
    groups   weights that read the same tensor, in order of execution; stats are those of their inputs, where asked for
    formats  the format of each layer that is to be quantized, by its full name; other weights are not to be touched
    ops      quantize the inputs of layers whenever `output` runs the block
    """

    name: str
    block: nn.Module
    inputs: Sequence[Tensor]
    calls: Sequence[BlockCall]
    targets: Sequence[Tensor]
    groups: Sequence[InputGroup]
    stats: list[LinearStats | None]
    formats: Mapping[str, Format]
    ops: Sequence[RuntimeOp] = ()

    @cached_property
    def _slots(self) -> dict[str, WeightSlot]:
        return {slot.name: slot for group in self.groups for slot in group.slots}

    @cached_property
    def _modules(self) -> dict[str, nn.Module]:
        return {f"{self.name}.{key}" if key else self.name: module for key, module in self.block.named_modules()}

    @cached_property
    def scalable(self) -> dict[int, NormProducer]:
        """The groups whose input a per-channel scale can be folded into, by index: a normalization wrote it.

        All weights that read it are quantized: one that is not would have to change.
        """
        found: dict[int, NormProducer] = {}
        for index, group in enumerate(self.groups):
            to_experts = group.routed or group.feeds_experts
            if not to_experts and all(slot.name in self.formats for slot in group.slots):
                producer = norm_producer(group)
                if producer is not None:
                    found[index] = producer
        return found

    @property
    def scalable_weights(self) -> dict[int, list[str]]:
        """The names of the weights of each group in `scalable`, by its index."""
        return {index: [slot.name for slot in self.groups[index].slots] for index in self.scalable}

    def weights(self) -> dict[str, Tensor]:
        """The weights to be quantized as they are now, float32 [out, in], by full name."""
        return {name: slot.get() for name, slot in self._slots.items() if name in self.formats}

    def output(self, index: int, weights: Mapping[str, Tensor], scales: Mapping[int, Tensor] = NO_SCALES) -> Tensor:
        """The block's output [1, L, d] for sequence `index`, with other weights [out, in] in the places of its own.

        scales: the inputs of these groups are divided by a scale [in] (see `scalable`). Differentiable in the weights
        and the scales; the block is not changed.
        """
        given = self._parameters(weights) | self._scaled_norms(scales)
        call, states = self.calls[index], self.inputs[index]
        args, kwargs = to_device(call.args, states.device), to_device(call.kwargs, states.device)
        installed = install(self._modules, self.ops)
        try:
            result = functional_call(self.block, given, (states, *args), kwargs)
        finally:
            for removable in installed:
                removable.remove()
        output = result[0] if isinstance(result, tuple) else result
        assert isinstance(output, Tensor)
        return output

    @torch.no_grad()
    def fold(self, scales: Mapping[int, Tensor]) -> None:
        """Divide the inputs of groups by scales [in] for good, and multiply their weights; the statistics follow.

        Raises ModelError if the block's full-precision output is not the same afterwards.
        """
        before = run_block(self.block, self.inputs[0], self.calls[0])
        for index, scale in scales.items():
            self.scalable[index].divide(scale)
            for slot in self.groups[index].slots:
                slot.set(slot.get() * scale)
            found = self.stats[index]
            self.stats[index] = None if found is None else found.rescaled(scale)
        after = run_block(self.block, self.inputs[0], self.calls[0])
        check_unchanged(before, after, f"{self.name}: learned scales")

    def _parameters(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights as the block's modules store them."""
        given: dict[str, Tensor] = {}
        for name, weight in weights.items():
            slot = self._slots[name]
            key = slot.parameter_name.removeprefix(self.name + ".")
            stored = (weight.t() if slot.transposed else weight).to(slot.dtype)
            if slot.index is not None:  # one expert of a parameter that holds them all
                whole = given.get(key, getattr(slot.module, slot.parameter).detach())
                stored = torch.cat([whole[: slot.index], stored[None], whole[slot.index + 1 :]])
            given[key] = stored
        return given

    def _scaled_norms(self, scales: Mapping[int, Tensor]) -> dict[str, Tensor]:
        names = {id(module): key for key, module in self.block.named_modules()} if scales else {}
        return {
            f"{names[id(self.scalable[index].module)]}.{key}": value
            for index, scale in scales.items()
            for key, value in self.scalable[index].divided(scale).items()
        }
