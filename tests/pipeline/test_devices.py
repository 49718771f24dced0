"""Moving values to a device, shown on the "meta" device, which every machine has."""

from __future__ import annotations

import torch

from quantbench.formats.corrections import LowRank
from quantbench.formats.int import IntFormat
from quantbench.formats.quantize import quantize
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.pipeline.devices import CPU, to_device
from quantbench.pipeline.runtime import QuantizeInput
from recipes import make_recipe

META = torch.device("meta")


def test_every_tensor_of_a_weight_moves_and_nothing_else_changes() -> None:
    grid = IntFormat(bits=4, group_size=8, symmetric=False)
    whole = quantize(torch.randn(4, 16, generator=torch.Generator().manual_seed(0)), grid)
    factors = LowRank(left=torch.ones(4, 1).half(), right=torch.ones(1, 16).half())
    weight = QuantizedWeight(whole.codes, whole.params, grid, torch.zeros(16, dtype=torch.int32), (factors,))
    moved = to_device(weight, META)
    assert moved.params.zero is not None
    tensors = [moved.codes, moved.params.scale, moved.params.zero, moved.group_index, moved.corrections[0].left]
    assert {t.device for t in tensors} == {META}
    assert moved.format is grid
    assert moved.bits_per_weight() == weight.bits_per_weight()
    assert to_device(weight, CPU) is weight


def test_operations_and_arguments_move() -> None:
    activation = make_recipe("w8a8").activation
    assert activation is not None
    op = QuantizeInput(module="m", format=activation, params={"scale": torch.ones(1)}, keep=torch.zeros(1).int())
    (moved,) = to_device([op], META)
    assert moved.params["scale"].device == moved.keep.device == META
    assert moved.module == "m"
    mask, pair = torch.ones(2), (torch.ones(3), None, "text")
    there = to_device({"mask": mask, "pair": pair, "flag": True}, META)
    assert there["mask"].device == there["pair"][0].device == META
    assert there["pair"][1:] == (None, "text")
    assert there["flag"] is True
    assert to_device(pair, CPU) is pair
