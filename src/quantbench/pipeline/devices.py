"""Values with tensors in them, moved between devices or kept elsewhere.

They are what a block is called with, and what is kept of it when the next one follows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

CPU = torch.device("cpu")


def to_device(value: Any, device: torch.device) -> Any:
    """The value with all tensors in it on a device; the value itself where they are there already."""
    return each_tensor(value, lambda tensor: tensor.to(device))


def each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The value with all tensors in it changed; the value itself where `change` gives the tensors back.

    Looks into tuples, lists, dictionaries and dataclasses.
    """
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple | list):
        parts: Mapping[Any, Any] = dict(enumerate(value))
    elif isinstance(value, dict):
        parts = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
    else:
        return value
    moved = {key: each_tensor(part, change) for key, part in parts.items()}
    if all(moved[key] is part for key, part in parts.items()):
        return value
    if isinstance(value, tuple | list):
        return type(value)(moved.values())
    return moved if isinstance(value, dict) else dataclasses.replace(value, **moved)
