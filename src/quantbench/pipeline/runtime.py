"""Operations a quantized model performs when it runs: quantizing the inputs of layers, rotating them, and so on.

They are components, stored with the run; `install` is the one function that makes a model perform them, the same right
after quantization and after a reload. Operations on one module act in the order of the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import Field
from torch import Tensor, nn

from quantbench.core.component import component
from quantbench.core.errors import StoreError
from quantbench.core.mixing import Mixing
from quantbench.formats.base import ActivationFormat
from quantbench.formats.straight_through import straight_through
from quantbench.models.handle import Removable


@runtime_checkable
class RuntimeOp(Protocol):
    """An operation on the module called `module`. Implementations are components whose fields may be tensors.

    Every member is required: what an operation mixes decides how tasks are scored, so none has a default.
    """

    @property
    def module(self) -> str:
        """Dotted name of the module in the model."""
        ...

    @property
    def mixing(self) -> Mixing:
        """How far tokens act on each other in ways the full-precision model does not know."""
        ...

    @property
    def whole_sequences(self) -> bool:
        """Whether it needs the whole sequence at once, and cannot go on from a key-value cache."""
        ...

    def install(self, module: nn.Module) -> Removable:
        """Perform the operation whenever the module runs."""
        ...


@component
class QuantizeInput:
    """Quantize what a layer reads.

    params  scale and zero of a static format
    keep    int32 [k]: input channels that stay as they are
    """

    whole_sequences: ClassVar[bool] = False

    module: str
    format: ActivationFormat
    params: dict[str, Tensor] = Field(default_factory=dict)
    keep: Tensor | None = None

    @property
    def mixing(self) -> Mixing:
        """What the format mixes."""
        return self.format.mixing

    def install(self, module: nn.Module) -> Removable:
        """Quantize inputs from now on; gradients pass straight through."""

        def quantize_input(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (quantized_input(args[0], self.format, self.params, self.keep), *args[1:])

        return module.register_forward_pre_hook(quantize_input)


def quantized_input(x: Tensor, format: ActivationFormat, params: Mapping[str, Tensor], keep: Tensor | None) -> Tensor:
    """x [..., in] on the grid of a format, but for the channels `keep`; gradients pass straight through."""
    values = x.detach()  # its device is known only now: the model may have moved since
    scale, zero = (p.to(x.device) if (p := params.get(key)) is not None else None for key in ("scale", "zero"))
    kept = None if keep is None else keep.to(x.device).long()
    # Kept channels must not widen the range of the others.
    rest = values if kept is None else values.index_fill(-1, kept, 0)
    quantized = format.fake_quantize(rest, scale, zero)
    if kept is not None:
        quantized = quantized.index_copy(-1, kept, values.index_select(-1, kept))
    return straight_through(quantized, x)


def install(modules: Mapping[str, nn.Module], ops: Iterable[RuntimeOp]) -> list[Removable]:
    """Install operations on the modules they name; returns what removes them."""
    ops = list(ops)
    unknown = sorted({op.module for op in ops} - set(modules))
    if unknown:
        raise StoreError(f"this run has an operation on {unknown[0]}, which the model does not have")
    return [op.install(modules[op.module]) for op in ops]
