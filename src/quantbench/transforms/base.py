"""Transforms: rewrites of a group of weights and its input that leave the full-precision function unchanged."""

from __future__ import annotations

from collections.abc import Sequence
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

    def scale(self, weights: Sequence[Tensor], stats: LinearStats, format: Format | None) -> Tensor:
        """The scale [in] for the weights [out_i, in] (float32) that read the same input."""
        ...


@runtime_checkable
class ShiftTransform(Protocol):
    """Chooses a per-input-channel shift z [in], and then a scale s [in] > 0 for the shifted inputs.

    The pipeline applies X' = (X - z) / s, W' = W diag(s), and adds W z to the output: the shift as the model runs, for
    every group; the scale folded into the producer of X, where there is one. Implementations are components.
    """

    needs: ClassVar[frozenset[str]]

    def refusal(self, recipe: Any) -> str | None:
        """Why it cannot be combined with the other parts of a recipe; None if it can."""
        ...

    @property
    def producers(self) -> frozenset[Producer]:
        """Which kinds of producer the scale may be folded into."""
        ...

    def shift(self, stats: LinearStats) -> Tensor:
        """The shift [in] for the inputs that `stats` describe."""
        ...

    def scale_shifted(
        self, weights: Sequence[Tensor], stats: LinearStats, format: Format | None, activation: ActivationFormat | None
    ) -> Tensor:
        """The scale [in] for weights [out_i, in] (float32) that read the same input; `stats` are of X - z."""
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
