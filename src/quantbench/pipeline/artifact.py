"""A quantized model as it is stored: quantized weights, changed parameters, runtime operations.

`to_tensors` gives plain values (safetensors and JSON); `from_tensors` rebuilds exactly the same artifact. A model is
only ever used after `install`, so that a reloaded run computes what the fresh one computed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from quantbench.core.build import build
from quantbench.core.errors import StoreError
from quantbench.core.memory import Keep, in_memory
from quantbench.core.mixing import Mixing
from quantbench.core.tensors import fingerprint
from quantbench.formats.base import Format
from quantbench.formats.corrections import Correction, Outliers
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.formats.serialization import join, split
from quantbench.models.handle import ModelHandle
from quantbench.models.slots import find_slot
from quantbench.pipeline.attention import QuantizeKVCache
from quantbench.pipeline.devices import each_tensor
from quantbench.pipeline.expert_ops import COMMON_RANGE, QuantizeExpertInputs
from quantbench.pipeline.input_ops import DivideInput, ShiftInput
from quantbench.pipeline.runtime import RuntimeOp, install

SCHEMA = 2
"""Of stored weights and operations; 1, which had other names of formats and their tensors, had no number."""


@dataclass(frozen=True)
class StoredBits:
    """What the file of a checkpoint stores for a parameter, in bits: none for one that shares another one's.

    quantized: as anything but floating-point numbers of 16 bits or more
    """

    bits: int
    quantized: bool


@dataclass
class Artifact:
    """weights by layer name; changed parameters (norm gains, biases) by name, in the model's dtype; runtime ops.

    stored  of a model that was read from a checkpoint, by parameter: its quantized weights are among `changed`
    """

    weights: dict[str, QuantizedWeight] = field(default_factory=dict)
    changed: dict[str, Tensor] = field(default_factory=dict)
    ops: list[RuntimeOp] = field(default_factory=list)
    stored: dict[str, StoredBits] = field(default_factory=dict)

    def to_tensors(self, keep: Keep = in_memory) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, spec) that `from_tensors` turns back into this artifact. keep: where packed weights are kept."""
        tensors: dict[str, Tensor] = {}
        weights: dict[str, dict[str, Any]] = {}
        for name, weight in self.weights.items():
            stored, weights[name] = _weight_spec(name, weight)
            tensors |= {key: keep(value) for key, value in stored.items()}
        ops = [split(op, f"{op.module}#op{i}", tensors) for i, op in enumerate(self.ops)]
        tensors |= {f"{name}#changed": value for name, value in self.changed.items()}
        spec = {"schema": SCHEMA, "weights": weights, "ops": ops}
        if self.stored:
            spec["stored"] = {name: [one.bits, one.quantized] for name, one in self.stored.items()}
        return {k: v.cpu().contiguous() for k, v in tensors.items()}, spec

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], spec: dict[str, Any], keep: Keep = in_memory) -> Artifact:
        """Rebuild an artifact from what `to_tensors` gave. keep: where its weights are kept.

        Raises StoreError if its schema is another one.
        """
        if (schema := spec.get("schema")) != SCHEMA:
            raise StoreError(
                f"stored weights of schema {schema or 1}: this quantbench reads schema {SCHEMA}; delete the run's "
                "folder to compute it again, or read it with the version that wrote it"
            )
        return cls(
            weights={
                name: each_tensor(stored_weight(name, entry, tensors), keep) for name, entry in spec["weights"].items()
            },
            changed={k.removesuffix("#changed"): v for k, v in tensors.items() if k.endswith("#changed")},
            ops=[build(join(op, tensors), RuntimeOp, "stored operation") for op in spec["ops"]],
            stored={name: StoredBits(*one) for name, one in spec.get("stored", {}).items()},
        )

    @staticmethod
    def spec_text(spec: dict[str, Any]) -> str:
        """The spec as JSON text."""
        return json.dumps(spec, indent=1) + "\n"

    @staticmethod
    def read_spec(path: Path) -> dict[str, Any]:
        """Read what `spec_text` gave. Raises StoreError if it is missing or damaged."""
        try:
            spec = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{path}: missing or damaged ({error}); delete the run's folder to compute it again"
            ) from error
        assert isinstance(spec, dict)
        return spec

    def fingerprint(self) -> str:
        """sha256 of all stored tensors."""
        return fingerprint(self.to_tensors()[0])

    def install(self, handle: ModelHandle) -> None:
        """Restore the model to full precision, then put this artifact into it."""
        model, keep = handle.restore(), handle.weight_keeper()
        modules = dict(model.named_modules())
        for name, weight in self.weights.items():
            find_slot(modules, name).set(weight.dequantize(), keep)
        for name, value in self.changed.items():
            owner, _, attribute = name.rpartition(".")
            if owner in modules:
                old = getattr(modules[owner], attribute)
                setattr(modules[owner], attribute, nn.Parameter(value.to(old), requires_grad=False))
            else:  # one expert of a parameter that holds them all
                find_slot(modules, name).set(value, keep)
        handle.keep_hooks(install(modules, self.ops))
        handle.mixing = max((op.mixing for op in self.ops), default=Mixing.NONE)
        handle.whole_sequences = any(op.whole_sequences for op in self.ops)

    def bits_of(self, name: str, parameter: Tensor) -> float:
        """Bits that a parameter of the model takes in all: quantized weights as stored, the rest in its dtype."""
        if (read := self.stored.get(name)) is not None:
            return read.bits
        own_bits = 8 * parameter.element_size()
        if parameter.dim() == 3:
            parts = [self.weights.get(f"{name}.{index}") for index in range(len(parameter))]
        else:
            parts = [self.weights.get(name.removesuffix(".weight"))]
        size = parameter.numel() / len(parts)
        return sum(size * (own_bits if part is None else part.bits_per_weight()) for part in parts)

    def quantizes(self, name: str) -> bool:
        """Whether a quantized weight lies in the parameter `name`."""
        if name in self.stored:
            return self.stored[name].quantized
        return name.removesuffix(".weight") in self.weights or any(
            key.rpartition(".")[0] == name for key in self.weights
        )

    def stores_elsewhere(self, name: str) -> bool:
        """Whether a checkpoint stores the parameter `name` as that of another one."""
        return name in self.stored and self.stored[name].bits == 0

    @property
    def effective_bits(self) -> float | None:
        """Bits a quantized weight takes on average, weighted by size; None if no weight is quantized.

        What operations store in a weight's stead (shifts, offsets, divisors) counts, too.
        """
        read = {name: one.bits for name, one in self.stored.items() if one.quantized}
        sizes = [w.numel() for w in self.weights.values()]
        total = sum(w.bits_per_weight() * n for w, n in zip(self.weights.values(), sizes, strict=True))
        total += sum(read.values())
        sizes += [self.changed[name].numel() for name in read]
        return (total + self.shift_bits) / sum(sizes) if sizes else None

    @property
    def shift_bits(self) -> int:
        """Bits of all stored shifts, offsets and divisors of layers' inputs."""
        return sum(op.bits for op in self.ops if isinstance(op, ShiftInput | DivideInput))

    @property
    def kv_bits(self) -> float | None:
        """Bits a quantized element of the key-value cache takes on average; None if the cache is in full precision."""
        ops = [op for op in self.ops if isinstance(op, QuantizeKVCache)]
        return sum(op.bits * op.elements for op in ops) / sum(op.elements for op in ops) if ops else None

    @property
    def notes(self) -> list[str]:
        """What a record must say beside the bits."""
        found = sorted({note for op in self.ops if isinstance(op, QuantizeKVCache) for note in op.notes})
        if common := sum(op.common for op in self.ops if isinstance(op, QuantizeExpertInputs)):
            found.append(f"{common} weights of experts saw too few calibration tokens: {COMMON_RANGE}")
        if share := self.outlier_share:
            found.append(f"{share:.2%} of the quantized weights are kept in 16 bits as outliers")
        return found

    @property
    def outlier_share(self) -> float:
        """How many of the elements of quantized weights are kept by themselves."""
        kept = sum(len(c.values) for w in self.weights.values() for c in w.corrections if isinstance(c, Outliers))
        return kept / max(1, sum(w.numel() for w in self.weights.values()))


def _weight_spec(name: str, weight: QuantizedWeight) -> tuple[dict[str, Tensor], dict[str, Any]]:
    stored = weight.format.pack(weight.codes, weight.params)
    tensors = {f"{name}#{key}": value for key, value in stored.items()}
    if weight.group_index is not None:
        tensors[f"{name}#group_index"] = weight.group_index.int()
    return tensors, {
        "format": split(weight.format, f"{name}#format", tensors),
        "shape": list(weight.codes.shape),
        "stored": sorted(stored),
        "corrections": split(weight.corrections, f"{name}#correction", tensors),
    }


def stored_weight(name: str, entry: dict[str, Any], tensors: dict[str, Tensor]) -> QuantizedWeight:
    """The weight of a layer from its entry in the spec of `to_tensors`."""
    grid = build(join(entry["format"], tensors), Format, "stored format")
    rows, columns = entry["shape"]
    codes, params = grid.unpack({key: tensors[f"{name}#{key}"] for key in entry["stored"]}, (rows, columns))
    corrections = [build(spec, Correction, "stored correction") for spec in join(entry["corrections"], tensors)]
    return QuantizedWeight(codes, params, grid, tensors.get(f"{name}#group_index"), tuple(corrections))
