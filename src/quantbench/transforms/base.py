"""Transforms: rewrites of a group of weights and its input that leave the full-precision function unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from quantbench.core.input_stats import LinearStats
from quantbench.formats.base import ActivationFormat, Format

if TYPE_CHECKING:
    from torch import Tensor

Producer = Literal["norm", "linear", "activation"]
"""What wrote a group's input and can absorb a per-channel scale: a normalization, or a linear layer's rows. Behind an
activation function that no scale passes (GELU), the input is divided as the model runs.
"""


@runtime_checkable
class ScaleTransform(Protocol):
    """Chooses a per-input-channel scale s [in] > 0; the pipeline then applies X' = X / s, W' = W diag(s).

    The division is folded into the producer of X, or behind an activation function performed as the model runs, so the
    function stays the same. Implementations are components.
    """

    needs: ClassVar[frozenset[str]]

    def refusal(self, recipe: Any) -> str | None:
        """Why it cannot be combined with the other parts of a recipe; None if it can."""
        ...

    @property
    def producers(self) -> frozenset[Producer]:
        """Which kinds of producer the scale may be folded into."""
        ...

    def scale(self, weights: Sequence[Tensor], stats: LinearStats, formats: Sequence[Format | None]) -> Tensor:
        """The scale [in] for the weights [out_i, in] (float32) that read the same input, each with its format.

        They are those that are quantized: one that the policy keeps is scaled, too, but has no error to count. A format
        is None where only the input is quantized.
        """
        ...


@dataclass(frozen=True)
class Readers:
    """What reads one input X, as a `ShiftTransform` is given it.

    weights, formats  as for `ScaleTransform.scale`
    stats       statistics of X
    activation  the format of X as the model runs; None: full precision
    biased      a normalization with a bias wrote X
    scalable    a scale can be folded into what wrote X
    """

    weights: Sequence[Tensor]
    formats: Sequence[Format | None]
    stats: LinearStats
    activation: ActivationFormat | None
    biased: bool
    scalable: bool


@runtime_checkable
class ShiftTransform(Protocol):
    """Chooses a per-input-channel shift z [in], and a scale s [in] > 0 for the shifted inputs.

    The pipeline applies X' = (X - z) / s, W' = W diag(s), and adds W z to the output: the shift as the model runs; the
    scale folded into the producer of X, where there is one. Implementations are components.
    """

    needs: ClassVar[frozenset[str]]

    def refusal(self, recipe: Any) -> str | None:
        """Why it cannot be combined with the other parts of a recipe; None if it can."""
        ...

    @property
    def producers(self) -> frozenset[Producer]:
        """Which kinds of producer the scale may be folded into."""
        ...

    def shift_and_scale(self, readers: Readers) -> tuple[Tensor | None, Tensor | None]:
        """(z, s), each None if it is not wanted; s must be None where no scale can be folded."""
        ...


@runtime_checkable
class Clip(Protocol):
    """Shrinks the range that a weight's grid is fitted to. Not function-preserving: it trades range for resolution.

    Roundings that look at each weight by itself are given the clipped weight, those that make up for errors
    (`quantbench.rounding.base.ClippedRounding`) the weight as it is, and the bounds.
    """

    needs: ClassVar[frozenset[str]]

    def refusal(self, recipe: Any) -> str | None:
        """Why it cannot be combined with the other parts of a recipe; None if it can."""
        ...

    def bound(self, weight: Tensor, stats: LinearStats, format: Format) -> Tensor:
        """What weight float32 [out, in] is clamped to, from -bound to bound: [out, in] >= 0."""
        ...
