"""Rotating single weights, and the checks and refusals that all of a rotation shares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from quantbench.core.errors import ModelError
from quantbench.models.groups import InputGroup
from quantbench.models.handle import Removable
from quantbench.models.slots import WeightSlot
from quantbench.pipeline.fold import check_unchanged, norm_producer, replace_parameter
from quantbench.transforms.hadamard import Orthogonal

NO_STREAM = "Set quantizer.rotation.residual=false, or choose a recipe without rotation"
NO_HEADS = "Set quantizer.rotation.value=false and quantizer.rotation.heads=false, or choose a recipe without rotation"


def refused(name: str, reason: str, remedy: str) -> ModelError:
    """The error that says why a model cannot be rotated, and what to change."""
    return ModelError(f"quantizer.rotation: {name}: {reason}. {remedy}")


def check_same(before: Tensor, after: Tensor, what: str) -> None:
    """Raise ModelError if a rotated model does not compute what it computed before."""
    check_unchanged(before, after, f"quantizer.rotation ({what})")


@contextmanager
def hooked(handles: list[Removable]) -> Iterator[None]:
    """Within the context the hooks are there."""
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


def rotate_inputs(slot: WeightSlot, matrix: Orthogonal, stride: int = 1) -> None:
    """W R in place of W, for an input that is x R."""
    slot.set(matrix.apply(slot.get(), stride))


def rotate_outputs(slot: WeightSlot, matrix: Orthogonal, rows: slice = slice(None)) -> None:
    """R^T W and bias R in place of W and bias, on some of the output rows, head by head if R is smaller."""
    weight = slot.get().clone()
    weight[rows] = matrix.apply(weight[rows].t().contiguous()).t()
    slot.set(weight)
    if slot.bias is not None:
        bias = slot.bias.detach().float().clone()
        bias[rows] = matrix.apply(bias[rows])
        replace_parameter(slot.module, "bias", bias)


def fold_gain(group: InputGroup, stream: Orthogonal, name: str) -> None:
    """Move the gain of a group's normalization into its weights, and see that what is left commutes with rotation."""
    producer = norm_producer(group)
    if producer is None:
        raise refused(name, "the gain of a normalization has no known form", NO_STREAM)
    gain = producer.release()
    for slot in group.slots:
        slot.set(slot.get() * gain)
    probe = torch.linspace(-1, 2, len(gain), device=gain.device).to(slot.dtype)[None, None]
    straight, turned = stream.apply(producer.module(probe)), producer.module(stream.apply(probe))
    if not torch.allclose(straight, turned, atol=1e-1 if slot.dtype != torch.float32 else 1e-3):
        kind = type(producer.module).__name__
        reason = f"{kind} is no root-mean-square normalization (it subtracts the mean or adds a bias)"
        raise refused(name, f"{reason}, so it does not commute with a rotation of the residual stream", NO_STREAM)
