"""GGUF files for llama.cpp, of the types of ggml that hold a recipe's values exactly.

Specification: the package gguf (0.19), and llama.cpp's names of tensors and metadata. Integers are Q4_0, Q5_0 or Q8_0,
whichever has every difference of level and zero point (quantbench.export.ggml_blocks), mxfp4 is MXFP4; what is not
quantized is F32, F16 or BF16, as the model has it.

Rows of queries and keys of the architecture "llama" lie in another order there: the two halves that the rotary
embedding turns into each other lie beside each other. That is an order of rows, so codes move as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import gguf
import numpy as np
import torch
from numpy.typing import NDArray

from quantbench.core.files import write_failure
from quantbench.export.codes import NotHeldError, exact_in, int_codes
from quantbench.export.ggml_blocks import BLOCK, Kind, int_blocks, int_kind, mx_blocks
from quantbench.export.ggml_vocabulary import add_vocabulary, split_name
from quantbench.export.subject import Reasons, Subject, Written, linear_layers, refuse_operations, remaining
from quantbench.formats.mx import MxFormat
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.models.skeleton import embedding_rows

GGUF_FILE = "model.gguf"

ARCHITECTURES = {
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "MistralForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
}
OTHER = "Exact: --to dense, of which llama.cpp's own converter makes a file in full precision"

FLOATS = {
    torch.float32: gguf.GGMLQuantizationType.F32,
    torch.float16: gguf.GGMLQuantizationType.F16,
    torch.bfloat16: gguf.GGMLQuantizationType.BF16,
}


class Gguf:
    """Integers of up to 8 bits and mxfp4, of models of the Llama and Qwen families."""

    name: ClassVar[str] = "gguf"

    def check(self, subject: Subject) -> None:
        """Each layer's type; the architecture, its rotary embedding, and the tokenizer."""
        reasons = Reasons(self.name)
        refuse_operations(subject, reasons, inputs=False)
        for name, weight in linear_layers(subject, reasons):
            reasons.attempt(name, lambda w=weight: _kind(w))  # type: ignore[misc]
        reasons.attempt("the model", lambda: _check_model(subject))
        reasons.attempt("the tokenizer", lambda: split_name(subject.tokenizer))
        reasons.refuse(subject.run_id)

    def write(self, subject: Subject, folder: Path) -> Written:
        """One file. Raises StoreError where the operating system refuses."""
        path = folder / GGUF_FILE
        try:
            kinds = _write(subject, path)
        except OSError as error:
            raise write_failure(path, error) from error
        names = ", ".join(f"{count} layers as {kind}" for kind, count in kinds.items())
        note = (
            f"Types: {names}. The values are the run's; a zero point costs one more bit than the recipe's, since these "
            "types have none. llama.cpp also rounds the inputs of layers to 8 bits as it computes, which the proof, "
            "made with transformers, does not."
        )
        return Written("exact", (note,))


def _kind(weight: QuantizedWeight) -> Kind:
    width = weight.codes.shape[1]
    if isinstance(weight.format, MxFormat) and weight.format.element == "e2m1":
        if weight.corrections or weight.format.group_size != BLOCK or width % BLOCK:
            raise NotHeldError(f"no groups of {BLOCK} that divide its width {width}. Exact: --to dense")
        return "MXFP4"
    codes = int_codes(weight)
    if codes.column_group is not None:
        raise NotHeldError("its groups follow the order of activations (act-order). Exact: --to gptq, or --to dense")
    if codes.group_size % BLOCK:
        raise NotHeldError(
            f"groups of {codes.fitted} columns in a width of {width} are no multiples of {BLOCK}. Exact: "
            "--to compressed-tensors, or a run with quantizer.weight.group_size=32"
        )
    if not exact_in(codes.scales, torch.float16):
        raise NotHeldError("its scales are no float16 numbers. Exact: a run with quantizer.weight.scale_dtype=float16")
    return int_kind(codes.bits, codes.symmetric)


def _check_model(subject: Subject) -> None:
    name, config = type(subject.model).__name__, subject.model.config
    if name not in ARCHITECTURES:
        raise NotHeldError(f"{name} is not written here, only {', '.join(ARCHITECTURES)}. {OTHER}")
    rope = getattr(config, "rope_parameters", None) or {}
    if (kind := rope.get("rope_type", "default")) != "default":
        raise NotHeldError(f"rotary embeddings of type {kind!r} are not written here, only 'default'. {OTHER}")
    if getattr(config, "use_sliding_window", False):
        raise NotHeldError(f"attention with a sliding window is not written here. {OTHER}")


def _write(subject: Subject, path: Path) -> dict[str, int]:
    model, config = subject.model, subject.model.config
    arch = ARCHITECTURES[type(model).__name__]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    _add_metadata(writer, subject)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    permuted = _permutations(config) if arch is gguf.MODEL_ARCH.LLAMA else {}
    kinds: dict[str, int] = {}
    for name, tensor in remaining(model, subject.artifact.weights).items():
        ordered = _ordered(_plain(tensor), name, permuted)
        kind = FLOATS[tensor.dtype] if tensor.dim() > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(_name(names, name), ordered if tensor.dim() > 1 else _single(tensor, ordered), raw_dtype=kind)
    for layer, weight in subject.artifact.weights.items():
        which = _kind(weight)
        packed = mx_blocks(weight) if which == "MXFP4" else int_blocks(int_codes(weight).in_groups(BLOCK), which)
        ordered = _ordered(packed, f"{layer}.weight", permuted)
        kind = gguf.GGMLQuantizationType[which]
        writer.add_tensor(_name(names, f"{layer}.weight"), ordered, raw_dtype=kind)
        kinds[which] = kinds.get(which, 0) + 1
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return kinds


def _add_metadata(writer: gguf.GGUFWriter, subject: Subject) -> None:
    model, config = subject.model, subject.model.config
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_name(subject.run_id)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base((getattr(config, "rope_parameters", None) or {}).get("rope_theta", 10000.0))
    writer.add_vocab_size(config.vocab_size)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_vocabulary(writer, subject.tokenizer, embedding_rows(model))


def _name(names: gguf.TensorNameMap, name: str) -> str:
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    assert found is not None, name
    return str(found)


def _permutations(config: Any) -> dict[str, int]:
    return {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}


def _ordered(rows: NDArray[Any], name: str, permuted: dict[str, int]) -> NDArray[Any]:
    """Rows [heads * 2 * n, ...] of a head's two halves as pairs, for the layers of `permuted`."""
    heads = permuted.get(name.split(".")[-2] if "." in name else "")
    if heads is None:
        return rows
    parts = rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(parts.swapaxes(1, 2).reshape(rows.shape))


def _plain(tensor: torch.Tensor) -> NDArray[Any]:
    """The elements as numpy has them; bfloat16, which it has not, as bytes."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint8).numpy()
    plain: NDArray[Any] = tensor.numpy()
    return plain


def _single(tensor: torch.Tensor, ordered: NDArray[Any]) -> NDArray[Any]:
    """A vector in float32: llama.cpp adds and multiplies by vectors of that type only."""
    if tensor.dtype == torch.bfloat16:
        ordered = torch.from_numpy(ordered).view(torch.bfloat16).float().numpy()
    return ordered.astype(np.float32)
