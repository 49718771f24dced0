"""A quantized model as it is stored: quantized weights, changed parameters, runtime operations.

`tensors` and `spec` are plain (safetensors and JSON); `from_tensors` rebuilds exactly the same artifact. A model is
only ever used after `install`, so that a reloaded run computes what the fresh one computed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quantbench.config.build import build
from quantbench.errors import StoreError
from quantbench.formats.base import ActivationFormat, Format, GridParams, QuantizedWeight
from quantbench.models.handle import ModelHandle
from quantbench.models.structure import WeightSlot
from quantbench.pipeline.runtime import ActivationOp, install
from quantbench.results.tensors import fingerprint, pack_bits, unpack_bits


@dataclass
class Artifact:
    """weights by layer name; changed parameters (norm gains, biases) by name, in the model's dtype; runtime ops."""

    weights: dict[str, QuantizedWeight] = field(default_factory=dict)
    changed: dict[str, Tensor] = field(default_factory=dict)
    ops: list[ActivationOp] = field(default_factory=list)

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, spec) that `from_tensors` turns back into this artifact; codes are packed to their bit width."""
        tensors: dict[str, Tensor] = {}
        weights: dict[str, Any] = {}
        for name, weight in self.weights.items():
            spec = weight.format.to_spec()
            dtype = getattr(torch, spec["scale_dtype"])
            tensors[f"{name}#codes"] = pack_bits(weight.codes.cpu(), spec["bits"])
            tensors[f"{name}#scale"] = weight.params.scale.to(dtype).cpu()
            if weight.params.zero is not None:
                tensors[f"{name}#zero"] = weight.params.zero.to(torch.uint8).cpu()
            if weight.group_index is not None:
                tensors[f"{name}#group_index"] = weight.group_index.to(torch.int32).cpu()
            tensors |= {f"{name}#extra.{key}": value.cpu() for key, value in weight.extras.items()}
            weights[name] = {"format": spec, "shape": list(weight.codes.shape)}
        tensors |= {f"{name}#changed": value.cpu() for name, value in self.changed.items()}
        for op in self.ops:
            tensors |= {f"{op.module}#input.{key}": value.cpu() for key, value in op.params.items()}
        ops = [{"module": op.module, "format": op.format.to_spec()} for op in self.ops]
        return {k: v.contiguous() for k, v in tensors.items()}, {"weights": weights, "ops": ops}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], spec: dict[str, Any]) -> Artifact:
        """Rebuild an artifact from what `to_tensors` gave."""
        parts = _Parts(tensors)
        artifact = cls(changed=parts.ending("#changed"))
        for name, entry in spec["weights"].items():
            bits = entry["format"]["bits"]
            zero = tensors.get(f"{name}#zero")
            artifact.weights[name] = QuantizedWeight(
                codes=unpack_bits(tensors[f"{name}#codes"], bits, tuple(entry["shape"])),
                params=GridParams(tensors[f"{name}#scale"].float(), None if zero is None else zero.float()),
                format=build(entry["format"], Format, "stored format"),
                group_index=tensors.get(f"{name}#group_index"),
                extras=parts.after(f"{name}#extra."),
            )
        for entry in spec["ops"]:
            activation = build(entry["format"], ActivationFormat, "stored format")
            artifact.ops.append(ActivationOp(entry["module"], activation, parts.after(f"{entry['module']}#input.")))
        return artifact

    @staticmethod
    def spec_text(spec: dict[str, Any]) -> str:
        """The spec as JSON text."""
        return json.dumps(spec, indent=1) + "\n"

    @staticmethod
    def read_spec(path: Path) -> dict[str, Any]:
        """Read what `spec_text` gave. Raises StoreError if it is missing or damaged."""
        try:
            spec = json.loads(path.read_text())
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
        model = handle.restore()
        modules = dict(model.named_modules())
        for name, weight in self.weights.items():
            module = modules[name]
            WeightSlot(name, module, transposed=_is_transposed(module)).set(weight.dequantize())
        for name, value in self.changed.items():
            owner, _, attribute = name.rpartition(".")
            old = getattr(modules[owner], attribute)
            setattr(modules[owner], attribute, nn.Parameter(value.to(old), requires_grad=False))
        handle.keep_hooks(install(model, self.ops))

    @property
    def effective_bits(self) -> float | None:
        """Bits a quantized weight takes on average, weighted by size; None if no weight is quantized."""
        sizes = [w.codes.numel() for w in self.weights.values()]
        total = sum(w.bits_per_weight() * n for w, n in zip(self.weights.values(), sizes, strict=True))
        return total / sum(sizes) if sizes else None


def _is_transposed(module: nn.Module) -> bool:
    return type(module).__name__ == "Conv1D"


@dataclass(frozen=True)
class _Parts:
    tensors: dict[str, Tensor]

    def ending(self, suffix: str) -> dict[str, Tensor]:
        return {k.removesuffix(suffix): v for k, v in self.tensors.items() if k.endswith(suffix)}

    def after(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}
