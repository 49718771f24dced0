"""Rounding: how a weight matrix is put on its format's grid."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from quantbench.core.component import Part
from quantbench.core.input_stats import LinearStats
from quantbench.formats.base import Format
from quantbench.formats.quantized_weight import QuantizedWeight

if TYPE_CHECKING:
    from torch import Tensor


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

    def refusal(self, recipe: Any) -> str | None:
        """Why it cannot be combined with the other parts of a recipe; None if it can."""
        ...

    def round(self, weight: Tensor, stats: LinearStats | None, format: Format) -> Rounded:
        """Put weight float32 [out, in] on the grid of `format`; the input is not modified."""
        ...


@runtime_checkable
class ClippedRounding(Rounding, Protocol):
    """A rounding that makes up for its errors, and so has to know a clipped weight as it was before."""

    def round_clipped(self, weight: Tensor, bound: Tensor, stats: LinearStats | None, format: Format) -> Rounded:
        """Put weight float32 [out, in] on grids fitted to it clamped to [-bound, bound], bound [out, in] >= 0.

        What it makes up for are the errors of the weight as it is, clipping included.
        """
        ...


class Compensating(Part):
    """Base of a ClippedRounding that works the same without a clip: bound None."""

    @abstractmethod
    def round_clipped(self, weight: Tensor, bound: Tensor | None, stats: LinearStats | None, format: Format) -> Rounded:
        """As for `ClippedRounding`."""

    def round(self, weight: Tensor, stats: LinearStats | None, format: Format) -> Rounded:
        """Round weight float32 [out, in]. Raises ValueError if a statistic is missing or not finite."""
        return self.round_clipped(weight, None, stats, format)


def clipped(weight: Tensor, bound: Tensor | None) -> Tensor:
    """The weight [out, in] clamped to [-bound, bound], bound [out, in] or None for no clip."""
    return weight if bound is None else weight.clamp(-bound, bound)


def round_with_clip(
    rounding: Rounding, weight: Tensor, bound: Tensor | None, stats: LinearStats | None, format: Format
) -> Rounded:
    """Round weight [out, in] behind a clip to [-bound, bound], or without one.

    A rounding that looks at each weight by itself is given the clipped weight. One that makes up for errors would then
    make up for those of another weight than the model's.
    """
    if bound is None:
        return rounding.round(weight, stats, format)
    if isinstance(rounding, ClippedRounding):
        return rounding.round_clipped(weight, bound, stats, format)
    return rounding.round(clipped(weight, bound), stats, format)


class BlockProblem(Protocol):
    """One decoder block, what it reads, and what it should write: what a rounding that optimizes it is given.

    Groups are the weights that read the same tensor, in order of execution; a weight's name is its full name.
    """

    @property
    def inputs(self) -> Sequence[Tensor]:
        """Hidden states [1, L, d] of each sequence: what the quantized blocks before write."""
        ...

    @property
    def targets(self) -> Sequence[Tensor]:
        """Output [1, L, d] for each sequence: what the full-precision block makes of these inputs."""
        ...

    @property
    def stats(self) -> Sequence[LinearStats | None]:
        """Statistics of the input of each group; None where none were asked for."""
        ...

    @property
    def formats(self) -> Mapping[str, Format]:
        """The format of each weight that is to be quantized; others are not to be touched."""
        ...

    @property
    def scalable_weights(self) -> Mapping[int, Sequence[str]]:
        """The names of the weights of each group whose input may be divided by a scale, by the group's index."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """The weights to be quantized as they are now, float32 [out, in], by name."""
        ...

    def output(self, index: int, weights: Mapping[str, Tensor], scales: Mapping[int, Tensor] = ...) -> Tensor:
        """The block's output [1, L, d] for sequence `index`, with other weights [out, in] in the places of its own.

        scales: the inputs of these groups are divided by a scale [in]. Differentiable in the weights and the scales;
        the block is not changed.
        """
        ...

    def fold(self, scales: Mapping[int, Tensor]) -> None:
        """Divide the inputs of groups by scales [in] for good, and multiply their weights; the statistics follow."""
        ...


@runtime_checkable
class BlockRounding(Protocol):
    """A rounding method that minimises the output error of a whole block. Implementations are components."""

    needs: ClassVar[frozenset[str]]

    def refusal(self, recipe: Any) -> str | None:
        """Why it cannot be combined with the other parts of a recipe; None if it can."""
        ...

    def round_block(self, block: BlockProblem) -> dict[str, Rounded]:
        """Put every weight of `block.formats` on its format's grid, by its full name. Gradients are enabled."""
        ...
