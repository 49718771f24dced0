"""Rounding: how a weight matrix is put on its format's grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from quantbench.core.input_stats import LinearStats
from quantbench.formats.base import Format, QuantizedWeight

if TYPE_CHECKING:
    from quantbench.pipeline.context import BlockContext


@dataclass(frozen=True)
class Rounded:
    """A rounded weight, and how often something had to give way: e.g. {"damping_raised": 1, "nearest": 1}."""

    weight: QuantizedWeight
    fallbacks: dict[str, int] = field(default_factory=dict)


def unfit_format(recipe: Any, reason: Callable[[Format], str | None]) -> str | None:
    """The first reason against a weight format of a recipe, those of its rules included, with the key it stands at."""
    for key, grid in recipe.weight_formats.items():
        if (found := reason(grid)) is not None:
            return f"{key}: {found}"
    return None


@runtime_checkable
class Rounding(Protocol):
    """A rounding method: a pure function of (weight, statistics, format). Implementations are components."""

    needs: ClassVar[frozenset[str]]

    def round(self, weight: Tensor, stats: LinearStats | None, format: Format) -> Rounded:
        """Put weight float32 [out, in] on the grid of `format`; the input is not modified."""
        ...


@runtime_checkable
class BlockRounding(Protocol):
    """A rounding method that minimises the output error of a whole block. Implementations are components."""

    needs: ClassVar[frozenset[str]]

    def round_block(self, context: BlockContext) -> dict[str, Rounded]:
        """Put every weight of `context.formats` on its format's grid, by its full name. Gradients are enabled."""
        ...
