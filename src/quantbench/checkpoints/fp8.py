"""FP8 files as transformers writes and loads them (`quant_method: fp8`, DeepSeek's layout).

    weight            float8_e4m3fn [out, in]
    weight_scale_inv  float [out / r, in / c], the scale of each block of r x c weights (usually 128 x 128), which
                      multiplies in spite of its name; [] or [1] where weight_block_size is null: one scale in all
    activation_scale  float [], where inputs have a fixed scale (`activation_scheme: static`)

Inputs are quantized to e4m3, too: with a scale for each c features of a token, taken as the model runs; or, without
blocks, one a token; or the fixed one. Source: the fine-grained FP8 integration of transformers 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantbench.checkpoints.inputs import fp8
from quantbench.checkpoints.layout import FLOATS, Header, InputQuantization, Part, Parts, Shape
from quantbench.checkpoints.settings import one_of
from quantbench.core.errors import ModelError
from quantbench.formats.activation import FormatActivation

if TYPE_CHECKING:
    from torch import Tensor

ONE: tuple[Shape, ...] = ((), (1,))


@dataclass(frozen=True)
class Fp8Layout:
    """block: rows and columns that share a scale, None: all; static: inputs have a fixed scale."""

    block: tuple[int, int] | None
    static: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Fp8Layout:
        """From the quantization_config of a config.json. Raises ModelError for a key that cannot be read."""
        scheme = one_of(config, "activation_scheme", ("dynamic", "static"), "dynamic")
        one_of(config, "scale_fmt", ("float",), "float")
        one_of(config, "expert_dtype", ("fp8",), "fp8")
        one_of(config, "fmt", ("e4m3",), "e4m3")
        block = config.get("weight_block_size")
        if block is not None and not (
            isinstance(block, list | tuple) and len(block) == 2 and all(isinstance(n, int) and n > 0 for n in block)
        ):
            raise ModelError(f"quantization_config.weight_block_size={block!r}: expected two numbers, or null")
        if block is not None and scheme == "static":
            raise ModelError(
                "quantization_config.activation_scheme='static' with weight_block_size: inputs with a fixed scale go "
                "with one scale for the weight"
            )
        return cls(None if block is None else (block[0], block[1]), scheme == "static")

    @property
    def name(self) -> str:
        """FP8, and its blocks."""
        blocks = "one scale" if self.block is None else f"blocks of {self.block[0]} x {self.block[1]}"
        return f"FP8 (e4m3), {blocks}, inputs {'with a fixed scale' if self.static else 'as they come'}"

    def quantized(self, layer: str, present: Mapping[str, Header]) -> bool:
        """Whether there is a scale."""
        return "weight_scale_inv" in present

    def parts(self, layer: str, shape: tuple[int, int], present: Mapping[str, Header]) -> Mapping[str, Part]:
        """Weight and scales."""
        scales = ONE if self.block is None else [(-(-shape[0] // self.block[0]), -(-shape[1] // self.block[1]))]
        return {
            "weight": Part([shape], ["F8_E4M3"]),
            "weight_scale_inv": Part(scales, FLOATS),
            "activation_scale": Part(ONE, FLOATS, optional=not self.static),
        }

    def dequantize(self, layer: str, shape: tuple[int, int], parts: Parts) -> Tensor:
        """Each weight times the scale of its block."""
        scale = parts["weight_scale_inv"].float()
        if self.block is None:
            return parts["weight"].float() * scale.reshape(1, 1)
        tall = scale.repeat_interleave(self.block[0], 0)[: shape[0]]
        return parts["weight"].float() * tall.repeat_interleave(self.block[1], 1)[:, : shape[1]]

    def input_quantization(self, layer: str, parts: Parts) -> InputQuantization | None:
        """e4m3, in groups as wide as the weight's blocks, by token, or with the fixed scale."""
        if self.static:
            fixed = FormatActivation(format=fp8("tensor"), dynamic=False)
            return InputQuantization(fixed, {"scale": parts["activation_scale"].float().reshape(())})
        groups = "channel" if self.block is None else self.block[1]
        return InputQuantization(FormatActivation(format=fp8(groups), dynamic=True), {})
