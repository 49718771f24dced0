"""What a record says of a quantized model as a whole."""

from __future__ import annotations

from quantbench.models.handle import ModelHandle
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.state import Quantized


def bits_of_model(handle: ModelHandle, artifact: Artifact) -> float:
    """Bits per parameter over the whole model: quantized weights as stored, everything else in its dtype."""
    bits, count = float(artifact.shift_bits), 0
    seen: set[int] = set()
    for name, parameter in handle.originals.items():
        known = artifact.quantizes(name) or name in artifact.changed
        tied = id(parameter) in seen and not known  # to one that was counted
        if artifact.stores_elsewhere(name) or (tied and not artifact.stored):
            continue
        seen.add(id(parameter))
        bits += artifact.bits_of(name, parameter)
        count += parameter.numel()
    return bits / count


def notes_of(quantized: Quantized) -> list[str]:
    """What a reader of the numbers must know, each once."""
    layers = {note for layer in quantized.layers for note in layer.notes}
    return [*sorted(layers), *quantized.notes, *quantized.artifact.notes]


def sum_fallbacks(quantized: Quantized) -> dict[str, int]:
    """How often something gave way, over all layers."""
    total: dict[str, int] = {}
    for layer in quantized.layers:
        for kind, count in layer.fallbacks.items():
            total[kind] = total.get(kind, 0) + count
    return total
