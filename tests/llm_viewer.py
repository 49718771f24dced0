"""What LLM-Viewer, the code released with arXiv 2402.16363, counts otherwise; for its check values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from quantbench.roofline.cost import seconds
from quantbench.roofline.hardware import Hardware
from quantbench.roofline.load import Load
from quantbench.roofline.operators import Operator, Phase
from quantbench.roofline.precision import Precision
from quantbench.roofline.reading import shape
from quantbench.roofline.shape import Shape

LLAMA2_7B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 11008,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
MODEL = shape(LLAMA2_7B, "llama2_7b")

MACHINES = {
    "a6000": (768e9, 154.8e12, 309.7e12),
    "a100": (2039e9, 312e12, 624e12),
    "h100": (3072e9, 989.5e12, 1979e12),
}
"""Bytes/s, and operations/s of 16-bit floats and 8-bit integers, as it has them."""


def machine(name: str) -> Hardware:
    """A machine with its numbers; memory plays no part."""
    bandwidth, fp16, int8 = MACHINES[name]
    return Hardware(
        name=name, bandwidth=bandwidth, rates={"fp16": fp16, "int8": int8}, memory=80e9, source="LLM-Viewer"
    )


def precision(weight: float, activation: float, kv: float) -> Precision:
    """Its bits: one width for all activations, a quantized head, 8-bit arithmetic where all fit into 8 bits."""
    arithmetic = "int8" if max(weight, activation, kv) <= 8 else "fp16"
    return Precision(
        weight=weight,
        weights={(None, "lm_head"): weight},
        inputs=activation,
        others=activation,
        kv=kv,
        arithmetic=arithmetic,
        other_arithmetic=arithmetic,
    )


def phase(model: Shape, bits: Precision, n: int, length: int, batch: int = 1) -> Phase:
    """Prefill or decode with eager attention, which is its default."""
    return Phase(model=model, precision=bits, load=Load(batch=batch, attention="eager"), n=n, length=length)


def head_as_released(own: Phase) -> Operator:
    """One operation instead of two for each weight of the head, and activations of one sequence of the batch."""
    head = own.head()
    return replace(head, flops=head.flops / 2, activation_bytes=head.activation_bytes / own.load.batch)


def as_released(own: Phase) -> Iterator[Operator]:
    """Our operators with its defects: the head; gated activations as wide as the hidden states; no norm at the end."""
    for operator in own.operators():
        if operator.name == "lm_head":
            yield head_as_released(own)
        elif operator.name == "activation":
            width = own.model.blocks[0].mlps[0].width
            share = own.model.hidden / width
            yield replace(operator, flops=operator.flops * share, activation_bytes=operator.activation_bytes * share)
        elif (operator.name, operator.block) != ("norms", None):
            yield operator


def milliseconds(own: Phase, hardware: Hardware, *, defects: bool) -> float:
    """The time of all operators."""
    operators = as_released(own) if defects else own.operators()
    return 1e3 * sum(seconds(one, hardware)[0] for one in operators)
