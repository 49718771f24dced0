"""Components to plain values and tensors, and back: how formats, corrections and runtime operations are stored."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from quantbench.core.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


TENSOR = "_tensor_"
"""Key of a mapping that stands for a tensor stored under the name it holds."""


def split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Plain JSON of a component, from which `quantbench.core.build` makes it again after `join`.

    Tensors are moved into `tensors` under dotted names that begin with `name`.
    """
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach()
        return {TENSOR: name}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        parts = {
            f.name: split(getattr(value, f.name), f"{name}.{f.name}", tensors)
            for f in dataclasses.fields(value)
            if f.init
        }
        return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **parts}
    if isinstance(value, dict):
        return {key: split(v, f"{name}.{key}", tensors) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [split(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]
    return value


def join(spec: Any, tensors: dict[str, Tensor]) -> Any:
    """The plain values of `split` with every tensor back in its place."""
    if isinstance(spec, dict):
        if TENSOR in spec:
            return tensors[spec[TENSOR]]
        return {key: join(value, tensors) for key, value in spec.items()}
    if isinstance(spec, list):
        return [join(value, tensors) for value in spec]
    return spec
