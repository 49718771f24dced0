"""A tensor of a checkpoint as it is put into the base model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from quantbench.checkpoints.layout import InputQuantization
from quantbench.core.errors import ModelError
from quantbench.models.slots import WeightSlot, block_slots, head_slot
from quantbench.models.structure import find_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ReadTensor:
    """A parameter as a checkpoint has it.

    name       of the parameter in the base model
    values     as the model stores it; of a quantized weight what its tensors stand for, in float32
    bits       all that the file stores for it
    quantized  whether it is stored as anything but floating-point numbers of 16 bits or more
    layer      the linear layer whose weight it is, None for what is none
    inputs     how the inputs of that layer are quantized
    """

    name: str
    values: Tensor
    bits: int
    quantized: bool
    layer: WeightSlot | None = None
    inputs: InputQuantization | None = None


class Reader(Protocol):
    """What reads one kind of checkpoint. All methods raise ModelError for what cannot be read, or does not fit."""

    @property
    def name(self) -> str:
        """What kind of checkpoint it is, with bits and groups."""
        ...

    def config(self) -> Mapping[str, Any]:
        """The model's configuration as the checkpoint has it, in the keys of transformers; it may not say them all."""
        ...

    def tokens(self) -> Mapping[str, int] | None:
        """The ids of its tokens; None if it has no tokenizer."""
        ...

    def check(self, model: PreTrainedModel) -> None:
        """Compare its headers with the base model, which may be without weights."""
        ...

    def read(self, model: PreTrainedModel) -> Iterator[ReadTensor]:
        """Every parameter, one at a time; `model` is the base model in full precision."""
        ...

    @property
    def notes(self) -> list[str]:
        """What a record must say of how it was read."""
        ...


def linear_slots(model: PreTrainedModel) -> dict[str, WeightSlot]:
    """Every linear layer of the decoder blocks, and the head, by name. Raises ModelError for mixtures of experts."""
    prefix, blocks = find_blocks(model)
    slots = [slot for index, block in enumerate(blocks) for slot in block_slots(f"{prefix}.{index}", block)]
    if routed := next((slot for slot in slots if slot.routed), None):
        raise ModelError(
            f"quantizer=checkpoint: {routed.name} is an expert's weight; checkpoints of mixtures of experts are not "
            "read"
        )
    head = head_slot(model)
    return {slot.name: slot for slot in [*slots, head]}
