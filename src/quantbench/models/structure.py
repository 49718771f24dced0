"""What a decoder is made of, found without knowing its name: blocks, weights, and groups that read one tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from quantbench.errors import ModelError


@dataclass(frozen=True, eq=False)
class WeightSlot:
    """A weight matrix in a model, always seen as [out, in]; the unit of quantization.

    transposed: the module stores [in, out], as GPT-2's Conv1D does.
    """

    name: str
    module: nn.Module
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        rows, columns = self._parameter.shape
        return (columns, rows) if self.transposed else (rows, columns)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the weight is stored."""
        return self._parameter.dtype

    @property
    def _parameter(self) -> nn.Parameter:
        weight = self.module.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    @property
    def bias(self) -> nn.Parameter | None:
        """The module's bias [out], if it has one."""
        bias = getattr(self.module, "bias", None)
        return bias if isinstance(bias, nn.Parameter) else None

    def get(self) -> Tensor:
        """The weight as float32 [out, in]. It may share memory with the model: do not write into it."""
        weight = self._parameter.detach()
        return (weight.t() if self.transposed else weight).float().contiguous()

    def set(self, weight: Tensor) -> None:
        """Put weight [out, in] in place, in the stored dtype, as a new parameter (which unties shared weights)."""
        old = self._parameter
        stored = (weight.t() if self.transposed else weight).to(device=old.device, dtype=old.dtype).contiguous()
        self.module.weight = nn.Parameter(stored, requires_grad=False)


@dataclass(frozen=True, eq=False)
class InputGroup:
    """Weights of one block that read the same tensor, in order of execution; `norm` wrote that tensor, if one did."""

    slots: tuple[WeightSlot, ...]
    norm: nn.Module | None = None

    @property
    def in_features(self) -> int:
        """Width of the shared input."""
        return self.slots[0].shape[1]

    @property
    def reader(self) -> nn.Module:
        """The first module that reads the input: where statistics are collected."""
        return self.slots[0].module


def find_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The decoder blocks and their dotted name: the ModuleList whose items the model declares as not to be split.

    Raises ModelError where no such list exists, or where several do.
    """
    declared = set(model._no_split_modules or [])
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and {type(m).__name__ for m in module} <= declared
    ]
    if len(found) == 1:
        return found[0]
    problem = "no list of decoder blocks" if not found else f"{len(found)} lists of blocks"
    raise ModelError(
        f"model class {type(model).__name__}: {problem} found (looked for an nn.ModuleList of "
        f"{sorted(declared) or 'the classes in _no_split_modules, which is empty'}). "
        "quantbench quantizes decoder-only language models whose blocks are such a list."
    )


def refuse_expert_weights(name: str, blocks: nn.ModuleList) -> None:
    """Raise ModelError for blocks that keep weights in 3-D parameters (mixtures of experts)."""
    for parameter_name, parameter in blocks.named_parameters():
        if parameter.dim() > 2:
            raise ModelError(
                f"{name}.{parameter_name} has shape {tuple(parameter.shape)}: expert weights stored as one 3-D "
                "parameter are not supported yet, and leaving them in full precision would misreport the bits. "
                "Choose a dense model."
            )


def block_slots(prefix: str, block: nn.Module) -> Iterator[WeightSlot]:
    """Every nn.Linear and Conv1D of a block, in definition order."""
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            yield WeightSlot(f"{prefix}.{name}", module, transposed=isinstance(module, Conv1D))


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


class GroupFinder:
    """Watches one forward of a block and groups its weights by the tensor they read.

    Tensors are kept alive while watching, so that equal addresses mean equal tensors.
    """

    def __init__(self, prefix: str, block: nn.Module) -> None:
        self._slots = {slot.module: slot for slot in block_slots(prefix, block)}
        self._block = block
        self._reads: list[tuple[WeightSlot, Tensor]] = []
        self._norm_outputs: list[tuple[nn.Module, Tensor]] = []

    def __enter__(self) -> GroupFinder:
        self._handles = []
        for module in self._block.modules():
            if module in self._slots:
                self._handles.append(module.register_forward_pre_hook(self._on_read))
            elif _looks_like_norm(module):
                self._handles.append(module.register_forward_hook(self._on_norm))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _on_read(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._reads.append((self._slots[module], args[0]))

    def _on_norm(self, module: nn.Module, _args: object, output: object) -> None:
        if isinstance(output, Tensor):
            self._norm_outputs.append((module, output))

    def groups(self) -> list[InputGroup]:
        """Groups in order of execution. Raises ModelError for a weight that ran twice or not at all."""
        names = [slot.name for slot, _ in self._reads]
        silent = sorted({slot.name for slot in self._slots.values()} - set(names))
        twice = sorted({name for name in names if names.count(name) > 1})
        if silent or twice:
            raise ModelError(
                f"cannot collect statistics: {', '.join(silent + twice)} "
                f"{'did not run' if silent else 'ran more than once'} in one forward of its block"
            )
        by_tensor: dict[tuple[int, int], list[WeightSlot]] = {}
        for slot, tensor in self._reads:
            by_tensor.setdefault(_address(tensor), []).append(slot)
        norms = {_address(tensor): module for module, tensor in self._norm_outputs}
        return [InputGroup(tuple(slots), norms.get(address)) for address, slots in by_tensor.items()]


def _address(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.numel()


def norm_modules(root: nn.Module) -> dict[str, nn.Module]:
    """The modules below `root` that look like normalizations, by dotted name."""
    return {name: module for name, module in root.named_modules() if _looks_like_norm(module)}


def _looks_like_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.dim() == 1 and not list(module.children())
