"""GPTQ files (AutoGPTQ, GPTQModel): integers packed along the inputs, with zero points of one of two conventions.

For a weight [out, in] of b bits in groups of g inputs:

    qweight  int32 [in b / 32, out]         integers q, packed down each column
    qzeros   int32 [in / g, out b / 32]     zero points, packed along each row
    scales   float [in / g, out]
    g_idx    int32 [in]                     the group of each input (act-order); may be missing where it is i // g

    weight[o, i] = scales[g_idx[i], o] * (q[i, o] - z[g_idx[i], o])

Version 1 stores z - 1, version 2 stores z. `checkpoint_format` in the configuration says which ("gptq", "gptq_v2"), but
writers have labelled one as the other, so both are tried against the base model's weights (see `quantbench.checkpoints.
zero_points`). Source: the packing code of AutoGPTQ and GPTQModel, and their quantize_config.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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


@dataclass(frozen=True)
class GptqLayout:
    """bits, group_size (None: one group) of layers without an entry in `dynamic`; offset: z is what is stored plus it.

    dynamic  GPTQModel's settings of single layers: regular expressions, "-:" before those that are not quantized
    labelled  the version that the configuration names
    """

    bits: int
    group_size: int | None
    labelled: str
    offset: int
    dynamic: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> GptqLayout:
        """From the quantization_config of a config.json. Raises ModelError for a key that cannot be read."""
        version = one_of(config, "checkpoint_format", ("gptq", "gptq_v2"), "gptq")
        dynamic = config.get("dynamic") or {}
        if not isinstance(dynamic, Mapping):
            raise ModelError(f"quantization_config.dynamic={dynamic!r}: expected a mapping of layers to settings")
        return cls(
            bits=integer(config, "bits", (2, 3, 4, 8)),
            group_size=_group_size(config),
            labelled=version,
            offset=0 if version == "gptq_v2" else 1,
            dynamic=dynamic,
        )

    @property
    def name(self) -> str:
        """GPTQ, the version that is in use, bits and groups."""
        groups = "one group" if self.group_size is None else f"groups of {self.group_size}"
        return f"GPTQ version {2 - self.offset}, {self.bits} bits, {groups}"

    def with_offset(self, offset: int) -> GptqLayout:
        """The layout of version 1 (offset 1) or 2 (offset 0)."""
        return replace(self, offset=offset)

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
        stored = unpack_words(parts["qzeros"], bits, rows).t().float()
        # Version 1 keeps z - 1 in b bits, so that z = 0 is stored as the largest integer.
        zeros = (stored + self.offset) % 2**bits if self.offset else stored
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
