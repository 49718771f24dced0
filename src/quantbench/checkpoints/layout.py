"""What a layout of quantized layers must say: which tensors a layer has, and which weight they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from quantbench.formats.base import ActivationFormat

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
Parts = Mapping[str, "Tensor"]
"""The tensors of a layer, by what stands behind "LAYER." in their names."""

FLOATS = ("F16", "BF16", "F32")
"""Dtypes of scales, as safetensors writes them."""


@dataclass(frozen=True)
class Header:
    """What a file says of a tensor before it is read: dtype in the words of safetensors, shape, bytes."""

    dtype: str
    shape: Shape
    n_bytes: int


@dataclass(frozen=True)
class Part:
    """A tensor that a layer must have. shapes: any of them; dtypes: any of them; optional: it may be absent."""

    shapes: Sequence[Shape]
    dtypes: Sequence[str]
    optional: bool = False

    def problem(self, header: Header) -> str | None:
        """What of a tensor is not as it must be; None if all is."""
        if header.dtype not in self.dtypes:
            return f"is {header.dtype}, not {' or '.join(self.dtypes)}"
        if header.shape not in self.shapes:
            wanted = " or ".join(str(list(shape)) for shape in dict.fromkeys(self.shapes))
            return f"has shape {list(header.shape)}, not {wanted}"
        return None


@dataclass(frozen=True)
class InputQuantization:
    """How the input of a layer is quantized when the model runs; params as of `QuantizeInput`."""

    format: ActivationFormat
    params: Mapping[str, Tensor]


class Layout(Protocol):
    """How a kind of file stores the weight of a linear layer. Weights are [out, in]."""

    @property
    def name(self) -> str:
        """What it is called in messages and records, with bits and group size."""
        ...

    def quantized(self, layer: str, present: Mapping[str, Header]) -> bool:
        """Whether a layer with these tensors is quantized. Raises ModelError if the configuration says otherwise."""
        ...

    def parts(self, layer: str, shape: tuple[int, int], present: Mapping[str, Header]) -> Mapping[str, Part]:
        """The tensors of a quantized layer whose weight is [out, in]. Raises ModelError for what cannot be read."""
        ...

    def dequantize(self, layer: str, shape: tuple[int, int], parts: Parts) -> Tensor:
        """The weight float32 [out, in] that the tensors stand for; they are as `parts` wants them."""
        ...

    def input_quantization(self, layer: str, parts: Parts) -> InputQuantization | None:
        """How the layer's input is quantized; None: not at all."""
        ...
