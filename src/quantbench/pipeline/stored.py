"""The check that a model can be had again, bit for bit, from what is stored of it.

A format, correction or operation may come from outside, and may keep something that it does not store: the run that
was scored and the one that is loaded later would then be two models under one run id.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from quantbench.core.build import build
from quantbench.core.errors import StoreError
from quantbench.formats.serialization import join
from quantbench.pipeline.artifact import Artifact, stored_weight
from quantbench.pipeline.runtime import RuntimeOp


def check_stored(artifact: Artifact, tensors: dict[str, Tensor], spec: Mapping[str, Any]) -> None:
    """Decode every layer, changed parameter and operation from `tensors` and `spec`, and compare it with `artifact`.

    tensors, spec  what `Artifact.to_tensors` gave, as it was written
    Raises StoreError naming the first layer that differs by a bit, and its format or operation.
    """
    for name, weight in artifact.weights.items():
        what = f"layer {name}, format {_kind(weight.format)}"
        if weight.corrections:
            what += f" with {', '.join(_kind(one) for one in weight.corrections)}"
        try:
            again = stored_weight(name, spec["weights"][name], tensors).dequantize()
        except (KeyError, ValueError, RuntimeError) as error:
            raise StoreError(f"{what}: what was stored cannot be decoded: {error!r}") from error
        if not _same(weight.dequantize(), again):
            raise _other(what, "its pack and unpack, or its options, lose something")
    for name, value in artifact.changed.items():
        if not _same(value, tensors.get(f"{name}#changed")):
            raise _other(f"parameter {name}", "it was changed while it was stored")
    if artifact.stored.keys() != spec.get("stored", {}).keys():
        raise _other("bits", f"those of {len(spec.get('stored', {}))} of {len(artifact.stored)} parameters are stored")
    if len(spec["ops"]) != len(artifact.ops):
        raise _other("operations", f"{len(spec['ops'])} of {len(artifact.ops)} are stored")
    for op, entry in zip(artifact.ops, spec["ops"], strict=True):
        if not _same(op, build(join(entry, tensors), RuntimeOp, "stored operation")):
            raise _other(f"layer {op.module}, operation {_kind(op)}", "its fields do not hold all that it does")


def _other(what: str, why: str) -> StoreError:
    return StoreError(f"{what}: what was stored decodes to something else than what was quantized: {why}")


def _kind(value: object) -> str:
    return type(value).__qualname__


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same: tensors to the bit, components by all of their fields."""
    if isinstance(one, torch.Tensor):
        if not isinstance(other, torch.Tensor) or (one.dtype, one.shape) != (other.dtype, other.shape):
            return False
        pair = [tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
        return torch.equal(*pair)
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and all(
            _same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one)
        )
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        same_length = isinstance(other, list | tuple) and len(one) == len(other)
        return same_length and all(_same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)
