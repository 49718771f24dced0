"""The weight matrices of a decoder: where they lie, how they are read, how they are replaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from quantbench.core.errors import ModelError
from quantbench.core.memory import Keep, in_memory
from quantbench.models.experts import OwnParameter, expert_parameters, own_parameter, router_modules

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class WeightSlot:
    """A weight matrix in a model, always seen as [out, in]; the unit of quantization.

    transposed: the module stores [in, out], as GPT-2's Conv1D does.
    parameter, index: where the module keeps it; an index is that of an expert in a 3-D parameter.
    """

    name: str
    module: nn.Module
    transposed: bool = False
    parameter: str = "weight"
    index: int | None = None

    @property
    def routed(self) -> bool:
        """Whether it is an expert's: it reads only the tokens routed to it, and has no module of its own."""
        return self.index is not None

    @property
    def parameter_name(self) -> str:
        """Dotted name of the parameter the weight lies in."""
        return self.name.rpartition(".")[0] if self.routed else f"{self.name}.{self.parameter}"

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        rows, columns = self.stored.shape
        return (columns, rows) if self.transposed else (rows, columns)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the weight is stored."""
        return self._parameter.dtype

    @property
    def stored(self) -> Tensor:
        """The weight as the module stores it, [out, in] or [in, out]: do not write into it."""
        whole = self._parameter.detach()
        return whole if self.index is None else whole[self.index]

    @property
    def _parameter(self) -> nn.Parameter:
        weight = getattr(self.module, self.parameter)
        assert isinstance(weight, nn.Parameter)
        return weight

    @property
    def bias(self) -> nn.Parameter | None:
        """The module's bias [out], if it has one of its own."""
        bias = getattr(self.module, "bias", None)
        return bias if isinstance(bias, nn.Parameter) and not self.routed else None

    def get(self) -> Tensor:
        """The weight as float32 [out, in]. It may share memory with the model: do not write into it."""
        stored = self.stored
        weight = (stored.t() if self.transposed else stored).float().contiguous()
        # `set` writes into this memory: what was read before must stay what it was.
        shared = isinstance(self._parameter, OwnParameter) and weight.data_ptr() == stored.data_ptr()
        return weight.clone() if shared else weight

    def set(self, weight: Tensor, keep: Keep = in_memory) -> None:
        """Put weight [out, in] in place, in the stored dtype.

        As a new parameter (which unties shared weights), or into a copy of the parameter that holds all experts.
        keep: where the new parameter, or the copy, is kept.
        """
        old = self._parameter
        stored = (weight.t() if self.transposed else weight).to(device=old.device, dtype=old.dtype).contiguous()
        if self.index is None:
            setattr(self.module, self.parameter, nn.Parameter(keep(stored), requires_grad=False))
        else:
            own_parameter(self.module, self.parameter, keep).data[self.index] = stored


def block_slots(prefix: str, block: nn.Module) -> Iterator[WeightSlot]:
    """Every nn.Linear, Conv1D and expert's weight of a block, in definition order; routers are left out."""
    routers = router_modules(block)
    for name, module in block.named_modules():
        full_name = f"{prefix}.{name}"
        if isinstance(module, nn.Linear | Conv1D) and module not in routers:
            yield WeightSlot(full_name, module, transposed=isinstance(module, Conv1D))
        yield from _expert_slots(full_name, module)


def _expert_slots(name: str, module: nn.Module) -> Iterator[WeightSlot]:
    for parameter in expert_parameters(module):
        transposed = bool(module.is_transposed)
        for index in range(len(getattr(module, parameter))):
            yield WeightSlot(f"{name}.{parameter}.{index}", module, transposed, parameter, index)


def find_slot(modules: Mapping[str, nn.Module], name: str) -> WeightSlot:
    """The weight of a name that `block_slots` gave; KeyError if the model has none."""
    if name in modules:
        return WeightSlot(name, modules[name], transposed=isinstance(modules[name], Conv1D))
    owner = name.rsplit(".", 2)[0]
    return {slot.name: slot for slot in _expert_slots(owner, modules[owner])}[name]


def head_slot(model: PreTrainedModel) -> WeightSlot:
    """The language-model head."""
    return _named_slot(model, model.get_output_embeddings(), "language-model head")  # type: ignore[no-untyped-call]


def embedding_slot(model: PreTrainedModel) -> WeightSlot:
    """The input embeddings [vocabulary, hidden]."""
    return _named_slot(model, model.get_input_embeddings(), "input embeddings")


def _named_slot(model: PreTrainedModel, wanted: nn.Module | None, role: str) -> WeightSlot:
    for name, module in model.named_modules():
        if wanted is not None and module is wanted:
            return WeightSlot(name, module)
    raise ModelError(f"model class {type(model).__name__} has no {role}")
