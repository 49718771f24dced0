"""Whether a checkpoint was made from this base model: what must be equal, and what quantizers may change.

* What is stored in floating point must be the base model's, up to the rounding of its dtype.
* A quantized weight W' must be the base model's W up to scales of rows and columns: W' ~ diag(a) W diag(b), by least
  squares; its share of what that leaves over is less than UNLIKE. (Another model's weight leaves nearly all of it.)
* Methods such as AWQ and SmoothQuant divide the gain of a normalization by scales, and multiply the columns of the
  weights that read it. So the gain of a normalization may differ from the base model's, g' = g / s, where a weight of
  the same block has column scales b near s; columns that s made so small that they were rounded to 0 have none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from quantbench.checkpoints.tensors import ReadTensor
from quantbench.core.errors import ModelError

UNLIKE = 0.75
"""Share of a weight's squares above which it is another model's: 2-bit rounding to nearest leaves about a third."""

NEAR = 2.0**-7
"""Relative difference between neighbours of bfloat16: rounding twice may lead from one to the other."""

_NOTHING = -13.0
"""The scale of a column has a logarithm below it where the column is stored as 0."""

_REST = "another model, another fine-tune of it, or rotated, which is not read"


@dataclass
class SameBase:
    """Compares tensors one by one; `finish` compares what depends on several.

    notes  what was changed in floating point
    """

    prefix: str
    notes: list[str] = field(default_factory=list)
    _columns: dict[str, list[tuple[int, Tensor]]] = field(default_factory=dict)
    _gains: list[tuple[str, Tensor, Tensor]] = field(default_factory=list)
    _offsets: list[str] = field(default_factory=list)

    def add(self, read: ReadTensor, base: Tensor) -> None:
        """Compare a tensor with the base model's parameter. Raises ModelError for one that is another model's."""
        if torch.equal(read.values, base) or (not read.quantized and same_values(read.values, base)):
            return
        if read.layer is not None:
            weight = read.values.float()
            self._linear(read, weight.t() if read.layer.transposed else weight, read.layer.get())
        elif read.values.dim() == 1 and read.name.endswith(".weight"):
            self._gains.append((read.name, read.values.float(), base.float()))
        elif read.values.dim() == 1:
            self._offsets.append(read.name)
        elif not read.quantized or _left_over(read.values.float(), base.float())[0] > UNLIKE:
            share, _ = _left_over(read.values.float(), base.float())
            raise ModelError(f"{read.name} is not the base model's (squared difference {share:.3g} of it): {_REST}")

    def _linear(self, read: ReadTensor, weight: Tensor, base: Tensor) -> None:
        share, columns = _left_over(weight, base)
        if share > UNLIKE or (not read.quantized and share > NEAR**2):
            raise ModelError(
                f"{read.name} is not the base model's: {share:.3g} of its squares are left over by scales of rows and "
                f"columns. The checkpoint is of {_REST}"
            )
        self._columns.setdefault(self._block(read.name), []).append((weight.shape[1], columns))

    def finish(self) -> None:
        """Raise ModelError for a normalization that differs, and that no weight of its block makes up for."""
        for name, found, base in self._gains:
            if not self._made_up_for(name, found, base):
                differ = (found - base).abs() / base.abs().clamp(min=1e-30)
                raise ModelError(
                    f"{name} differs from the base model's in {int((differ > 0).sum())} of {len(base)} values (by up "
                    f"to {float(differ.max()):.2g} of them), and no weight of its block makes up for it: the "
                    f"checkpoint is of {_REST}"
                )
        if self._gains:
            self.notes.append(f"{len(self._gains)} normalizations hold scales that weights of their blocks make up for")
        if self._offsets:
            self.notes.append(f"{len(self._offsets)} biases differ from the base model's, first {self._offsets[0]}")

    def _made_up_for(self, name: str, found: Tensor, base: Tensor) -> bool:
        """Whether a weight's column scales are, in logarithms, nearer to the gain's change than to 1 in most columns.

        A column counts by the size of its change, since rounding alone changes many a little; one that is stored as 0
        says nothing. Some normalizations have the gain 1 + weight: both are tried.
        """
        for add in (0.0, 1.0):
            change = (base + add) / (found + add)
            if not bool((change > 0).all() & change.isfinite().all()):
                continue
            wanted = change.log()
            for width, columns in self._columns.get(self._block(name), []):
                if width == len(wanted):
                    size = torch.where(columns > _NOTHING, wanted.abs(), torch.zeros(()))
                    near = (columns - wanted).abs() < size / 2
                    if float(size[near].sum()) > float(size.sum()) / 2:
                        return True
        return False

    def _block(self, name: str) -> str:
        """The decoder block of a parameter; "" for what lies outside of them."""
        inside = name.removeprefix(f"{self.prefix}.")
        return inside.partition(".")[0] if inside != name else ""


def same_values(found: Tensor, base: Tensor) -> bool:
    """Whether two tensors are one, stored in different dtypes: equal in one of them, or nearly always neighbours."""
    if torch.equal(base.to(found.dtype), found) or torch.equal(found.to(base.dtype), base):
        return True
    one, other = found.float(), base.float()
    differ = one.bfloat16() != other.bfloat16()
    near = (one - other).abs() <= NEAR * other.abs()
    return bool(near.all()) and float(differ.float().mean()) < 0.01


def _left_over(weight: Tensor, base: Tensor) -> tuple[float, Tensor]:
    """(||W' - diag(a) W diag(b)||^2 / ||W'||^2, log b [in]) for the a and b that two steps of least squares give.

    Columns are fitted first, so that scales of columns alone are found as they are.
    """
    rows = torch.ones(len(base))
    columns = torch.ones(base.shape[1])
    for _ in range(2):
        scaled = rows[:, None] * base
        columns = _ratio((weight * scaled).sum(0), scaled.square().sum(0))
        scaled = base * columns
        rows = _ratio((weight * scaled).sum(1), scaled.square().sum(1))
    whole = float(weight.square().sum())
    left = float((weight - rows[:, None] * base * columns).square().sum())
    first = _ratio((weight * base).sum(0), base.square().sum(0))
    return left / whole if whole else float(bool(base.any())), first.clamp(min=1e-6).log()


def _ratio(over: Tensor, under: Tensor) -> Tensor:
    """over / under, 1 where there is nothing."""
    return torch.where(under > 0, over / under.clamp(min=1e-30), torch.ones_like(over))
