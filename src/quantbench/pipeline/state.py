"""What quantizing a model gives, layer by layer, and what is made of it while it lasts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from torch import Tensor

from quantbench.pipeline.artifact import Artifact


@dataclass(frozen=True)
class LayerResult:
    """One quantized weight.

    loss           tr(dW H dW^T) / out, where a Hessian was collected
    relative_loss  the squared change of its outputs as a share of the outputs (quantbench.core.input_stats)
    bits_per_weight  effective bits
    """

    name: str
    loss: float | None
    bits_per_weight: float
    seconds: float
    relative_loss: float | None = None
    fallbacks: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class Quantized:
    """The artifact, what happened to each layer, in the order they were quantized, and to the model as a whole."""

    artifact: Artifact
    layers: list[LayerResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class WalkState:
    """What the walk has made of the first `blocks` blocks.

    notes   on layers that are still to be quantized, by layer
    scarce  tokens that were routed to experts rounded to nearest for want of them, by parameter and layer
    bits    what a bit allocation chose for each layer
    hidden  inputs [1, L, d] of the next block, one a sequence; None for a data-free recipe
    """

    blocks: int = 0
    artifact: Artifact = field(default_factory=Artifact)
    layers: list[LayerResult] = field(default_factory=list)
    notes: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    scarce: defaultdict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    bits: dict[str, int] = field(default_factory=dict)
    hidden: list[Tensor] | None = None
