"""GPTQ files (AutoGPTQ, GPTQModel): integers packed along the inputs, with zero points of one of two conventions.

For a weight [out, in] of b bits in groups of g inputs:

    qweight  int32 [in b / 32, out]         integers q, packed down each column
    qzeros   int32 [in / g, out b / 32]     zero points, packed along each row
    scales   float [in / g, out]
    g_idx    int32 [in]                     the group of each input (act-order); may be missing where it is i // g

    weight[o, i] = scales[g_idx[i], o] * (q[i, o] - z[g_idx[i], o])

Version 1 stores z - 1, version 2 stores z. `checkpoint_format` in the configuration says which ("gptq", "gptq_v2"), but
writers have labelled one as the other, so both are tried against the base model's weights (see `quantbench.checkpoints.
zero_points`). Where z = 0, version 1 stores 2^b - 1; some writers subtract from whole words, and such a z takes one
from its neighbour, too. Source: the packing code of AutoGPTQ and GPTQModel, and their quantize_config.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from quantbench.checkpoints.layout import FLOATS, Header, InputQuantization, Part, Parts
from quantbench.checkpoints.settings import integer, one_of
from quantbench.checkpoints.words import unpack_words, words_for
from quantbench.core.errors import ModelError
from quantbench.core.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


class Zeros(Enum):
    """How zero points are stored."""

    VERSION_1 = "version 1"
    VERSION_1_WORDS = "version 1 by whole words"
    VERSION_2 = "version 2"


@dataclass(frozen=True)
class GptqLayout:
    """bits, group_size (None: one group) of layers without an entry in `dynamic`.

    dynamic  GPTQModel's settings of single layers: regular expressions, "-:" before those that are not quantized
    labelled  the version that the configuration names
    zeros     how zero points are stored: those of version 2, of version 1, or of version 1 by whole words
    """

    bits: int
    group_size: int | None
    labelled: str
    zeros: Zeros
    dynamic: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> GptqLayout:
        """From the quantization_config of a config.json. Raises ModelError for a key that cannot be read."""
        key = "checkpoint_format" if "checkpoint_format" in config else "format"
        version = one_of(config, key, ("gptq", "gptq_v2"), "gptq")
        dynamic = config.get("dynamic") or {}
        if not isinstance(dynamic, Mapping):
            raise ModelError(f"quantization_config.dynamic={dynamic!r}: expected a mapping of layers to settings")
        return cls(
            bits=integer(config, "bits", (2, 3, 4, 8)),
            group_size=_group_size(config),
            labelled=version,
            zeros=Zeros.VERSION_2 if version == "gptq_v2" else Zeros.VERSION_1,
            dynamic=dynamic,
        )

    @property
    def name(self) -> str:
        """GPTQ, the version that is in use, bits and groups."""
        groups = "one group" if self.group_size is None else f"groups of {self.group_size}"
        return f"GPTQ version {1 if self.zeros is not Zeros.VERSION_2 else 2}, {self.bits} bits, {groups}"

    def with_zeros(self, zeros: Zeros) -> GptqLayout:
        """The layout with zero points stored in another way."""
        return replace(self, zeros=zeros)

    def quantized(self, layer: str, present: Mapping[str, Header]) -> bool:
        """Whether there are integers."""
        return "qweight" in present

    def parts(self, layer: str, shape: tuple[int, int], present: Mapping[str, Header]) -> Mapping[str, Part]:
        """The four tensors."""
        rows, columns = shape
        bits, group_size = self._settings(layer)
        groups = 1 if group_size is None else -(-columns // group_size)
        return {
            "qweight": Part([(words_for(columns, bits), rows)], ["I32"]),
            "qzeros": Part([(groups, words_for(rows, bits))], ["I32"]),
            "scales": Part([(groups, rows)], FLOATS),
            "g_idx": Part([(columns,)], ["I32"], optional=True),
        }

    def dequantize(self, layer: str, shape: tuple[int, int], parts: Parts) -> Tensor:
        """The weight, by the formula above. Raises ModelError for a group that there is not."""
        rows, columns = shape
        bits, group_size = self._settings(layer)
        codes = unpack_words(parts["qweight"].t(), bits, columns)
        stored, by_words = parts["qzeros"], self.zeros is Zeros.VERSION_1_WORDS and 32 % bits == 0
        if by_words:
            ones = sum(1 << place for place in range(0, 32, bits))
            wide = (stored.long() + ones) % 2**32
            stored = torch.where(wide < 2**31, wide, wide - 2**32).int()
        zeros = unpack_words(stored, bits, rows).t().float()
        if self.zeros is not Zeros.VERSION_2 and not by_words:
            zeros = (zeros + 1) % 2**bits
        scales = parts["scales"].t().float()
        group = parts.get("g_idx")
        index = torch.arange(columns) // (group_size or columns) if group is None else group.long()
        if int(index.min()) < 0 or int(index.max()) >= scales.shape[1]:
            raise ModelError(f"{layer}.g_idx names group {int(index.max())}, of {scales.shape[1]}: the file is damaged")
        return (codes.float() - zeros[:, index]) * scales[:, index]

    def input_quantization(self, layer: str, parts: Parts) -> InputQuantization | None:
        """None: weights only."""
        return None

    def _settings(self, layer: str) -> tuple[int, int | None]:
        for pattern, own in self.dynamic.items():
            if not pattern.startswith("-:") and re.match(pattern.removeprefix("+:"), layer):
                given = {"bits": self.bits, "group_size": self.group_size or -1, **own}
                return integer(given, "bits", (2, 3, 4, 8)), _group_size(given)
        return self.bits, self.group_size


def _group_size(config: Mapping[str, Any]) -> int | None:
    size = integer(config, "group_size", None, 128)
    if size == 0 or size < -1:
        raise ModelError(f"quantization_config.group_size={size}: expected a number of inputs, or -1 for one group")
    return None if size == -1 else size
