"""What an activation format says of tokens that act on each other is what it does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from helpers_math import random
from quantbench.core.mixing import Mixing
from quantbench.formats.activation import FormatActivation
from quantbench.formats.base import ActivationFormat, Format
from quantbench.formats.double_quantization import DoubleQuantization
from quantbench.formats.int import IntActivation, IntFormat
from quantbench.formats.mx import MxFormat
from quantbench.formats.nvfp4 import Nvfp4Format
from quantbench.formats.outlier_activation import OutlierActivation
from quantbench.formats.rms import RmsFormat
from quantbench.formats.scaled import ScaledFormat

RUNS = DoubleQuantization(scale_bits=3, zero_bits=None, group_size=4)


def integers(granularity: Any, dynamic: bool) -> IntActivation:
    return IntActivation(bits=4, symmetric=False, granularity=granularity, dynamic=dynamic)


def of(format: Format, dynamic: bool = True) -> FormatActivation:
    return FormatActivation(format=format, dynamic=dynamic)


KINDS: dict[str, tuple[ActivationFormat, Mixing]] = {
    "int token": (integers("token", True), Mixing.NONE),
    "int tensor": (integers("tensor", True), Mixing.BATCH),
    "int static": (integers("tensor", False), Mixing.NONE),
    "int groups": (of(IntFormat(bits=4, group_size=8, symmetric=False)), Mixing.NONE),
    "int double": (of(IntFormat(bits=4, group_size=8, symmetric=False, double_quantization=RUNS)), Mixing.BATCH),
    "fp8 token": (of(ScaledFormat(element="e4m3", group_size="channel")), Mixing.NONE),
    "fp8 tensor": (of(ScaledFormat(element="e4m3", group_size="tensor")), Mixing.BATCH),
    "fp8 static": (of(ScaledFormat(element="e4m3", group_size="tensor"), dynamic=False), Mixing.NONE),
    "rms tensor": (of(RmsFormat(bits=4, group_size="tensor")), Mixing.BATCH),
    "mxfp4": (of(MxFormat(element="e2m1", group_size=8)), Mixing.NONE),
    "nvfp4": (of(Nvfp4Format()), Mixing.NONE),
    "nvfp4 static": (of(Nvfp4Format(), dynamic=False), Mixing.NONE),
    "outliers": (OutlierActivation(inner=integers("token", True), threshold=2.5), Mixing.SEQUENCE),
    "outliers, tensor": (OutlierActivation(inner=integers("tensor", True), threshold=2.5), Mixing.BATCH),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_declared_is_what_happens(kind: str) -> None:
    form, mixing = KINDS[kind]
    x = random(3, 6, 32, seed=0) * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    given: dict[str, Any] = {}
    if form.needs:
        scale, zero = form.static_params(x.flatten(0, 1).amin(0), x.flatten(0, 1).amax(0))
        given = {"scale": scale, "zero": zero}
    whole = form.fake_quantize(x, **given)
    sequences = torch.stack([form.fake_quantize(one, **given) for one in x])
    single = torch.stack([form.fake_quantize(token[None], **given)[0] for token in x.flatten(0, 1)]).reshape(x.shape)
    assert form.mixing is mixing
    assert torch.equal(whole, single) == (mixing is Mixing.NONE)
    assert torch.equal(whole, sequences) == (mixing < Mixing.BATCH)


class Silent:
    """Activations as they are, by a class that does not say what it mixes."""

    needs: frozenset[str] = frozenset()

    def static_params(self, minimum: Tensor, maximum: Tensor) -> tuple[Tensor, None]:
        raise NotImplementedError

    def fake_quantize(self, x: Tensor, scale: Tensor | None = None, zero: Tensor | None = None) -> Tensor:
        return x


class Told(Silent):
    mixing = Mixing.NONE


def test_a_format_that_does_not_say_what_it_mixes_is_refused() -> None:
    told: Any = Told()
    assert OutlierActivation(inner=told).mixing is Mixing.SEQUENCE
    silent: Any = Silent()
    with pytest.raises(ValidationError, match="instance of ActivationFormat"):
        OutlierActivation(inner=silent)
