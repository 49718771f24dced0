"""Activations in any weight format: each token is a row, groups run along the features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from quantbench.core.component import component
from quantbench.core.errors import ConfigError
from quantbench.core.lazy import lazy_module
from quantbench.core.mixing import Mixing
from quantbench.formats.base import Format
from quantbench.formats.grid import ClipRatio
from quantbench.formats.grid_params import GridParams

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


@runtime_checkable
class GlobalScale(Protocol):
    """A format with one more scale, the same for all groups: `Nvfp4Format`."""

    @property
    def fused(self) -> bool:
        """Whether several weights have it in common."""
        ...

    @property
    def largest(self) -> float | None:
        """The magnitude it is made for, if that is given."""
        ...

    def global_scale(self, absmax: Tensor) -> Tensor:
        """The global scale for a largest magnitude."""
        ...

    def group_params(self, weight: Tensor, global_scale: Tensor) -> GridParams:
        """The groups' parameters where the global scale [1, 1] or [out, 1] is given."""
        ...


@component
class FormatActivation:
    """Inputs x [..., features] rounded to the grids of `format`, taken as a weight [tokens, features].

    format   group_size: "channel" is one scale per token, a number one for so many features of a token
    dynamic  scales are taken from the values as the model runs. A global scale is one per token, so that no
             token influences another. false: one scale for all tokens, from the calibrated range: needs
             format.group_size=tensor, or a format with a global scale, which alone is calibrated then.
    clip_ratio  scales are fitted to so much of the values' range; what lies beyond saturates
    """

    format: Format
    dynamic: bool
    clip_ratio: ClipRatio = 1.0

    def __post_init__(self) -> None:
        one_scale = self.format.rows_per_scale is None
        if not one_scale and self.format.rows_per_scale != 1:
            raise ConfigError("format.block_rows must be 1: tokens cannot share a scale, they come one by one")
        if isinstance(self.format, GlobalScale) and (self.format.fused or self.format.largest is not None):
            raise ConfigError(
                "format.fused and format.largest are for weights: leave them false and null; the global scale of "
                "inputs is taken from each token, or calibrated (dynamic=false)"
            )
        if not self.dynamic and not one_scale and not isinstance(self.format, GlobalScale):
            raise ConfigError(
                "dynamic=false needs format.group_size=tensor: the tokens to come are not known in advance; or "
                "dynamic=true"
            )

    @property
    def mixing(self) -> Mixing:
        """BATCH where tokens share a scale taken from their values, or runs of them a grid for their scales."""
        if not self.dynamic:
            return Mixing.NONE
        one_scale = self.format.rows_per_scale is None and not isinstance(self.format, GlobalScale)
        runs = self.format.without_double_quantization() != self.format
        return Mixing.BATCH if one_scale or runs else Mixing.NONE

    @property
    def needs(self) -> frozenset[str]:
        """The calibration statistics `static_params` reads."""
        return frozenset() if self.dynamic else frozenset({"minimum", "maximum"})

    def static_params(self, minimum: Tensor, maximum: Tensor) -> tuple[Tensor, Tensor | None]:
        """(scale [], zero [] or None) for inputs whose channels range over minimum, maximum [in]."""
        bounds = torch.stack([minimum, maximum]).float() * self.clip_ratio
        if isinstance(self.format, GlobalScale):
            return self.format.global_scale(bounds.abs().amax()), None
        params = self.format.params(bounds)
        return params.scale.reshape(()), None if params.zero is None else params.zero.reshape(())

    def fake_quantize(self, x: Tensor, scale: Tensor | None = None, zero: Tensor | None = None) -> Tensor:
        """Round x to its grid, in x's dtype, computed in float32; a token with NaN or infinity becomes NaN.

        scale and zero are those of `static_params`; ValueError if they are given to a dynamic format or missing.
        """
        self._check(scale, zero)
        if x.numel() == 0:
            return x
        width = x.shape[-1]
        rows = x.float().reshape(-1, width)
        broken = ~rows.isfinite().all(dim=1, keepdim=True)
        rows = rows.masked_fill(broken, 0)
        columns = min(self.format.columns_per_group(width), width)
        groups = torch.nn.functional.pad(rows, (0, -width % columns)).reshape(len(rows), -1, columns)
        params = self._params(rows, scale, zero).each(lambda t: t.unsqueeze(-1))
        values = self.format.decode(self.format.encode(groups, params), params).reshape(len(rows), -1)[:, :width]
        return values.masked_fill(broken, torch.nan).reshape(x.shape).to(x.dtype)

    def _check(self, scale: Tensor | None, zero: Tensor | None) -> None:
        if self.dynamic:
            if scale is not None or zero is not None:
                raise ValueError("a dynamic activation format takes its scales from the values: pass none")
        elif scale is None or (zero is None) == self.format.has_zero_points:
            raise ValueError("a static activation format needs the parameters that static_params returned")

    def _params(self, rows: Tensor, scale: Tensor | None, zero: Tensor | None) -> GridParams:
        rows = rows * self.clip_ratio
        if isinstance(self.format, GlobalScale):
            largest = rows.abs().amax(dim=1, keepdim=True)
            return self.format.group_params(
                rows, self.format.global_scale(largest) if scale is None else scale.reshape(1, 1)
            )
        if scale is None:
            return self.format.params(rows)
        return GridParams(scale.reshape(1, 1), None if zero is None else zero.reshape(1, 1))
