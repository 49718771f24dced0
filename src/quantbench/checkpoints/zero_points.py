"""Which zero points the integers of a GPTQ file belong to: what the base model's weights say, not the file's label.

Under the wrong version every weight is off by exactly one scale, which no quantization is: so all are tried on some
layers, and the one nearest to the base model is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quantbench.checkpoints.gptq import GptqLayout, Zeros
from quantbench.checkpoints.layout import Parts
from quantbench.models.slots import WeightSlot

TRIED_LAYERS = 8


def resolved(layout: GptqLayout, layers: Sequence[tuple[WeightSlot, Callable[[], Parts]]]) -> tuple[GptqLayout, str]:
    """The layout of the version whose weights are nearer to the base model's, and a note that says so.

    layers: a weight of the base model in full precision, and what reads the tensors that the file has of it.
    """
    versions = {zeros: layout.with_zeros(zeros) for zeros in Zeros}
    errors = dict.fromkeys(versions, 0.0)
    whole = 0.0
    for slot, read in layers[:TRIED_LAYERS]:
        parts, weight = read(), slot.get()
        whole += float(weight.square().sum())
        for version, own in versions.items():
            errors[version] += float((own.dequantize(slot.name, slot.shape, parts) - weight).square().sum())
    best = min(errors, key=errors.__getitem__)
    shares = ", ".join(f"{error / (whole or 1):.3g} as {version.value}" for version, error in errors.items())
    against = "" if (best is Zeros.VERSION_2) == (layout.labelled == "gptq_v2") else ", against its label"
    how = f"zero points read as GPTQ {best.value}{against} {layout.labelled}"
    note = f"{how}: squared error against the base model {shares}"
    return versions[best], note
