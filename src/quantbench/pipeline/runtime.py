"""Operations a quantized model performs when it runs: today, quantizing the inputs of layers.

They are stored with the run; `install` is the one function that puts them in place, the same right after quantization
and after a reload.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from quantbench.formats.base import ActivationFormat


@dataclass(frozen=True)
class ActivationOp:
    """Quantize the input of the module called `module`; params hold scale and zero of a static format."""

    module: str
    format: ActivationFormat
    params: dict[str, Tensor] = field(default_factory=dict)

    def install(self, module: nn.Module) -> RemovableHandle:
        """Quantize what `module` reads from now on."""
        device = next(module.parameters()).device
        scale, zero = (p.to(device) if (p := self.params.get(k)) is not None else None for k in ("scale", "zero"))

        def quantize_input(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (self.format.fake_quantize(args[0], scale, zero), *args[1:])

        return module.register_forward_pre_hook(quantize_input)


def install(root: nn.Module, ops: list[ActivationOp]) -> list[RemovableHandle]:
    """Install all operations on the modules of `root` they name; returns the handles that remove them."""
    modules = dict(root.named_modules())
    return [op.install(modules[op.module]) for op in ops]
