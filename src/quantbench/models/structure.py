"""What a decoder is made of, found without knowing its name: blocks, weights, and groups that read one tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from quantbench.core.errors import ModelError
from quantbench.models.experts import OwnParameter, SliceWatch, expert_parameters, own_parameter, router_modules


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

    def set(self, weight: Tensor) -> None:
        """Put weight [out, in] in place, in the stored dtype.

        As a new parameter (which unties shared weights), or into a copy of the parameter that holds all experts.
        """
        old = self._parameter
        stored = (weight.t() if self.transposed else weight).to(device=old.device, dtype=old.dtype).contiguous()
        if self.index is None:
            setattr(self.module, self.parameter, nn.Parameter(stored, requires_grad=False))
        else:
            own_parameter(self.module, self.parameter).data[self.index] = stored


@dataclass(frozen=True, eq=False)
class InputGroup:
    """Weights of one block that read the same tensor, in order of execution; `norm` wrote that tensor, if one did.

    feeds_experts: a mixture of experts and its router read that tensor, too.
    """

    slots: tuple[WeightSlot, ...]
    norm: nn.Module | None = None
    feeds_experts: bool = False

    @property
    def in_features(self) -> int:
        """Width of the shared input."""
        return self.slots[0].shape[1]

    @property
    def routed(self) -> bool:
        """Whether this is one expert's weight, whose input is the tokens routed to it."""
        return self.slots[0].routed

    @property
    def stage(self) -> str:
        """The same for groups that run side by side: experts whose weights lie in one parameter."""
        return self.slots[0].parameter_name

    @property
    def reader(self) -> nn.Module:
        """The first module that reads the input: where statistics are collected. An expert has none."""
        if self.routed:
            raise ModelError(f"{self.slots[0].name}: an expert has no module of its own whose input could be read")
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


def refuse_unknown_weights(prefix: str, blocks: nn.ModuleList) -> None:
    """Raise ModelError for blocks that keep large weights in parameters of their own, of which nothing is known.

    Left alone, they would stay in full precision unnoticed. Known are linear layers, experts and their routers;
    matrices smaller than every linear layer of the block are taken for tables, not weights.
    """
    for index, block in enumerate(blocks):
        slots = list(block_slots("", block))
        smallest = min((slot.stored.numel() for slot in slots), default=0)
        passed = router_modules(block) | {slot.module for slot in slots}
        for module_name, module in block.named_modules():
            if module in passed or isinstance(module, nn.Embedding):
                continue
            for name, parameter in module.named_parameters(prefix=module_name, recurse=False):
                expert_like = parameter.dim() > 2 and not isinstance(module, nn.Conv1d)
                if expert_like or (parameter.dim() > 1 and parameter.numel() >= smallest):
                    raise ModelError(
                        f"{prefix}.{index}.{name} has shape {tuple(parameter.shape)}: {type(module).__name__} keeps "
                        "weights in a parameter of its own, in a form that is not known, and leaving them in full "
                        "precision would misreport the bits. Choose another model."
                    )


def refuse_not_finite(model: nn.Module) -> None:
    """Raise ModelError naming the first parameter (of experts in one parameter: the expert) with NaN or infinity.

    Found at the start, the weight itself is named, not a layer that is reached by what it gives.
    """
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            where = name.removesuffix(".weight")
            if parameter.dim() == 3:
                where += f".{int((~parameter.isfinite()).flatten(1).any(1).nonzero()[0])}"
            raise ModelError(f"{where}: the weight holds NaN or infinite values")


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


class GroupFinder:
    """Watches one forward of a block and groups its weights by the tensor they read.

    Tensors are kept alive while watching, so that equal addresses mean equal tensors. Each expert is a group of its
    own, whether or not it got a token; they stand where the first of them ran.
    """

    def __init__(self, prefix: str, block: nn.Module) -> None:
        slots = list(block_slots(prefix, block))
        self._slots = {slot.module: slot for slot in slots if not slot.routed}
        self._experts: dict[str, list[WeightSlot]] = {}
        for slot in slots:
            if slot.routed:
                self._experts.setdefault(slot.parameter_name, []).append(slot)
        self._block = block
        self._reads: list[tuple[WeightSlot, Tensor]] = []
        self._norm_outputs: list[tuple[nn.Module, Tensor]] = []
        self._expert_inputs: list[Tensor] = []

    def __enter__(self) -> GroupFinder:
        self._handles: list[RemovableHandle] = []
        for module in self._block.modules():
            if module in self._slots:
                self._handles.append(module.register_forward_pre_hook(self._on_read))
            elif expert_parameters(module):
                self._handles.append(module.register_forward_pre_hook(self._on_experts, with_kwargs=True))
            elif _looks_like_norm(module):
                self._handles.append(module.register_forward_hook(self._on_norm))
        by_name = {slot.name: slot for slots in self._experts.values() for slot in slots}
        self._watch = watch_slices(by_name.values(), lambda name, x: self._reads.append((by_name[name], x)))
        self._watch.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def _on_read(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._reads.append((self._slots[module], args[0]))

    def _on_experts(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._expert_inputs += [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]

    def _on_norm(self, module: nn.Module, _args: object, output: object) -> None:
        if isinstance(output, Tensor):
            self._norm_outputs.append((module, output))

    def groups(self) -> list[InputGroup]:
        """Groups in order of execution. Raises ModelError for a weight that ran twice or not at all."""
        names = [slot.name for slot, _ in self._reads]
        ran = {slot.parameter_name for slot, _ in self._reads}
        silent = sorted({slot.name for slot in self._slots.values()} - set(names)) + sorted(set(self._experts) - ran)
        twice = sorted({name for name in names if names.count(name) > 1})
        if silent or twice:
            raise ModelError(
                f"cannot collect statistics: {', '.join(silent + twice)} "
                f"{'did not run' if silent else 'ran more than once'} in one forward of its block"
            )
        by_tensor: dict[object, list[WeightSlot]] = {}
        experts = dict(self._experts)
        for slot, tensor in self._reads:
            for one in experts.pop(slot.parameter_name, []):
                by_tensor[one.name] = [one]
            if not slot.routed:
                by_tensor.setdefault(_address(tensor), []).append(slot)
        norms: dict[object, nn.Module] = {_address(tensor): module for module, tensor in self._norm_outputs}
        shared = {_address(tensor) for tensor in self._expert_inputs}
        return [
            InputGroup(tuple(slots), norms.get(address), feeds_experts=address in shared)
            for address, slots in by_tensor.items()
        ]


def watch_slices(slots: Iterable[WeightSlot], read: Callable[[str, Tensor], None]) -> SliceWatch:
    """A context in which `read(name, x)` is called with the inputs x [tokens, in] of each expert's weight."""
    return SliceWatch({slot.name: (slot.stored, slot.transposed) for slot in slots}, read)


def _address(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.numel()


def norm_modules(root: nn.Module) -> dict[str, nn.Module]:
    """The modules below `root` that look like normalizations, by dotted name."""
    return {name: module for name, module in root.named_modules() if _looks_like_norm(module)}


def _looks_like_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.dim() == 1 and not list(module.children())
