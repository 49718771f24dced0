"""Runtime operations that rewrite the input of a layer without changing its full-precision function."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from quantbench.core.component import component
from quantbench.core.mixing import Mixing
from quantbench.models.handle import Removable
from quantbench.transforms.hadamard import Orthogonal


@component
class RotateInput:
    """Rotate what a layer reads, x [.., k size stride], on the axis `size` of its view [.., k, size, stride].

    The matrix is `quantbench.transforms.hadamard.Orthogonal(size, seed)`; the layer's weight has absorbed its inverse.
    """

    mixing: ClassVar[Mixing] = Mixing.NONE
    whole_sequences: ClassVar[bool] = False

    module: str
    size: Annotated[int, Field(ge=1)]
    stride: Annotated[int, Field(ge=1)]
    seed: str

    def install(self, module: nn.Module) -> Removable:
        """Rotate inputs from now on."""
        matrix = Orthogonal(self.size, self.seed)

        def rotate_input(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (matrix.apply(args[0], self.stride), *args[1:])

        return module.register_forward_pre_hook(rotate_input)


@component
class ShiftInput:
    """Subtract a vector from what a layer reads, and add to its output what that took away.

    shift   z float32 [in], subtracted from each token
    offset  W z float32 [out], for the weight W before it was quantized
    """

    mixing: ClassVar[Mixing] = Mixing.NONE
    whole_sequences: ClassVar[bool] = False

    module: str
    shift: Tensor
    offset: Tensor

    @property
    def bits(self) -> int:
        """Bits that are stored."""
        return 32 * (self.shift.numel() + self.offset.numel())

    def install(self, module: nn.Module) -> Removable:
        """Shift inputs, and correct outputs, from now on."""

        def subtract(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            x = args[0]
            return ((x.float() - self.shift.to(x.device)).to(x.dtype), *args[1:])

        def add(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
            return (output.float() + self.offset.to(output.device)).to(output.dtype)

        return Both(module.register_forward_pre_hook(subtract), module.register_forward_hook(add))


@component
class DivideInput:
    """Divide what a layer reads by a vector; the layer's weight has been multiplied by it.

    scale  s float32 [in] > 0
    """

    mixing: ClassVar[Mixing] = Mixing.NONE
    whole_sequences: ClassVar[bool] = False

    module: str
    scale: Tensor

    @property
    def bits(self) -> int:
        """Bits that are stored."""
        return 32 * self.scale.numel()

    def install(self, module: nn.Module) -> Removable:
        """Divide inputs from now on."""

        def divide(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            x = args[0]
            return ((x.float() / self.scale.to(x.device)).to(x.dtype), *args[1:])

        return module.register_forward_pre_hook(divide)


class Both:
    """Two hooks that are removed together."""

    def __init__(self, first: Removable, second: Removable) -> None:
        self._hooks = first, second

    def remove(self) -> None:
        """Undo both."""
        for hook in self._hooks:
            hook.remove()
