"""Statistics of the calibration inputs of a group of weights that read the same tensor."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from quantbench.core.finite import all_finite
from quantbench.core.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

T = TypeVar("T")

_COLUMNS = 192  # that a product with the Hessian takes at once: fewer multiply less, and slower
_ROWS = 512


@dataclass(frozen=True)
class LinearStats:
    """What calibration inputs X [n_tokens, in] looked like. Fields nobody asked for are None.

    hessian   fp32 [in, in]  2/n X^T X, the Hessian of the layer's squared output error
    absmax    fp32 [in]      max over tokens of |X_j|
    mean_abs  fp32 [in]      mean over tokens of |X_j|
    minimum, maximum  fp32 [in]  range over tokens of X_j
    rows      fp32 [k, in]   a sample of the rows of X (`quantbench.pipeline.sample`)
    """

    n_tokens: int
    hessian: Tensor | None = None
    absmax: Tensor | None = None
    mean_abs: Tensor | None = None
    minimum: Tensor | None = None
    maximum: Tensor | None = None
    rows: Tensor | None = None
    _derived: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def derived(self, key: Any, make: Callable[[], T]) -> T:
        """What `make` makes of the statistics, made once for all weights that read these inputs, until `forget`."""
        if key not in self._derived:
            self._derived[key] = make()
        found: T = self._derived[key]
        return found

    def forget(self) -> None:
        """Free what was derived."""
        self._derived.clear()

    def rescaled(self, scale: Tensor) -> LinearStats:
        """Statistics of X' = X / scale, for scale [in] > 0: a transform of the inputs changes all of them.

        The Hessian becomes D^-1 H D^-1 with D = diag(scale).
        """

        def divide(values: Tensor | None) -> Tensor | None:
            return None if values is None else values / scale

        hessian = None if self.hessian is None else self.hessian / scale.outer(scale)
        return dataclasses.replace(
            self,
            hessian=hessian,
            absmax=divide(self.absmax),
            mean_abs=divide(self.mean_abs),
            minimum=divide(self.minimum),
            maximum=divide(self.maximum),
            rows=divide(self.rows),
        )

    def shifted(self, shift: Tensor) -> LinearStats:
        """Statistics of X' = X - shift, for shift [in]. The Hessian and mean_abs do not follow from these: left out."""

        def moved(values: Tensor | None) -> Tensor | None:
            return None if values is None else values - shift

        low, high = moved(self.minimum), moved(self.maximum)
        absmax = None if low is None or high is None else torch.maximum(low.abs(), high.abs())
        return LinearStats(self.n_tokens, absmax=absmax, minimum=low, maximum=high, rows=moved(self.rows))

    def select(self, columns: Tensor) -> LinearStats:
        """Statistics of some of the inputs, int64 [k]."""

        def chosen(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[columns]

        return dataclasses.replace(
            self,
            hessian=None if self.hessian is None else self.hessian[columns][:, columns],
            absmax=chosen(self.absmax),
            mean_abs=chosen(self.mean_abs),
            minimum=chosen(self.minimum),
            maximum=chosen(self.maximum),
            rows=None if self.rows is None else self.rows[:, columns],
        )

    def require(self, name: str) -> Tensor:
        """The statistic `name`; raises ValueError if it was not collected (a part that forgot to declare a need)."""
        value = getattr(self, name)
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"the statistic {name!r} was not collected: add it to the part's `needs`")
        return value


def together(parts: Sequence[LinearStats]) -> LinearStats:
    """The statistics of the inputs of several parts, of which none is empty, as if they were one.

    Where every token is an input of equally many parts, these are those of the tokens.
    """
    n = sum(part.n_tokens for part in parts)

    def combined(name: str, combine: Callable[[Tensor], Tensor]) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if any(value is None for value in values) else combine(torch.stack(values))

    def mean(values: Tensor) -> Tensor:
        shares = torch.tensor([part.n_tokens / n for part in parts], device=values.device)
        average: Tensor = torch.tensordot(shares, values, dims=1)
        return average

    rows = [part.rows for part in parts if part.rows is not None]
    return LinearStats(
        n_tokens=n,
        hessian=combined("hessian", mean),
        absmax=combined("absmax", lambda values: values.amax(dim=0)),
        mean_abs=combined("mean_abs", mean),
        minimum=combined("minimum", lambda values: values.amin(dim=0)),
        maximum=combined("maximum", lambda values: values.amax(dim=0)),
        rows=torch.cat(rows) if rows else None,
    )


def finite_hessian(stats: LinearStats | None) -> Tensor:
    """H float32 [in, in]. Raises ValueError if it was not collected, or if it holds NaN or infinity."""
    if stats is None:
        raise ValueError("calibration statistics are needed, but none were collected")
    hessian = stats.require("hessian")
    if not all_finite(hessian):
        raise ValueError(
            "the Hessian holds NaN or infinity: the layer's inputs overflow; run the model in a wider dtype"
            " (model.dtype=float32 or bfloat16)"
        )
    return hessian


def output_error(delta: Tensor, hessian: Tensor) -> float:
    """tr(dW H dW^T) for dW [out, in]: the squared output error over the calibration inputs, times 2/n."""
    return float(((delta @ hessian) * delta).sum())


def quick_output_error(delta: Tensor, hessian: Tensor, most: float) -> float:
    """As `output_error`, up to rounding, for symmetric H, in half the multiplications; infinite if above `most`.

    Of H only its diagonal blocks and those above them are multiplied. Every row of dW adds to the sum, which is given
    up once it is too large.
    """
    total = 0.0
    for rows in torch.split(delta, _ROWS):
        for start in range(0, delta.shape[1], _COLUMNS):
            columns = slice(start, start + _COLUMNS)
            product = rows[:, columns] @ hessian[columns, columns]
            if start:
                product.addmm_(rows[:, :start], hessian[:start, columns], alpha=2.0)
            total += float(product.mul_(rows[:, columns]).sum())
        if total > most:
            return math.inf
    return total


def output_errors(delta: Tensor, weight: Tensor, stats: LinearStats | None) -> tuple[float | None, float | None]:
    """Loss tr(dW H dW^T) / out of a change dW [out, in] of W [out, in], and its share of tr(W H W^T) / out.

    The share is the squared change of the layer's output relative to the output, which a rewrite of weight and inputs
    leaves as it is, so it compares layers and recipes. Without a Hessian it is taken over the sampled rows, and the
    loss is None. None where there is neither, or where the output is 0.
    """
    if stats is None or (stats.hessian is None and stats.rows is None):
        return None, None
    if stats.hessian is not None:
        error, whole = (quick_output_error(matrix, stats.hessian, math.inf) for matrix in (delta, weight))
        return error / len(weight), error / whole if whole > 0 else None
    rows = stats.require("rows")
    error, whole = (float((rows @ matrix.t()).square().sum()) for matrix in (delta, weight))
    return None, error / whole if whole > 0 else None
