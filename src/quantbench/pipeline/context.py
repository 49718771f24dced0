"""What a rounding that optimizes a whole block is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quantbench.formats.base import ActivationFormat, Format
from quantbench.models.structure import InputGroup
from quantbench.pipeline.capture import BlockCall, placed
from quantbench.pipeline.stats import LinearStats


@dataclass(frozen=True)
class BlockContext:
    """One decoder block, what it reads, and what it should write.

    inputs   hidden states [1, L, d] a sequence: what the quantized blocks before write
    targets  [1, L, d] a sequence: what the full-precision block makes of these inputs
    groups   weights that read the same tensor, in order of execution; stats are those of their inputs, where asked for
    formats  the format of each layer that is to be quantized, by its full name
    """

    name: str
    block: nn.Module
    inputs: Sequence[Tensor]
    calls: Sequence[BlockCall]
    targets: Sequence[Tensor]
    groups: Sequence[InputGroup]
    stats: Sequence[LinearStats | None]
    formats: Mapping[str, Format]
    activation: ActivationFormat | None

    def weights(self) -> dict[str, Tensor]:
        """The weights to be quantized as they are now, float32 [out, in], by full name."""
        return {slot.name: slot.get() for group in self.groups for slot in group.slots if slot.name in self.formats}

    def output(self, index: int, weights: Mapping[str, Tensor]) -> Tensor:
        """The block's output [1, L, d] for sequence `index`, with other weights [out, in] in the places of its own.

        Differentiable in the weights; the block is not changed.
        """
        slots = {slot.name: slot for group in self.groups for slot in group.slots}
        given: dict[str, Tensor] = {}
        for name, w in weights.items():
            slot = slots[name]
            key = slot.parameter_name.removeprefix(self.name + ".")
            stored = (w.t() if slot.transposed else w).to(slot.dtype)
            if slot.index is not None:  # one expert of a parameter that holds them all
                whole = given.get(key, getattr(slot.module, slot.parameter).detach())
                stored = torch.cat([whole[: slot.index], stored[None], whole[slot.index + 1 :]])
            given[key] = stored
        call = self.calls[index]
        states = self.inputs[index]
        result = functional_call(
            self.block, given, (states, *placed(call.args, states.device)), placed(call.kwargs, states.device)
        )
        output = result[0] if isinstance(result, tuple) else result
        assert isinstance(output, Tensor)
        return output
