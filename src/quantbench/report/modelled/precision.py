"""The bits of a stored run, matrix by matrix, and the arithmetic that its formats allow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from quantbench.core.build import build
from quantbench.core.errors import ConfigError, QuantbenchError
from quantbench.formats.base import Format
from quantbench.roofline.naming import place
from quantbench.roofline.precision import SERVED, Key, Precision
from quantbench.roofline.shape import Linear, Shape
from quantbench.store.records import RunRecord

FLOATS = {"e2m3": "fp8", "e3m2": "fp8", "e4m3": "fp8", "e5m2": "fp8", "e2m1": "fp4", "int8": "int8"}
"""Arithmetic of the elements of formats with scales; of others (NF4's table) there is none: they are decoded."""

MOST_ADDED = 0.5
"""Bits a weight that shifts and divisors of inputs may add; more, and record and configuration are of two models."""

Plain = Mapping[str, Any]


def precision_of(record: RunRecord, model: Shape) -> Precision:
    """The bits of a run on a model of this shape, as its record has them.

    Each quantized layer has its own bits; what operations store in the weights' stead (shifts, divisors) is spread over
    them, so that the mean is the record's effective bits. What is not quantized counts 16 bits, whatever dtype it was
    evaluated in. Raises ConfigError for a layer whose name is not understood, and for a record of another model.
    """
    recipe: Plain = record.config.get("quantizer") or {}
    cache: Plain = recipe.get("kv_cache") or {}
    weights = _weights(record, model)
    activation = recipe.get("activation") if weights else None
    kinds = _kind(recipe.get("weight")), _kind(activation)
    return Precision(
        weight=SERVED,
        weights=weights,
        inputs=SERVED if activation is None else _input_bits(activation, model.hidden),
        kv=SERVED if record.kv_bits is None else record.kv_bits,
        kv_residual=int(cache.get("residual", 0)),
        kv_sinks=int(cache.get("sinks", 0)),
        arithmetic="fp16" if activation is None else common_arithmetic(*kinds, recipe.get("weight") or {}),
    )


def common_arithmetic(weight: str | None, activation: str | None, weight_format: Plain) -> str:
    """The arithmetic in which weights meet inputs: that of both, or that of the wider one if the other fits into it.

    4-bit weights fit into 8 bits; whatever else differs, or has no arithmetic of its own, is decoded to 16-bit floats.
    """
    if weight is None or activation is None:
        return "fp16"
    if weight == activation:
        return weight
    narrow = weight == "fp4" or (weight == "int8" and int(weight_format.get("bits", 8)) <= 4)
    return activation if activation == "fp8" and narrow else "fp16"


def _kind(spec: Plain | None) -> str | None:
    """The arithmetic of a format of weights or inputs, from its settings; None if it has none of its own."""
    if spec is None:
        return None
    name = str(spec.get("_target_")).rpartition(".")[2]
    if name in {"IntFormat", "IntActivation"}:
        return "int8" if int(spec.get("bits", 8)) <= 8 else None
    if name == "Nvfp4Format":
        return "fp4"
    if name in {"ScaledFormat", "MxFormat"}:
        return FLOATS.get(str(spec.get("element")))
    if name in {"FormatActivation", "OutlierActivation"}:
        return _kind(spec.get("format") or spec.get("inner"))
    return None


def _input_bits(spec: Plain, width: int) -> float:
    """Bits of an element of a token of this width; features that are kept in 16 bits as outliers are not counted."""
    if isinstance(spec.get("inner"), Mapping):
        return _input_bits(spec["inner"], width)
    if isinstance(spec.get("format"), Mapping):
        try:
            return build(spec["format"], Format, "activation.format").bits_per_weight((1, width))
        except QuantbenchError as error:
            raise ConfigError(f"the run's activation format cannot be made again: {error}") from error
    if isinstance(bits := spec.get("bits"), int):
        return float(bits)
    raise ConfigError(f"activation {spec.get('_target_')}: in how many bits it stores an input is not known")


def _weights(record: RunRecord, model: Shape) -> dict[Key, float]:
    """Bits of each matrix of which something is quantized; of experts, the mean over all."""
    sizes = {(block, linear.role): linear for block, linear in model.linears()}
    embeddings = Linear(role="embeddings", inputs=model.embedding_width, outputs=model.vocabulary)
    sizes[None, "embeddings"] = embeddings
    found: dict[Key, list[float]] = defaultdict(list)
    for layer in record.layers:
        block, roles = place(layer.name)
        for role in roles:
            if (block, role) not in sizes:
                raise ConfigError(_other_model(record, model, f"it has no {role} in block {block} ({layer.name})"))
            found[block, role].append(layer.bits_per_weight)
    if not found:
        return {}
    for (block, role), bits in found.items():
        if len(bits) > sizes[block, role].copies:
            raise ConfigError(
                _other_model(record, model, f"it has {sizes[block, role].copies} {role} in block {block}")
            )
    shares = {key: sizes[key].size * len(bits) / sizes[key].copies for key, bits in found.items()}
    total = sum(shares[key] * sum(bits) / len(bits) for key, bits in found.items())
    mean = total / sum(shares.values())
    added = 0.0 if record.effective_bits is None else record.effective_bits - mean
    if not -0.01 <= added <= MOST_ADDED:
        told = f"its layers have {mean:.4g} bits a weight by that shape, the record {record.effective_bits:.4g}"
        raise ConfigError(_other_model(record, model, told))
    return {
        key: (sum(bits) + len(bits) * added + (sizes[key].copies - len(bits)) * SERVED) / sizes[key].copies
        for key, bits in found.items()
    }


def _other_model(record: RunRecord, model: Shape, why: str) -> str:
    return f"run {record.run_id} is not of a model of the shape of {model.name}: {why}"
