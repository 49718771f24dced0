"""Activations in any weight format: each token is a row, groups run along the features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from quantbench.core.component import component
from quantbench.core.errors import ConfigError
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import Format, GridParams

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


@runtime_checkable
class SharedScale(Protocol):
    """A format whose groups share one more scale: `Nvfp4Format`."""

    def shared_scale(self, peak: Tensor) -> Tensor:
        """The shared scale for a largest magnitude `peak`."""
        ...

    def group_params(self, weight: Tensor, shared: Tensor) -> GridParams:
        """The groups' parameters where the shared scale [1, 1] or [out, 1] is given."""
        ...


@component
class FormatActivation:
    """Inputs x [..., features] rounded to the grids of `format`, taken as a weight [tokens, features].

    format   group_size: "channel" is one scale per token, a number one for so many features of a token
    dynamic  scales are taken from the values as the model runs. A scale that groups share is one per token, so that no
             token influences another. false: one scale for all tokens, from the calibrated range: needs
             format.group_size=tensor, or a format with a shared scale, which alone is calibrated then.
    """

    format: Format
    dynamic: bool

    def __post_init__(self) -> None:
        if getattr(self.format, "block_rows", 1) != 1:
            raise ConfigError("format.block_rows must be 1: tokens cannot share a scale, they come one by one")
        one_scale = getattr(self.format, "group_size", None) == "tensor"
        if not self.dynamic and not one_scale and not isinstance(self.format, SharedScale):
            raise ConfigError(
                "dynamic=false needs format.group_size=tensor: the tokens to come are not known in advance; or "
                "dynamic=true"
            )

    @property
    def needs(self) -> frozenset[str]:
        """The calibration statistics `static_params` reads."""
        return frozenset() if self.dynamic else frozenset({"minimum", "maximum"})

    def static_params(self, minimum: Tensor, maximum: Tensor) -> tuple[Tensor, Tensor | None]:
        """(scale [], zero [] or None) for inputs whose channels range over minimum, maximum [in]."""
        bounds = torch.stack([minimum, maximum]).float()
        if isinstance(self.format, SharedScale):
            return self.format.shared_scale(bounds.abs().amax()), None
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
        params = self._params(rows, scale, zero)._each(lambda t: t.unsqueeze(-1))
        values = self.format.decode(self.format.encode(groups, params), params).reshape(len(rows), -1)[:, :width]
        return values.masked_fill(broken, torch.nan).reshape(x.shape).to(x.dtype)

    def _check(self, scale: Tensor | None, zero: Tensor | None) -> None:
        if self.dynamic:
            if scale is not None or zero is not None:
                raise ValueError("a dynamic activation format takes its scales from the values: pass none")
        elif scale is None or (zero is None) != getattr(self.format, "symmetric", True):
            raise ValueError("a static activation format needs the parameters that static_params returned")

    def _params(self, rows: Tensor, scale: Tensor | None, zero: Tensor | None) -> GridParams:
        if isinstance(self.format, SharedScale):
            largest = rows.abs().amax(dim=1, keepdim=True)
            return self.format.group_params(
                rows, self.format.shared_scale(largest) if scale is None else scale.reshape(1, 1)
            )
        if scale is None:
            return self.format.params(rows)
        return GridParams(scale.reshape(1, 1), None if zero is None else zero.reshape(1, 1))
