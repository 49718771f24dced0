"""AWQ checkpoints in the layout of its GEMM kernels.

Layout: that of the authors' llm-awq and of AutoAWQ, version "gemm", which vLLM and transformers read. For a layer
[out, in] of four bits and g groups

    qweight  int32 [in, out / 8]   eight levels a word, those of outputs 0, 2, 4, 6, 1, 3, 5, 7 from the lowest bits up
    qzeros   int32 [g, out / 8]    zero points in the same order
    scales   float16 [g, out]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantbench.export.codes import IntCodes, NotHeldError, common_group, int_codes, regrouped
from quantbench.export.layouts.gptq import FLOAT16, check_words
from quantbench.export.packing import rows_of_words
from quantbench.export.saving import save_quantized
from quantbench.export.subject import Reasons, Subject, Written, linear_layers, refuse_operations, remaining
from quantbench.formats.quantized_weight import QuantizedWeight

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


class Awq:
    """Integers of four bits with float16 scales."""

    name: ClassVar[str] = "awq"

    def check(self, subject: Subject) -> None:
        """Four bits, in groups of neighbouring columns."""
        reasons = Reasons(self.name)
        refuse_operations(subject, reasons, inputs=False)
        for name, weight in linear_layers(subject, reasons):
            reasons.attempt(name, lambda w=weight: _codes(w))  # type: ignore[misc]
        reasons.refuse(subject.run_id)

    def write(self, subject: Subject, folder: Path) -> Written:
        """Pack each layer; others keep their tensors, and are named as not converted."""
        weights = subject.artifact.weights
        tensors = remaining(subject.model, weights)
        size = common_group([int_codes(weight) for weight in weights.values()])
        for name, weight in weights.items():
            tensors |= {f"{name}.{key}": value for key, value in pack_awq(_codes(weight), size).items()}
        linear = [name for name, module in subject.model.named_modules() if isinstance(module, nn.Linear)]
        config: dict[str, Any] = {
            "quant_method": "awq",
            "bits": 4,
            "group_size": -1 if size is None else size,
            "zero_point": True,
            "version": "gemm",
            "modules_to_not_convert": [name for name in linear if name not in weights],
        }
        save_quantized(subject.model, subject.tokenizer, tensors, config, folder)
        return Written("rounded", (*regrouped(weights, size), FLOAT16))


def pack_awq(codes: IntCodes, size: int | None) -> dict[str, Tensor]:
    """The tensors of a layer by their names in it; size: columns of a group, None for one scale a row."""
    codes = codes if size is None else codes.in_groups(size)
    return {
        "qweight": rows_of_words(_interleaved(codes.levels.t()), 4),
        "qzeros": rows_of_words(_interleaved(codes.zeros.t()), 4),
        "scales": codes.scales.t().to(torch.float16).contiguous(),
    }


def _interleaved(codes: Tensor) -> Tensor:
    """Codes [n, out] with each eight of a row in ORDER."""
    return codes.reshape(len(codes), -1, 8)[:, :, list(ORDER)].reshape(codes.shape)


def _codes(weight: QuantizedWeight) -> IntCodes:
    codes = int_codes(weight)
    if codes.bits != 4:
        raise NotHeldError(f"{codes.bits} bits, and the format has 4. Exact: --to compressed-tensors, or --to gptq")
    if codes.column_group is not None:
        raise NotHeldError("its groups follow the order of activations (act-order). Exact: --to gptq, or --to dense")
    check_words(codes, 8, 1)
    return codes
