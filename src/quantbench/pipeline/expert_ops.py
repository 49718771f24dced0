"""Quantizing what experts read whose weights lie in one 3-D parameter: each slice has its own scale."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from quantbench.core.component import component
from quantbench.core.mixing import Mixing
from quantbench.formats.base import ActivationFormat
from quantbench.models.experts import SliceWatch, watched_experts
from quantbench.models.handle import Removable
from quantbench.pipeline.input_ops import Both
from quantbench.pipeline.runtime import quantized_input

COMMON_RANGE = "the range of their inputs is that of all experts beside them"


@component
class QuantizeExpertInputs:
    """Quantize what some experts read, tokens [n, in] each, while the module that holds them runs expert by expert.

    parameter  the name of the 3-D parameter [experts, ...] in the module
    experts    int32 [k]: which of its slices
    params     scale and zero [k] of a static format
    keep       by number of an expert, int32 [c]: input channels that stay as they are
    common     how many of them saw so few calibration tokens that their scale is that of all of them together
    """

    whole_sequences: ClassVar[bool] = False

    module: str
    parameter: str
    format: ActivationFormat
    experts: Tensor
    params: dict[str, Tensor] = Field(default_factory=dict)
    keep: dict[str, Tensor] = Field(default_factory=dict)
    common: int = 0

    @property
    def mixing(self) -> Mixing:
        """An expert reads tokens of all sequences as one."""
        return Mixing.BATCH if self.format.mixing else Mixing.NONE

    def install(self, module: nn.Module) -> Removable:
        """Quantize inputs from now on; gradients pass straight through."""
        rows = {str(expert): row for row, expert in enumerate(self.experts.tolist())}
        stack = ExitStack()

        def quantize(expert: str, x: Tensor) -> Tensor:
            params = {key: values[rows[expert]] for key, values in self.params.items()}
            return quantized_input(x, self.format, params, self.keep.get(expert))

        def before(_module: nn.Module, _args: tuple[Any, ...]) -> None:
            stored = getattr(module, self.parameter)  # as it is now: it may have been replaced, or moved
            slices = {expert: (stored[int(expert)], bool(module.is_transposed)) for expert in rows}
            stack.enter_context(watched_experts(module, SliceWatch(slices, quantize)))

        def after(_module: nn.Module, _args: object, _output: object) -> None:
            stack.close()

        # The operation that began last ends first.
        ended = module.register_forward_hook(after, always_call=True, prepend=True)
        return Both(module.register_forward_pre_hook(before), ended)
