"""A model that is to be quantized: its blocks, their weights, and the formats a recipe plans for them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from quantbench.core.memory import Keep, give_back
from quantbench.models.experts import eager_experts
from quantbench.models.handle import ModelHandle
from quantbench.models.slots import WeightSlot, block_slots
from quantbench.models.structure import find_blocks, refuse_double, refuse_not_finite, refuse_unknown_weights
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.attention import cache_operations
from quantbench.pipeline.devices import each_tensor
from quantbench.pipeline.recipe import Recipe


class Decoder:
    """The model of a handle, put back to full precision, as a recipe sees it.

    slots, cache_ops  the weights of each block, and the operations that quantize its key-value cache
    plan  the weight format of each layer the recipe treats, null if only its input is quantized
    Raises ModelError for structures and values that cannot be quantized, ConfigError for patterns that match nothing.
    """

    def __init__(self, handle: ModelHandle, recipe: Recipe) -> None:
        self.handle = handle
        self.model = handle.restore()
        self.prefix, self.blocks = find_blocks(self.model)
        refuse_unknown_weights(self.prefix, self.blocks)
        refuse_double(self.model)
        refuse_not_finite(self.model)
        self.slots = [list(block_slots(f"{self.prefix}.{i}", block)) for i, block in enumerate(self.blocks)]
        self.plan = recipe.policy.plan([[slot.name for slot in slots] for slots in self.slots], recipe.weight)
        cache = recipe.kv_cache
        found = [] if cache is None else cache_operations(cache, self.model, self.prefix, self.blocks)
        self.cache_ops = found or [[] for _ in self.blocks]

    def observable(self) -> AbstractContextManager[None]:
        """Within the context experts run one by one, so that what each of them reads can be seen."""
        return eager_experts(self.model)

    def in_blocks(self, blocks: range) -> Callable[[str], bool]:
        """Whether the parameter or layer of a name lies in one of these blocks."""
        prefixes = tuple(f"{self.prefix}.{index}." for index in blocks)
        return lambda name: name.startswith(prefixes)

    def put_away(self, index: int, artifact: Artifact, keep: Keep) -> None:
        """What was made of a block goes into the artifact and is kept there; the block is of full precision again."""
        block, inside = self.blocks[index], self.in_blocks(range(index, index + 1))
        self.handle.bring_home(block)
        self.collect(artifact, inside, keep)
        self.handle.put_back(block)
        give_back()

    def collect(self, artifact: Artifact, wanted: Callable[[str], bool], keep: Keep) -> None:
        """What became of parameters and layers whose name is `wanted` goes into the artifact and is kept there."""
        artifact.changed |= each_tensor(self.changes(artifact, wanted), keep)
        artifact.weights |= each_tensor({name: one for name, one in artifact.weights.items() if wanted(name)}, keep)

    def changes(self, artifact: Artifact, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
        """Parameters that were replaced by other than quantized weights, by name, on the CPU.

        They are norm gains, biases, weights that were kept. Only those are looked at whose name is `wanted`.
        """
        originals = self.handle.originals
        found: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            if wanted(name) and parameter is not originals[name] and not artifact.quantizes(name):
                found[name] = parameter.detach().cpu()
        for slot in (slot for slots in self.slots for slot in slots):
            if not (slot.routed and wanted(slot.name)) or slot.name in artifact.weights:
                continue
            whole = slot.parameter_name
            if artifact.quantizes(whole) and not _same(slot, originals[whole]):
                found[slot.name] = slot.get().to(slot.dtype).cpu()
        return found


def _same(slot: WeightSlot, original: Tensor) -> bool:
    """Whether an expert's weight is as it was, in a parameter that others have changed."""
    return torch.equal(slot.stored, original.detach()[slot.index].to(slot.stored.device))
