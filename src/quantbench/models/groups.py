"""Groups of weights that read one tensor, found by watching a forward of their block."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from quantbench.core.errors import ModelError
from quantbench.models.experts import SliceWatch, expert_parameters
from quantbench.models.slots import WeightSlot, block_slots


@dataclass(frozen=True, eq=False)
class InputGroup:
    """Weights of one block that read the same tensor, in order of execution; `norm` wrote that tensor, if one did.

    behind_activation: a module without weights wrote that tensor, in language models an activation function
    feeds_experts: a mixture of experts and its router read that tensor, too.
    """

    slots: tuple[WeightSlot, ...]
    norm: nn.Module | None = None
    behind_activation: bool = False
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
        self._activation_outputs: list[Tensor] = []
        self._expert_inputs: list[tuple[nn.Module, Tensor]] = []

    def __enter__(self) -> GroupFinder:
        self._handles: list[RemovableHandle] = []
        for module in self._block.modules():
            if module in self._slots:
                self._handles.append(module.register_forward_pre_hook(self._on_read))
            elif expert_parameters(module):
                self._handles.append(module.register_forward_pre_hook(self._on_experts, with_kwargs=True))
            elif _looks_like_norm(module):
                self._handles.append(module.register_forward_hook(self._on_norm))
            elif _looks_like_activation(module):
                self._handles.append(module.register_forward_hook(self._on_activation))
        by_name = {slot.name: slot for slots in self._experts.values() for slot in slots}
        self._watch = watch_slices(by_name.values(), lambda name, x: self._reads.append((by_name[name], x)))
        self._watch.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        del self._watch  # it knows this finder, and would keep the tensors alive with it
        for handle in self._handles:
            handle.remove()

    def _on_read(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._reads.append((self._slots[module], args[0]))

    def _on_experts(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._expert_inputs += [(module, value) for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]

    def _on_norm(self, module: nn.Module, _args: object, output: object) -> None:
        if isinstance(output, Tensor):
            self._norm_outputs.append((module, output))

    def _on_activation(self, _module: nn.Module, _args: object, output: object) -> None:
        if isinstance(output, Tensor):
            self._activation_outputs.append(output)

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
        experts, first = dict(self._experts), dict[nn.Module, str]()
        for slot, tensor in self._reads:
            if slot.routed:
                first.setdefault(slot.module, slot.parameter_name)
            for one in experts.pop(slot.parameter_name, []):
                by_tensor[one.name] = [one]
            if not slot.routed:
                by_tensor.setdefault(_address(tensor), []).append(slot)
        norms: dict[object, nn.Module] = {_address(tensor): module for module, tensor in self._norm_outputs}
        activated = {_address(tensor) for tensor in self._activation_outputs}
        shared = {_address(tensor) for _, tensor in self._expert_inputs}
        for module, tensor in self._expert_inputs:  # of which an expert's first weight reads rows
            norm = norms.get(_address(tensor))
            if norm is not None and module in first:
                norms |= {one.name: norm for one in self._experts[first[module]]}
        return [
            InputGroup(tuple(slots), norms.get(address), address in activated, feeds_experts=address in shared)
            for address, slots in by_tensor.items()
        ]


def watch_slices(slots: Iterable[WeightSlot], read: Callable[[str, Tensor], Tensor | None]) -> SliceWatch:
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


def _looks_like_activation(module: nn.Module) -> bool:
    """A module without weights and parts that is no dropout, which would hand on its input as it is."""
    passes_on = isinstance(module, nn.Identity | nn.modules.dropout._DropoutNd)
    return not passes_on and next(module.parameters(), None) is None and not list(module.children())
