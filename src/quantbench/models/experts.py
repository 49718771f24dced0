"""Mixtures of experts that keep one weight matrix per expert in a 3-D parameter: where they are, and who reads them.

transformers marks such modules with `is_transposed`: a slice is [out, in], or [in, out] where it is true. Their forward
has several implementations; only the "eager" one applies each expert's own slice to the tokens routed to it, so that it
can be observed.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from quantbench.core.errors import ModelError
from quantbench.core.memory import Keep, in_memory

_ROUTER = re.compile(r"rout|gate(?!_?(up_?)?proj)")
"""Names of routers and of the gate of a shared expert; `gate_proj` and `gate_up_proj` are none."""

_PRODUCTS = {
    nn.functional.linear: False,
    torch.matmul: True,
    torch.mm: True,
    Tensor.matmul: True,
    Tensor.mm: True,
    Tensor.__matmul__: True,
}
"""Products x W that read a slice, and whether they read it as [in, out]."""


class OwnParameter(nn.Parameter):
    """A copy of a parameter that quantization made, and may write into."""


def own_parameter(module: nn.Module, name: str, keep: Keep = in_memory) -> OwnParameter:
    """The module's parameter, replaced by a copy the first time: the original is never written into."""
    found = getattr(module, name)
    if not isinstance(found, OwnParameter):
        found = OwnParameter(keep(found.detach().clone()), requires_grad=False)
        setattr(module, name, found)
    return found


def expert_parameters(module: nn.Module) -> list[str]:
    """Names of the 3-D parameters that hold one weight per expert; empty for every other module."""
    if not isinstance(getattr(module, "is_transposed", None), bool):
        return []
    return [name for name, parameter in module.named_parameters(recurse=False) if parameter.dim() == 3]


def router_modules(block: nn.Module) -> set[nn.Module]:
    """Modules that decide which experts a token goes to, or how much a shared expert counts: never quantized.

    They stand beside the experts and have one output per expert, or a single one.
    """
    found: set[nn.Module] = set()
    for name, experts in block.named_modules():
        parameters = expert_parameters(experts)
        if not parameters:
            continue
        count = len(getattr(experts, parameters[0]))
        for path, module in block.get_submodule(name.rpartition(".")[0]).named_modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, nn.Parameter) and weight.dim() == 2 and _ROUTER.search(path):
                found |= {module} if len(weight) in (1, count) else set()
    return found


@contextmanager
def watched_experts(module: nn.Module, watch: SliceWatch) -> Iterator[None]:
    """Within the context one mixture of experts runs expert by expert, and `watch` sees what they read."""
    original: Any = module.config
    eager: Any = copy.copy(original)
    eager._experts_implementation = "eager"
    module.config = eager
    try:
        with watch:
            yield
    finally:
        module.config = original


def run_all_experts(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Run a mixture of experts, called with some arguments, as if every token were routed to each of its experts.

    Raises ModelError if its arguments are not hidden states, the experts [tokens, k] of each token, and their weights.
    """
    count = len(getattr(module, expert_parameters(module)[0]))
    given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    chosen = [value for value in given if not value.is_floating_point() and value.dim() == 2]
    if len(chosen) != 1 or not any(value.shape == chosen[0].shape and value is not chosen[0] for value in given):
        raise ModelError(
            f"policy.all_expert_tokens: {type(module).__name__} is not called with the experts of each token and their "
            "weights; set it to false"
        )
    shape = chosen[0].shape

    def routed_everywhere(value: Any) -> Any:
        if value is chosen[0]:
            return torch.arange(count, device=value.device, dtype=value.dtype).expand(shape[0], -1)
        if isinstance(value, Tensor) and value.shape == shape:
            return value.new_full((shape[0], count), 1 / count)
        return value

    # Not called, but run: its hooks are for what the block itself does.
    module.forward(*map(routed_everywhere, args), **{key: routed_everywhere(value) for key, value in kwargs.items()})


@contextmanager
def eager_experts(model: nn.Module) -> Iterator[None]:
    """Within the context every mixture of experts runs expert by expert; afterwards as it did before."""
    configs: dict[int, Any] = {
        id(m.config): m.config for m in model.modules() if expert_parameters(m) and hasattr(m, "config")
    }
    before = {key: config._experts_implementation for key, config in configs.items()}
    for config in configs.values():
        config._experts_implementation = "eager"
    try:
        yield
    finally:
        for key, config in configs.items():
            config._experts_implementation = before[key]


class SliceWatch(TorchFunctionMode):
    """Calls `read(key, x)` whenever x [..., in] is multiplied with one of the slices, given as stored, by key.

    If that gives a tensor, it is multiplied with the slice in x's place.
    """

    def __init__(self, slices: Mapping[str, tuple[Tensor, bool]], read: Callable[[str, Tensor], Tensor | None]) -> None:
        super().__init__()
        self._read = read
        self._keys = {
            (stored.data_ptr(), stored.shape, transposed): key for key, (stored, transposed) in slices.items()
        }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note the product if it reads a slice, and compute it."""
        x = args[0] if args else None
        if func in _PRODUCTS and len(args) > 1 and isinstance(args[1], Tensor):
            key = self._keys.get((args[1].data_ptr(), args[1].shape, _PRODUCTS[func]))
            if key is not None:
                changed = self._read(key, args[0])
                x = args[0] if changed is None else changed
        return func(x, *args[1:], **(kwargs or {})) if args else func(**(kwargs or {}))
