"""compressed-tensors files (llm-compressor): integers, 8-bit floats, NVFP4 and MX.

The configuration has groups of layers (`config_groups`), each with a scheme for weights and one for inputs, and
`ignore`. For a weight [out, in] of b bits, what a group's weights are stored as depends on its format:

    pack-quantized            weight_packed int32 [out, in b / 32]: q + 2^(b-1), packed along each row, without gaps
                              (older versions: none crosses a word); weight_shape int64 [2]; weight_zero_point
                              [out b / 32, g], packed down each column, or int8 [out, g]; weight_g_idx int32 [in]
                              where groups are reordered
    int-quantized,            weight int8 or float8_e4m3fn [out, in]; weight_zero_point int8 like the scales
    float-, naive-quantized
    nvfp4-pack-quantized      weight_packed uint8 [out, in / 2] (e2m1, the lower half of a byte first), weight_scale
                              float8_e4m3fn [out, in / 16], weight_global_scale float32 [1], which divides
    mxfp4-pack-quantized      the same with weight_scale uint8 [out, in / 32], the exponent e of 2^(e - 127)
    mxfp6-pack-quantized      weight_packed uint8 [out, 3 in / 4] (e2m3, four in three bytes), weight_scale as there
    mxfp8-quantized           weight float8_e4m3fn [out, in], weight_scale as there

    weight = (q - z) s,  s = weight_scale [1] (tensor), [out, 1] (channel), [out, in / group] or one for each block

Source: the compressors of the package compressed-tensors (0.17 to 0.20).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantbench.checkpoints.inputs import input_quantization
from quantbench.checkpoints.layout import FLOATS, Header, InputQuantization, Part, Parts, Shape
from quantbench.checkpoints.scheme import Scheme
from quantbench.checkpoints.settings import refuse
from quantbench.checkpoints.words import (
    aligned_words_for,
    unpack_aligned_words,
    unpack_nibbles,
    unpack_words,
    words_for,
)
from quantbench.core.errors import ModelError
from quantbench.core.lazy import lazy_module
from quantbench.formats.values import ELEMENTS

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

PACKED, PLAIN, NVFP4, MXFP4, MXFP6, MXFP8 = (
    "pack-quantized",
    "plain",
    "nvfp4-pack-quantized",
    "mxfp4-pack-quantized",
    "mxfp6-pack-quantized",
    "mxfp8-quantized",
)
_PLAIN = ("int-quantized", "float-quantized", "naive-quantized")
_PER_LAYER = ("mixed-precision", "dense", None)
"""Formats of a whole configuration that leave it to the groups."""

_INTEGERS = {("int", bits) for bits in range(1, 9)}
_NUMBERS = {
    PACKED: _INTEGERS,
    PLAIN: _INTEGERS | {("float", 8)},
    NVFP4: {("float", 4)},
    MXFP4: {("float", 4)},
    MXFP6: {("float", 6)},
    MXFP8: {("float", 8)},
}
"""Type and bits of what each format holds."""


@dataclass(frozen=True)
class Group:
    """Layers with one scheme: those of `targets`, a class of modules, names, or "re:" and a regular expression."""

    targets: Sequence[str]
    format: str
    weights: Scheme
    inputs: Scheme | None


@dataclass(frozen=True)
class CompressedTensors:
    """The layers of each group, but for those to ignore."""

    groups: Sequence[Group]
    ignore: Sequence[str]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> CompressedTensors:
        """From the quantization_config of a config.json. Raises ModelError for a key that cannot be read."""
        refuse(config, "transform_config", "rotations that the model performs when it runs are not read")
        refuse(config, "kv_cache_scheme", "a quantized key-value cache of another tool is not reproduced")
        sparsity = config.get("sparsity_config") or {}
        if sparsity.get("format") not in (None, "dense"):
            refuse(config, "sparsity_config", "sparse weights are not read")
        groups = config.get("config_groups")
        if not isinstance(groups, Mapping) or not groups:
            raise ModelError(f"quantization_config.config_groups={groups!r}: expected at least one group of layers")
        made = [_group(name, group, config.get("format")) for name, group in groups.items()]
        return cls(made, tuple(config.get("ignore") or ()))

    @property
    def name(self) -> str:
        """compressed-tensors, and the format and weights of each group."""
        found = dict.fromkeys(f"{group.format}, {group.weights.name}" for group in self.groups)
        return f"compressed-tensors ({'; '.join(found)})"

    def quantized(self, layer: str, present: Mapping[str, Header]) -> bool:
        """Whether there are scales. Raises ModelError if the configuration says otherwise."""
        found, group = "weight_scale" in present, self._group(layer)
        if found and group is None:
            raise ModelError(f"{layer} has a weight_scale, but no group of quantization_config.config_groups has it")
        if not found and group is not None:
            raise ModelError(
                f"{layer} has no weight_scale, but is in a group of quantization_config.config_groups and not among "
                f"its ignore: the file has {', '.join(sorted(present)) or 'nothing'} of it"
            )
        return found

    def parts(self, layer: str, shape: tuple[int, int], present: Mapping[str, Header]) -> Mapping[str, Part]:
        """The tensors of the layer's group."""
        group = self._of(layer)
        rows, columns = shape
        bits, scale = group.weights.bits, group.weights.scale_shapes(shape)
        inputs = _input_parts(group.inputs)
        if group.format == PACKED:
            widths = [words_for(columns, bits), aligned_words_for(columns, bits)]
            zeros = [(words_for(rows, bits), scale[0][1]), (aligned_words_for(rows, bits), scale[0][1]), *scale]
            return {
                "weight_packed": Part([(rows, width) for width in widths], ["I32"]),
                "weight_scale": Part(scale, FLOATS),
                "weight_shape": Part([(2,)], ["I64", "I32"]),
                "weight_zero_point": Part(zeros, ["I32", "I8"], optional=group.weights.symmetric),
                "weight_g_idx": Part([(columns,)], ["I32", "I64"], optional=True),
                **inputs,
            }
        if group.format == PLAIN:
            dtype = "I8" if group.weights.type == "int" else "F8_E4M3"
            return {
                "weight": Part([shape], [dtype]),
                "weight_scale": Part(scale, FLOATS),
                "weight_zero_point": Part(scale, ["I8", *FLOATS, "F8_E4M3"], optional=group.weights.symmetric),
                "weight_shape": Part([(2,)], ["I64"], optional=True),
                "weight_g_idx": Part([(columns,)], ["I32", "I64"], optional=True),
                **inputs,
            }
        if group.format == MXFP8:
            return {"weight": Part([shape], ["F8_E4M3"]), "weight_scale": Part(scale, ["U8"]), **inputs}
        if group.format == MXFP6 and columns % 16:
            raise ModelError(f"{layer}: rows of {columns} values in mxfp6-pack-quantized end within a word: not read")
        packed = Part([(rows, columns * (3 if group.format == MXFP6 else 2) // 4)], ["U8"])
        if group.format in (MXFP4, MXFP6):
            return {"weight_packed": packed, "weight_scale": Part(scale, ["U8"]), **inputs}
        one = Part([(1,), ()], ["F32"])
        return {"weight_packed": packed, "weight_scale": Part(scale, ["F8_E4M3"]), "weight_global_scale": one, **inputs}

    def dequantize(self, layer: str, shape: tuple[int, int], parts: Parts) -> Tensor:
        """The weight, by the formula above. Raises ModelError if the stored shape is another one."""
        group, stored = self._of(layer), parts.get("weight_shape")
        if stored is not None and tuple(stored.tolist()) != shape:
            raise ModelError(f"{layer}.weight_shape is {stored.tolist()}, but the base model's weight is {list(shape)}")
        scale, index = parts["weight_scale"], parts.get("weight_g_idx")
        if group.format in (NVFP4, MXFP4, MXFP6, MXFP8):
            values = _floats(group.format, parts, shape[1])
            if group.format == NVFP4:
                scale = scale.float() / parts["weight_global_scale"].float()
            else:
                scale = torch.exp2(scale.float() - 127)
            return values * group.weights.spread(scale, shape)
        if index is not None and int(index.min()) < 0:  # written where groups are not reordered
            index = None
        codes, zeros = _integers(group, parts, shape)
        wide = group.weights.spread(scale.float(), shape, index)
        return (codes - group.weights.spread(zeros, shape, index)) * wide if zeros is not None else codes * wide

    def input_quantization(self, layer: str, parts: Parts) -> InputQuantization | None:
        """By the group's `input_activations`."""
        scheme = self._of(layer).inputs
        return None if scheme is None else input_quantization(scheme, parts)

    def _of(self, layer: str) -> Group:
        group = self._group(layer)
        assert group is not None
        return group

    def _group(self, layer: str) -> Group | None:
        if any(_matches(layer, target) for target in self.ignore):
            return None
        named = [group for group in self.groups if any(t != "Linear" and _matches(layer, t) for t in group.targets)]
        of_class = [group for group in self.groups if "Linear" in group.targets]
        return next(iter([*named, *of_class]), None)


def _matches(layer: str, target: str) -> bool:
    if target.startswith("re:"):
        return re.match(target.removeprefix("re:"), layer) is not None
    return target in (layer, "Linear")


def _group(name: str, group: Any, whole: str | None) -> Group:
    where = f"config_groups.{name}"
    if not isinstance(group, Mapping) or not group.get("weights"):
        raise ModelError(f"quantization_config.{where} has no weights: only inputs are quantized, which is not read")
    refuse(group, "output_activations", "quantized outputs of layers are not read")
    weights = Scheme.of(group["weights"], f"{where}.weights")
    given = group.get("input_activations")
    inputs = None if not given else Scheme.of(given, f"{where}.input_activations")
    own = group.get("format") or (None if whole in _PER_LAYER else whole)
    form = _format(own, weights, where)
    if (weights.type, weights.bits) not in _NUMBERS[form]:
        raise ModelError(
            f"quantization_config.{where}: weights of type={weights.type!r} with num_bits={weights.bits} contradict "
            f"the format {own}"
        )
    return Group(tuple(group.get("targets") or ("Linear",)), form, weights, inputs)


def _format(named: str | None, weights: Scheme, where: str) -> str:
    """The group's format; where none is named, what its weights are written in."""
    if named in _PLAIN:
        return PLAIN
    if named in (PACKED, NVFP4, MXFP4, MXFP6, MXFP8):
        return named
    if named is not None:
        known = ", ".join((PACKED, *_PLAIN, NVFP4, MXFP4, MXFP6, MXFP8))
        raise ModelError(f"quantization_config: format {named!r} of {where} is not read; quantbench reads {known}")
    if weights.type == "float" and weights.bits == 4:
        return NVFP4 if weights.group_size == 16 else MXFP4
    if weights.type == "float" and weights.bits == 6:
        return MXFP6
    return PACKED if weights.type == "int" and weights.bits < 8 else PLAIN


def _input_parts(scheme: Scheme | None) -> dict[str, Part]:
    one: list[Shape] = [(1,), ()]
    if scheme is None:
        return {}
    scale, zero = Part(one, FLOATS, optional=True), Part(one, ["I8", *FLOATS], optional=True)
    return {"input_scale": scale, "input_zero_point": zero, "input_global_scale": Part(one, ["F32"], optional=True)}


def _floats(format: str, parts: Parts, columns: int) -> Tensor:
    if format == MXFP8:
        return parts["weight"].float()
    if format == MXFP6:
        return ELEMENTS["e2m3"].decode(unpack_words(parts["weight_packed"].view(torch.int32), 6, columns))
    return ELEMENTS["e2m1"].decode(unpack_nibbles(parts["weight_packed"], columns))


def _integers(group: Group, parts: Parts, shape: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
    """Codes q float32 [out, in] and zero points float32 like the scales, None if all are 0."""
    rows, columns = shape
    bits, zeros = group.weights.bits, parts.get("weight_zero_point")
    if group.format == PLAIN:
        return parts["weight"].float(), None if zeros is None else zeros.float()
    half = 2 ** (bits - 1)
    packed = parts["weight_packed"]
    unpack = unpack_words if packed.shape[1] == words_for(columns, bits) else unpack_aligned_words
    codes = unpack(packed, bits, columns).float() - half
    if zeros is not None and zeros.dtype == torch.int32:
        unpack = unpack_words if len(zeros) == words_for(rows, bits) else unpack_aligned_words
        zeros = unpack(zeros.t().contiguous(), bits, rows).t().float() - half
    return codes, None if zeros is None else zeros.float()
