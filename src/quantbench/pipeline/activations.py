"""Which operations quantize the inputs of a block's layers, with the scales that calibration gave."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from quantbench.core.input_stats import LinearStats, together
from quantbench.formats.base import ActivationFormat
from quantbench.models.groups import InputGroup
from quantbench.models.slots import WeightSlot
from quantbench.pipeline.expert_ops import QuantizeExpertInputs
from quantbench.pipeline.rounder import Rounder
from quantbench.pipeline.runtime import QuantizeInput, RuntimeOp

Params = dict[str, Tensor]


def data_free_ops(slots: Sequence[WeightSlot], rounder: Rounder) -> list[RuntimeOp]:
    """The operations on the weights of a block that nothing was run through."""
    activation = rounder.recipe.activation
    if activation is None:
        return []
    found: list[RuntimeOp] = []
    planned = rounder.planned(slots)
    for _, same in itertools.groupby(planned, key=lambda slot: slot.parameter_name):
        several = list(same)
        if several[0].routed:
            found.append(_on_experts(several, activation, [{} for _ in several], [None for _ in several], 0))
        else:
            found += [QuantizeInput(module=slot.name, format=activation) for slot in several]
    return found


def activation_ops(
    groups: Sequence[InputGroup], stats: Sequence[LinearStats | None], rounder: Rounder
) -> list[RuntimeOp]:
    """The operations on the weights of a block, by the statistics of what they read."""
    activation = rounder.recipe.activation
    if activation is None:
        return []
    found: list[RuntimeOp] = []
    pairs = [pair for pair in zip(groups, stats, strict=True) if rounder.planned(pair[0].slots)]
    for _, side_by_side in itertools.groupby(pairs, key=lambda pair: pair[0].stage):
        stage = list(side_by_side)
        if stage[0][0].routed:
            found.append(_expert_op(stage, activation, rounder))
            continue
        for group, own in stage:
            found += input_ops(group.slots, own, rounder)
    return found


def input_ops(slots: Sequence[WeightSlot], stats: LinearStats | None, rounder: Rounder) -> list[RuntimeOp]:
    """The operations that quantize the input of those of the weights that the recipe treats; they read one tensor.

    stats: of that input; needed for static formats and kept columns.
    """
    activation, planned = rounder.recipe.activation, rounder.planned(slots)
    if activation is None or not planned:
        return []
    kept = None if stats is None else rounder.outlier_columns(planned[0], stats)
    params, index = _params(activation, stats, kept), None if kept is None else kept.int()
    return [QuantizeInput(module=slot.name, format=activation, params=params, keep=index) for slot in planned]


def _expert_op(
    stage: Sequence[tuple[InputGroup, LinearStats | None]], activation: ActivationFormat, rounder: Rounder
) -> QuantizeExpertInputs:
    """The operation on experts side by side. One that saw too few tokens has the range of all of them together."""
    slots = [group.slots[0] for group, _ in stage]
    seen = [own for _, own in stage if own is not None and own.n_tokens]
    params: list[Params] = []
    keep: list[Tensor | None] = []
    common = 0
    for slot, (_, own) in zip(slots, stage, strict=True):
        scarce = rounder.is_scarce(slot, own)
        kept = None if own is None or scarce else rounder.outlier_columns(slot, own)
        if scarce and activation.needs:
            own, common = together(seen), common + 1
        params.append(_params(activation, own, kept))
        keep.append(kept)
    return _on_experts(slots, activation, params, keep, common)


def _params(activation: ActivationFormat, stats: LinearStats | None, kept: Tensor | None) -> Params:
    """Scale and zero of a static format, for the channels that are not kept."""
    if not activation.needs:
        return {}
    assert stats is not None
    low, high = stats.require("minimum"), stats.require("maximum")
    if kept is not None:
        low, high = low.index_fill(0, kept, 0), high.index_fill(0, kept, 0)
    scale, zero = activation.static_params(low, high)
    return {"scale": scale} if zero is None else {"scale": scale, "zero": zero}


def _on_experts(
    slots: Sequence[WeightSlot],
    activation: ActivationFormat,
    params: Sequence[Params],
    keep: Sequence[Tensor | None],
    common: int,
) -> QuantizeExpertInputs:
    module, _, parameter = slots[0].parameter_name.rpartition(".")
    return QuantizeExpertInputs(
        module=module,
        parameter=parameter,
        format=activation,
        experts=torch.tensor([slot.index for slot in slots], dtype=torch.int32),
        params={key: torch.stack([one[key] for one in params]) for key in params[0]},
        keep={str(slot.index): kept.int() for slot, kept in zip(slots, keep, strict=True) if kept is not None},
        common=common,
    )
