"""AWQ files (AutoAWQ, "gemm"): integers of 4 bits packed along the outputs, in an order of their own.

For a weight [out, in] in groups of g inputs:

    qweight  int32 [in, out / 8]        eight integers q a word; the k-th lowest four bits are those of output ORDER[k]
    qzeros   int32 [in / g, out / 8]    zero points z, the same way; missing where zero_point is false: then z = 8
    scales   float [in / g, out]

    weight[o, i] = scales[i // g, o] * (q[i, o] - z[i // g, o])

Scales of the inputs are folded into the layers and normalizations before. Source: the packing code of AutoAWQ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantbench.checkpoints.layout import FLOATS, Header, InputQuantization, Part, Parts
from quantbench.checkpoints.settings import integer, one_of
from quantbench.checkpoints.words import unpack_words
from quantbench.core.errors import ModelError
from quantbench.core.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring outputs each four bits of a word belong to, the lowest first."""


@dataclass(frozen=True)
class AwqLayout:
    """group_size: inputs per scale, None: all of them; zero_point: whether zero points are stored."""

    group_size: int | None
    zero_point: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> AwqLayout:
        """From the quantization_config of a config.json. Raises ModelError for a key that cannot be read."""
        version = {**config, "version": str(config.get("version", "gemm")).lower()}
        one_of(version, "version", ("gemm",))
        integer(config, "bits" if "bits" in config else "w_bit", (4,), 4)
        size = integer(config, "group_size" if "group_size" in config else "q_group_size", None, 128)
        if size == 0 or size < -1:
            raise ModelError(f"quantization_config.group_size={size}: expected a number of inputs, or -1 for all")
        return cls(None if size == -1 else size, bool(config.get("zero_point", True)))

    @property
    def name(self) -> str:
        """AWQ, and its groups."""
        return f"AWQ, 4 bits, {'one group' if self.group_size is None else f'groups of {self.group_size}'}"

    def quantized(self, layer: str, present: Mapping[str, Header]) -> bool:
        """Whether there are integers."""
        return "qweight" in present

    def parts(self, layer: str, shape: tuple[int, int], present: Mapping[str, Header]) -> Mapping[str, Part]:
        """The two or three tensors."""
        rows, columns = shape
        groups = 1 if self.group_size is None else -(-columns // self.group_size)
        return {
            "qweight": Part([(columns, rows // 8)], ["I32"]),
            "qzeros": Part([(groups, rows // 8)], ["I32"], optional=not self.zero_point),
            "scales": Part([(groups, rows)], FLOATS),
        }

    def dequantize(self, layer: str, shape: tuple[int, int], parts: Parts) -> Tensor:
        """The weight, by the formula above."""
        rows, columns = shape
        codes = in_order(unpack_words(parts["qweight"], 4, rows)).t().float()
        scales = parts["scales"].t().float()
        stored = parts.get("qzeros")
        zeros = torch.full_like(scales, 8) if stored is None else in_order(unpack_words(stored, 4, rows)).t().float()
        index = torch.arange(columns) // (self.group_size or columns)
        return (codes - zeros[:, index]) * scales[:, index]

    def input_quantization(self, layer: str, parts: Parts) -> InputQuantization | None:
        """None: weights only."""
        return None


def in_order(packed: Tensor) -> Tensor:
    """Integers [n, 8 k] as the words hold them -> in the order of the outputs."""
    places = torch.tensor(ORDER).argsort()
    return packed.reshape(len(packed), -1, 8)[:, :, places].flatten(1)
